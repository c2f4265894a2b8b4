"""Decoding: every kind of pixel becomes RGB uint8, orientations are settled, and damage is named."""

import re

import numpy as np
import pytest
from PIL import Image

from yolojax.data import images
from yolojax.data.images import decoded_size, quick_header, read_header, read_image, resolve_size, to_rgb
from yolojax.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)
GREY = RNG.integers(0, 256, (5, 7), np.uint8)


def grey3(values):
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, 2)


def test_rgb_is_kept(tmp_path):
    for suffix in ("png", "bmp", "tif", "ppm"):
        Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), RGB)


def test_grey_is_repeated(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), grey3(GREY))


def test_bilevel_becomes_black_and_white(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), grey3((GREY > 127) * 255))


def test_alpha_is_dropped(tmp_path):
    alpha = RNG.integers(0, 256, (5, 7, 1), np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)
    Image.fromarray(np.concatenate([GREY[:, :, None], alpha], 2)).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), grey3(GREY))


@pytest.mark.parametrize("transparency", [None, bytes(range(0, 250, 10))])
def test_palettes_are_looked_up(tmp_path, transparency):
    palette = RNG.integers(0, 256, (256, 3), np.uint8)
    image = Image.frombytes("P", (7, 5), GREY.tobytes())
    image.putpalette(palette.ravel().tolist())
    extra = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **extra)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), palette[GREY])


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), grey3([[0, 0, 1, 1, 128, 255]]))


def test_thirty_two_bits_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0.5, 2.0]], np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.array([[0, 1 << 20]], np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        with pytest.raises(DataError, match="unknown range; convert"):
            read_image(tmp_path / name)


def test_thirty_two_bits_hold_eight_or_sixteen(tmp_path):
    """What else would be black: Pillow's mode I says nothing of the range, unless the file's format does."""
    wide = GREY.astype(np.int32)
    Image.fromarray(wide).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), grey3(GREY))
    np.testing.assert_array_equal(to_rgb(Image.fromarray(GREY).convert("I"), "image"), grey3(GREY))
    np.testing.assert_array_equal(to_rgb(Image.fromarray(wide * 257), "image"), grey3(GREY))
    (tmp_path / "dark.pgm").write_bytes(b"P5 2 1 65535\n\0\x80\0\xc0")  # 128 and 192 of 65535
    with Image.open(tmp_path / "dark.pgm") as image:
        assert image.mode == "I"
    np.testing.assert_array_equal(read_image(tmp_path / "dark.pgm"), grey3([[0, 1]]))


def test_what_the_system_refuses_is_not_called_damage(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr("yolojax.data.images.Image.open", refuse)
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(Permission denied\); check the file"):
        read_image(tmp_path / "a.png")


def test_a_pillow_image_whose_file_breaks_off_is_named(tmp_path):
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with Image.open(tmp_path / "a.jpg") as lazy, pytest.raises(DataError, match="picture: damaged image"):
        to_rgb(lazy, "picture")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_exif_turns_the_photo_upright(tmp_path, orientation, suffix):
    """What the eight values mean, from the EXIF standard: where row 0 and column 0 of the stored pixels belong."""
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: RGB.transpose(1, 0, 2)[:, ::-1],
        7: RGB.transpose(1, 0, 2)[::-1, ::-1],
        8: RGB.transpose(1, 0, 2)[::-1],
    }
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=image.getexif(), lossless=True)
    header = read_header(tmp_path / f"a.{suffix}")
    assert header.upright == turned[orientation].shape[:2]
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), turned[orientation])
    if suffix != "tif":  # Pillow itself turns TIFF: there is no stored orientation to fall back to
        assert header[:2] == ((5, 7), orientation)
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", upright=False), RGB)


def test_the_annotation_decides_which_orientation_its_boxes_mean(tmp_path):
    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = 6
    path = tmp_path / "a.png"
    image.save(path, exif=image.getexif())
    header = read_header(path)
    assert resolve_size(header, None, "a.xml", path) == ((7, 5), True)
    assert resolve_size(header, (7, 5), "a.xml", path) == ((7, 5), True)
    assert resolve_size(header, (5, 7), "a.xml", path) == ((5, 7), False)
    with pytest.raises(DataError, match=r"a\.xml: states an image of 8 x 7 pixels, but .*a.png has 5 x 7"):
        resolve_size(header, (7, 8), "a.xml", path)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(DataError, match=r"a\.jpg: image file is missing"):
        read_header(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.jpg: not an image"):
        read_header(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start Ghostscript
    with pytest.raises(DataError, match=r"a\.jpg: not an image"):
        read_header(path)
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_header(path).stored == (64, 64)
    with pytest.raises(DataError, match=r"a\.jpg: damaged image"):
        read_image(path)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((100, 100, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match=r"a\.png.*decompression bomb"):
        read_header(tmp_path / "a.png")


def test_unreadable_exif_counts_as_upright(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0nonsense")
    assert read_header(tmp_path / "a.webp").orientation == 1
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp"), RGB)


def _with_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


WAYS = {
    "baseline.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "optimised.jpg": ("RGB", {"optimize": True, "quality": 30}),
    "restarts.jpg": ("RGB", {"restart_marker_blocks": 1}),
    "grey.jpg": ("L", {}),
    "comment.jpg": ("RGB", {"comment": b"ff d8"}),
    "profile.jpg": ("RGB", {"icc_profile": bytes(900)}),
    "turned.jpg": ("RGB", _with_exif(6)),
    "cmyk.jpg": ("CMYK", {}),
    "rgb.png": ("RGB", {"dpi": (72, 72)}),
    "alpha.png": ("RGBA", {}),
    "turned.png": ("RGB", _with_exif(6)),
    "palette.png": ("P", {}),
    "bits.png": ("1", {}),
    "a.bmp": ("RGB", {}),
    "a.webp": ("RGB", {}),
}
PLAIN = ("baseline.jpg", "progressive.jpg", "optimised.jpg", "restarts.jpg", "grey.jpg", "comment.jpg", "profile.jpg")


@pytest.mark.parametrize("name", WAYS)
def test_a_quick_look_at_the_head_says_what_pillow_says(name, tmp_path):
    mode, settings = WAYS[name]
    path = tmp_path / name
    Image.fromarray(RGB).convert(mode).save(path, **settings)
    quick = quick_header(path)
    assert quick in (None, read_header(path))
    assert (quick is not None) == (name in PLAIN or name in ("rgb.png", "alpha.png"))
    for upright in (True, False):
        assert decoded_size(path, upright=upright) == read_image(path, upright=upright).shape[:2]


@pytest.mark.parametrize("name", ["baseline.jpg", "rgb.png"])
def test_a_quick_look_at_a_damaged_head(name, tmp_path):
    """Cut anywhere, or with a byte changed, a head is one that Pillow reads alike, or it is left to Pillow."""
    mode, settings = WAYS[name]
    path = tmp_path / name
    Image.fromarray(RGB).convert(mode).save(path, **settings)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    damaged = [whole[:end] for end in range(0, 700, 7)]
    for place in random.integers(0, min(len(whole), 640), 300).tolist():
        damaged.append(whole[:place] + bytes([int(random.integers(256))]) + whole[place + 1 :])
    taken = decoded = 0
    for content in damaged:
        path.write_bytes(content)
        quick = quick_header(path)
        if quick is None:
            continue
        taken += 1
        assert quick == read_header(path)
        try:
            shape = read_image(path).shape[:2]
        except DataError as error:
            with pytest.raises(DataError, match=re.escape(str(error))):
                decoded_size(path)
        else:
            decoded += 1
            assert decoded_size(path) == shape
    assert taken > 10 and 0 < decoded < taken


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\x07JFIF\0",
        b"\xff\xe0\0\x08JFIF\0\1",
        b"\xff\xe2\0\x0eICC_PROFILE\0",
        b"\xff\xe2\0\x0fICC_PROFILE\0\1",
    ],
)
def test_a_segment_that_breaks_off_is_left_to_pillow(segment, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path)
    content = path.read_bytes()
    path.write_bytes(content[:2] + segment + content[2:])
    assert quick_header(path) is None
    with pytest.raises(DataError) as refused:
        read_image(path)
    with pytest.raises(DataError, match=re.escape(str(refused.value))):
        decoded_size(path)


def test_a_file_behind_the_picture_is_not_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path)
    with path.open("ab") as file:
        file.write(bytes(10_000))
    assert decoded_size(path) == RGB.shape[:2]
    monkeypatch.setattr(images, "_WHOLE_FILE", 5_000)
    monkeypatch.setattr(Image, "frombytes", lambda *_: pytest.fail("read whole"))
    assert decoded_size(path) == RGB.shape[:2]


def test_a_quick_look_at_what_is_no_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.jpg", "a\0b", ""):
        assert quick_header(path) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty: replace or remove it"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "it is a pointer of Git LFS: .*git lfs pull",
        ),
        (b"<!DOCTYPE html><html>404</html>", "it holds text, as a failed download does: fetch it again"),
        (b"\0" * 100, "damaged, or of an unknown format: replace or convert it"),
    ],
)
def test_what_lies_in_the_place_of_an_image_is_named(tmp_path, content, says):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.jpg: not an image that can be read \({says}\)"):
        read_header(tmp_path / "a.jpg")
