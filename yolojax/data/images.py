"""Image files to RGB uint8 arrays, their sizes from the header alone, and OpenCV's resize.

Conventions:

- Orientation. A photo with an EXIF orientation is turned upright, as every viewer and labelling tool shows it, unless
  its annotation states the size of the stored, unturned pixels: then the boxes were drawn on those, and they are read
  as stored.
- Colour. Grey, palette, CMYK and bilevel images become RGB; an alpha channel is dropped (its colours are kept as
  stored). 16-bit grey is scaled by 1/257, so that 65535 gives 255; 32-bit grey that stays within 0..255 is taken as it
  is, and within 65535 for 16-bit.
- Safety. Only raster formats that Pillow decodes by itself are opened (EPS, for one, would start Ghostscript), and
  Pillow's guard against decompression bombs stays on.
"""

import contextlib
import functools
import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8, UInt64
from PIL import Image, ImageOps, UnidentifiedImageError

from yolojax.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".avifs"),
        *(".heic", ".heif", ".hif", ".tga", ".pcx", ".qoi", ".sgi"),
    )
)
"""Suffixes, in lower case, by which a file in a folder is taken for an image."""

UNREAD_SUFFIXES = frozenset(
    (
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".raw", ".psd", ".svg", ".eps"),
        *(".ico", ".exr", ".hdr", ".jxl", ".dcm", ".nii", ".npy"),
    )
)
"""Suffixes of pictures that are not read; they are named where they lie among images."""

_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "WEBP", "TIFF", "PPM", "GIF", "JPEG2000", "AVIF", "HEIF")
_MORE_FORMATS = ("TGA", "PCX", "QOI", "SGI")

_ORIENTATION_TAG = 0x0112
_SMALL_FILE = 2**20
_WHOLE_FILE = 2**26  # bytes; something else may lie behind the picture
_HEAD = 4096  # bytes that `quick_header` reads
_SUBFILE_TAG = 254  # bit 0: a reduced copy of another page (TIFF 6.0, NewSubfileType)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image; blanks after the suffix do not count."""
    return os.path.splitext(name)[1].rstrip().lower() in IMAGE_SUFFIXES


_FORMAT_OF = {
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".avif": "AVIF",
    ".avifs": "AVIF",
    ".webp": "WEBP",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".jpx": "JPEG2000",
    ".jpf": "JPEG2000",
}


def why_unread(path: Path) -> str | None:
    """Why a picture that lies in a folder of images is not read by this installation; None where it is none or is."""
    suffix = path.suffix.rstrip().lower()
    if suffix in UNREAD_SUFFIXES:
        return f"pictures of this format ({suffix}) are not read; convert it to PNG or JPEG"
    wanted = _FORMAT_OF.get(suffix)
    if wanted is None or wanted in _formats():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return None
    if head[:3] == b"\xff\xd8\xff" or head[:4] == b"\x89PNG":  # renamed, and read by what it is
        return None
    mend = "pip install 'yolojax[heic]', or convert it" if wanted == "HEIF" else "convert it to PNG or JPEG"
    return f"Pillow does not read {wanted} here; {mend}"


class Header(NamedTuple):
    """What the head of an image file says.

    Attributes:
      stored: ``(height, width)`` of the stored pixels.
      orientation: the EXIF orientation, 1..8.
      pages: pages or frames of the file, of which the first is read; reduced copies of it do not count. For a GIF 2
        means any number above 1.
      is_deep: whether pixels have 16 bits.
    """

    stored: tuple[int, int]
    orientation: int
    pages: int = 1
    is_deep: bool = False

    @property
    def upright(self) -> tuple[int, int]:
        """``(height, width)`` after turning the photo upright: orientations 5 to 8 swap the sides."""
        h, w = self.stored
        return (w, h) if self.orientation >= 5 else (h, w)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()
    with contextlib.suppress(ImportError):  # an extra: see pyproject.toml
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    return tuple(f for f in (*_FORMATS, *_MORE_FORMATS) if f in Image.OPEN)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if not os.path.isfile(path):  # False, too, for a name that is too long
        raise DataError(
            f"{path}: image file is missing; restore it, remove its annotation, or give the folder with --images"
        )
    with _decoding(str(path)):
        source: Any = path
        with open(path, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size <= _SMALL_FILE:  # Pillow would read it in several pieces
                source = io.BytesIO(file.read())
        with Image.open(source, formats=_formats()) as image:
            yield image


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: not an image that can be read ({_what_instead(name)})") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: {error}; cut or shrink the image if it can be trusted") from None
    except MemoryError:
        raise DataError(f"{name}: not enough memory to decode this image; shrink it") from None
    except OSError as error:
        if error.errno is not None:  # the system's own, and not a decoder's
            raise DataError(f"{name}: cannot be read ({error.strerror}); check the file and its permissions") from None
        raise DataError(f"{name}: damaged image ({error}); replace the file") from error
    except Exception as error:  # on damaged bytes decoders raise nearly anything: SyntaxError, struct.error
        raise DataError(f"{name}: damaged image ({error}); replace the file") from error


def _what_instead(name: str) -> str:
    """What is said of a file that no decoder takes, by its first bytes, with what to do about it."""
    head = b"?"
    if os.path.isfile(name):  # not the name of what comes from elsewhere
        with contextlib.suppress(OSError), open(name, "rb") as file:
            head = file.read(64)
    if not head:
        return "the file is empty: replace or remove it"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: fetch the content with git lfs pull"
    if head.lstrip()[:1] in (b"<", b"{"):
        return "it holds text, as a failed download does: fetch it again"
    return "damaged, or of an unknown format: replace or convert it"


_EXIF_KEYS = ("exif", "xmp", "Raw profile type exif")
"""Where Pillow looks for an orientation."""


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF by itself. For PNG, getexif() would decode the whole image when the header holds no EXIF.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    if image.format == "JPEG" and not any(key in image.info for key in _EXIF_KEYS):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # unreadable EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def read_header(path: Path) -> Header:
    """Size and orientation without decoding pixels. Raises `DataError` when the file is missing or no image."""
    with _opened(path) as image:
        return Header((image.height, image.width), _orientation(image), _pages(image), _is_deep(image))


def quick_header(path: Path | str) -> Header | None:
    """`read_header` of a plain JPEG or PNG in a fifth of the time; None for every other file, whatever it is.

    Plain is a file of 8 bits in one or three colours, without EXIF or XMP, all of whose parts up to the pixels are well
    formed and of the kinds that every program writes (ITU-T T.81, B.1; PNG 1.2, 4).
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError):
        return None
    try:
        head = os.read(file, _HEAD)
    except OSError:
        return None
    finally:
        os.close(file)
    shape = _plain_shape(head)
    return None if shape is None else Header(shape[:2], 1)


def _plain_shape(head: bytes) -> tuple[int, int, int] | None:
    """``(height, width, colours)`` of a plain JPEG or PNG (0 for the colours of a PNG); None for all else."""
    try:
        shape = _shape_of_jpeg(head) if head[:3] == b"\xff\xd8\xff" else _shape_of_png(head)
    except (IndexError, struct.error):  # the head ends before the pixels begin
        return None
    return shape if shape is not None and 0 < shape[0] * shape[1] <= (Image.MAX_IMAGE_PIXELS or 0) else None


def _shape_of_jpeg(head: bytes) -> tuple[int, int, int] | None:
    place, shape = 2, None
    while head[place] == 0xFF:
        marker = head[place + 1]
        length = head[place + 2] << 8 | head[place + 3]
        if length < 2:
            return None
        if marker in _JPEG_FRAMES:
            bits, h, w, colours = struct.unpack_from(">BHHB", head, place + 4)
            if bits != 8 or colours not in (1, 3) or length != 8 + 3 * colours or shape is not None:
                return None
            shape = (h, w, colours)
        elif marker == 0xDA:
            return shape if place + 2 + length <= len(head) else None
        elif marker == 0xE2:
            if head[place + 4 : place + 15] != b"ICC_PROFILE" or length < 16:  # several pictures in one file, for one
                return None
        elif marker == 0xDB:
            if length % 65 != 2 or any(head[table] > 3 for table in range(place + 4, place + 2 + length, 65)):
                return None
        elif marker not in _JPEG_PLAIN or (marker == 0xE0 and length < 9):
            return None
        place += 2 + length
    return None


_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_PLAIN = (0xC4, 0xDD, 0xE0, 0xFE)
"""Tables of Huffman codes, restart interval, JFIF, comment."""


def _shape_of_png(head: bytes) -> tuple[int, int, int] | None:
    if head[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR":
        return None
    w, h, bits, kind, compression, filters, interlace = struct.unpack_from(">IIBBBBB", head, 16)
    if bits != 8 or kind not in (0, 2, 6) or compression or filters or interlace > 1 or not w or not h:
        return None
    place = 8
    while (name := head[place + 4 : place + 8]) != b"IDAT":
        (length,) = struct.unpack_from(">I", head, place)
        end = place + 8 + length
        if (name, length) not in _PNG_PLAIN or (zlib.crc32(head[place + 4 : end]),) != struct.unpack_from(
            ">I", head, end
        ):
            return None
        place = end + 4
    return h, w, 0


_PNG_PLAIN = frozenset([(b"IHDR", 13), (b"gAMA", 4), (b"sRGB", 1), (b"pHYs", 9), (b"cHRM", 32), (b"tIME", 7)])
"""Parts of a PNG before its pixels that say nothing of their number or place, and their lengths."""


def _pages(image: Image.Image) -> int:
    """Reads no pixels; leaves the image at another page."""
    if image.format not in ("TIFF", "GIF", "WEBP", "PNG", "AVIF") or not getattr(image, "is_animated", False):
        return 1
    if image.format == "GIF":
        return 2
    try:
        count = int(getattr(image, "n_frames", 1))
        if image.format != "TIFF":
            return count
        kept = 0
        for page in range(min(count, 1000)):
            image.seek(page)
            kept += not int(getattr(image, "tag_v2", {}).get(_SUBFILE_TAG, 0)) & 1
        return max(kept, 1)
    except Exception:  # a damaged later page; the first is read all the same
        return 1


def _is_deep(image: Image.Image) -> bool:
    stored = str([tile[3] for tile in getattr(image, "tile", [])[:1]])
    return image.mode.startswith("I") or ";16" in stored  # "I" holds 16 bits of a PNG or PPM, or 32 of a TIFF


def deepest_value(path: Path) -> int | None:
    """The largest pixel value of an image of 16 bits or more, in 0..65535; None where it cannot be decoded, or holds
    values of 8 bits in 32."""
    try:
        with _opened(path) as image:
            image.load()
            pixels, has_32_bits = np.asarray(image), image.mode == "I" and image.format not in ("PPM", "PNG")
    except DataError:
        return None
    if pixels.dtype.kind not in "iu" or not pixels.size:
        return None
    most = int(pixels.max())
    if has_32_bits and most <= 255:  # taken for values of 8 bits
        return None
    return most * 257 if pixels.dtype == np.uint8 else most  # Pillow itself reduces colours of 16 bits to 8


def read_image(path: Path, *, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """Decode to RGB uint8, by default turned upright by EXIF (`upright=False`: the pixels as stored).

    Raises `DataError` when the file is missing, damaged, truncated, too large for Pillow's bomb guard, or holds 32-bit
    pixels whose range is unknown.
    """
    with _opened(path) as image:
        return to_rgb(image, str(path), upright=upright)


def decoded_size(path: Path | str, *, upright: bool = True) -> tuple[int, int]:
    """The ``(height, width)`` of what `read_image` gives; decodes the image and makes no array of it.

    Raises `DataError` where `read_image` does.
    """
    if (size := _size_of_plain_jpeg(path)) is not None:
        return size
    path = Path(path)
    with _opened(path) as image:
        if image.mode not in ("RGB", "L", "P", "RGBA", "CMYK", "1") or 0 in image.size:
            h, w, _ = to_rgb(image, str(path), upright=upright).shape
            return h, w
        orientation = _orientation(image) if upright else 1
        image.load()
        return Header((image.height, image.width), orientation).upright


def _size_of_plain_jpeg(path: Path | str) -> tuple[int, int] | None:
    """The size of a plain JPEG (`quick_header`) that decodes to its end; None for every other file.

    Pillow's decoder gets the whole file at once. Opening a photo its usual way costs more than decoding a small one.
    """
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
            shape = _plain_shape(head)
            if shape is None or not shape[2] or os.fstat(file.fileno()).st_size > _WHOLE_FILE:
                return None
            mode = "RGB" if shape[2] == 3 else "L"
            Image.frombytes(mode, (shape[1], shape[0]), head + file.read(), "jpeg", mode, "")
    except Exception:  # whatever is wrong with the file, reading it in the usual way says so
        return None
    return shape[:2]


def read_image_bytes(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """`read_image` of the content of a file that came some other way; ``name`` is what errors call it."""
    with _decoding(name), Image.open(io.BytesIO(data), formats=_formats()) as image:
        return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str, *, upright: bool = True) -> UInt8[np.ndarray, "h w 3"]:
    """A Pillow image as `read_image` would give it; raises `DataError` as it does."""
    with _decoding(name):
        orientation = _orientation(image) if upright else 1
        image.load()
        if 0 in image.size:
            raise DataError(f"{name}: an image of {image.width} x {image.height} pixels; give one that has pixels")
        if image.mode == "F" or image.mode.startswith("I"):
            # Pillow holds the 16 bits of PGM and, in some versions, of PNG in 32.
            deep = image.mode != "I" or image.format in ("PPM", "PNG")
            picture = Image.fromarray(_deep_to_grey(np.asarray(image), name, deep))
        elif image.mode == "P":
            picture = image.convert("RGBA")  # straight to RGB warns when the palette holds transparency
        else:
            picture = image
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        if orientation != 1:
            picture.getexif()[_ORIENTATION_TAG] = orientation
            picture = ImageOps.exif_transpose(picture)
        return np.array(picture, np.uint8)


def as_rgb(image: object, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """An array in memory as RGB uint8, by the rules that hold for files.

    ``[h, w, 3]`` uint8 is taken as it is, without a copy; ``[h, w]`` and ``[h, w, 1]`` are grey and become RGB; of
    ``[h, w, 4]`` the alpha channel is dropped. A Pillow image is converted as a file is (`to_rgb`). Raises `DataError`
    for everything else: the range of floating-point pixels, for one, is unknown.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image, name)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        mend = "multiply by 255 if they lie in 0..1, and " if pixels.dtype.kind == "f" else ""
        raise DataError(
            f"{name}: the image holds {pixels.dtype}, not uint8 pixels; {mend}convert it with astype(np.uint8)"
        )
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1):
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    elif pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.ascontiguousarray(pixels[..., :3])
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"{name}: the image has shape {pixels.shape}, not [height, width, 3] (RGB)")
    if not pixels.size:
        raise DataError(f"{name}: an image of {pixels.shape[1]} x {pixels.shape[0]} pixels; give one that has pixels")
    return pixels


def _deep_to_grey(pixels: np.ndarray, name: str, deep: bool) -> UInt8[np.ndarray, "h w"]:
    """``deep`` says that the range is that of 16 bits, however little of it this image uses."""
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{name}: {pixels.dtype} pixels of unknown range; convert the image to 8 or 16 bits")
    if not deep and pixels.max() <= 255:
        return pixels.astype(np.uint8)
    return np.round(pixels.astype(np.float64) / 257.0).astype(np.uint8)


def resolve_size(
    header: Header, stated: tuple[int, int] | None, where: str, path: Path
) -> tuple[tuple[int, int], bool]:
    """The size ``(h, w)`` that the boxes of the image at ``path`` refer to, and whether it is to be turned upright.

    ``stated`` is the size in the annotation ``where`` (None: it states none). Raises `DataError` when the image has
    neither as stored nor upright that size.
    """
    if stated is None or stated == header.upright:
        return header.upright, True
    if stated == header.stored:
        return header.stored, False
    (h, w), (upright_h, upright_w) = stated, header.upright
    raise DataError(
        f"{where}: states an image of {w} x {h} pixels, but {path} has {upright_w} x {upright_h}; "
        + (
            "width and height seem to be swapped: correct the annotation"
            if (w, h) == header.upright
            else "the boxes belong to another version of the image: restore that version or label it anew"
        )
    )


_ONE = 2048
"""OpenCV's fixed point: weights of two neighbours sum to this, or to one more or less, since each is rounded."""


def resize_bilinear(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The photo at ``size = (height, width)``: the values of ``cv2.resize``, ``INTER_LINEAR``, bit for bit.

    Each value mixes the two by two pixels around its place, however much the photo shrinks, so that small things may
    be lost or stand out; scores of a detector change by some hundredths with the filter. Pixel centres lie at halves.
    """
    height, width = size
    down, across = _neighbours(image.shape[0], height), _neighbours(image.shape[1], width)
    if len(down.needed) < image.shape[0]:
        image = image[down.needed]
    if len(across.needed) < image.shape[1]:
        image = image.take(across.needed, axis=1)
    packed = _packed(image)
    mixed = packed.take(across.before, axis=1)
    mixed *= across.weight_before.astype(np.uint64)
    beside = packed.take(across.after, axis=1)
    beside *= across.weight_after.astype(np.uint64)
    mixed += beside
    lines = _unpacked(mixed >> np.uint64(4)).reshape(len(down.needed), -1)
    out = np.empty((height, 3 * width), np.uint8)
    for start in range(0, height, _LINES):  # a few lines at a time stay in the processor's own memory
        here = slice(start, start + _LINES)
        total = lines[down.before[here]]
        total *= down.weight_before[here, None]
        total >>= 16
        under = lines[down.after[here]]
        under *= down.weight_after[here, None]
        under >>= 16
        total += under
        total += 2
        total >>= 2  # at most 255: weights that sum to 2049, twice, give (1020 + 2) / 4
        out[here] = total
    return out.reshape(height, width, 3)


_LINES = 32

_FIELD = 21
"""Bits between the channels of a packed pixel, of which a value of 8 bits times weights of 11 takes 19."""


def _packed(image: UInt8[np.ndarray, "h w 3"]) -> UInt64[np.ndarray, "h w"]:
    """The three channels of each pixel in one number, the first lowest, so that one product weighs them all."""
    packed = image[..., 2].astype(np.uint64)
    for channel in (1, 0):
        packed <<= np.uint64(_FIELD)
        packed |= image[..., channel]
    return packed


def _unpacked(packed: UInt64[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w 3"]:
    """The lowest 15 bits of each channel, which is what a product leaves without its last four."""
    channels = np.empty((*packed.shape, 3), np.int32)
    for channel in range(3):
        channels[..., channel] = packed >> np.uint64(channel * _FIELD) & np.uint64(0x7FFF)
    return channels


class _Neighbours(NamedTuple):
    """Along one axis: the pixels that are read, and for each place the two that are mixed, with their weights.

    ``before`` and ``after`` are indices into ``needed``. The arrays are kept for later calls, and cannot be written.
    """

    needed: Int32[np.ndarray, " p"]
    before: Int[np.ndarray, " m"]
    after: Int[np.ndarray, " m"]
    weight_before: Int32[np.ndarray, " m"]
    weight_after: Int32[np.ndarray, " m"]


@functools.lru_cache(maxsize=256)
def _neighbours(n: int, m: int) -> _Neighbours:
    """The neighbours of ``m`` places among ``n`` pixels. Beyond the centre of a border pixel both are that pixel."""
    place = ((np.arange(m) + 0.5) * (1 / (m / n)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    share = place - first.astype(np.float32)
    pixels = np.clip(np.concatenate([first, first + 1]), 0, n - 1)
    needed, at = np.unique(pixels, return_inverse=True)
    weights = (np.rint(part * np.float32(_ONE)).astype(np.int32) for part in (np.float32(1) - share, share))
    found = _Neighbours(needed, at[:m], at[m:], *weights)
    for array in found:
        array.flags.writeable = False
    return found
