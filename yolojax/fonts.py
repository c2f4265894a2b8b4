"""Fonts for pictures: which of those there are can write a text, and what is written where none can."""

import functools
import importlib.util
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

WIDE_FONTS = (
    *("NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansCJKjp-Regular.otf", "SourceHanSans-Regular.ttc"),
    *("wqy-zenhei.ttc", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "unifont.otf"),
    *("msyh.ttc", "simsun.ttc", "YuGothM.ttc", "malgun.ttf", "arialuni.ttf"),
    *("PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf"),
)
"""Files by which Linux, Windows and macOS bring Chinese, Japanese and Korean; Pillow knows the folders."""

_NO_CHARACTER = "\U0010ffff"
_LONGEST = 300
_TRIAL = 16
"""Pixels of the font in which glyphs are looked for."""


@functools.cache
def font_of_size(size: int) -> Font:
    """DejaVu Sans, which matplotlib brings and which knows Latin, Greek and Cyrillic; else Pillow's own, for ASCII."""
    spec = importlib.util.find_spec("matplotlib")  # finds the folder without importing the package
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def font_for(text: str, size: int) -> tuple[Font, str]:
    """The font to write a text in, and the text as one line.

    Control characters, line ends among them, become spaces. A character that no font here has becomes its code, as in
    ``\\\\u732b``: a row of empty boxes would be the same for every name. Of a text of more than 300 characters the
    beginning is written.
    """
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    text = "".join(c if c.isprintable() or not c.isascii() else " " for c in text)
    if all(_has(font_of_size(_TRIAL), c) for c in text):
        return font_of_size(size), text
    for file in _wide_files():
        if all(_has(_wide_font(file, _TRIAL), c) for c in text):
            return _wide_font(file, size), text
    known = (c if _has(font_of_size(_TRIAL), c) else c.encode("unicode_escape").decode() for c in text)
    return font_of_size(size), "".join(known)


@functools.cache
def _wide_files() -> tuple[str, ...]:
    found: list[str] = []
    for name in WIDE_FONTS:
        try:
            found.append(str(ImageFont.truetype(name, 10).path))
        except OSError:
            continue
    return tuple(found)


@functools.cache
def _wide_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@functools.cache
def _has(font: Font, character: str) -> bool:
    """Whether a font has a glyph of its own; what it has not, it draws like a code that is no character."""
    if character.isascii():
        return True
    if not character.isprintable():
        return False
    try:
        return _drawn(font, character) != _drawn(font, _NO_CHARACTER)
    except (OSError, ValueError):  # a bitmap font, for Latin-1 alone
        return False


def _drawn(font: Font, character: str) -> bytes:
    picture = Image.new("L", (3 * _TRIAL, 3 * _TRIAL))
    ImageDraw.Draw(picture).text((_TRIAL, _TRIAL), character, fill=255, font=font)
    return picture.tobytes()
