"""What comes on standard input: one photo in any format, names of files, or a clear refusal."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from yolojax.data.sources import find_sources
from yolojax.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
PLAIN_PPM = b"P3\n# text\n2 1\n255\n1 2 3 4 5 6\n"


def encoded(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        PLAIN_PPM,
        encoded("PPM"),
        encoded("JPEG", progressive=True),
        encoded("JPEG") + b"what cameras append",
        encoded("MPO", save_all=True, append_images=[Image.fromarray(PIXELS)]),
        encoded("GIF"),
        encoded("WEBP"),
        os.urandom(64) + b"\0",
    ],
    ids=["P3", "P6", "progressive", "trailer", "MPO", "GIF", "WebP", "rubbish"],
)
def test_bytes_are_one_photo(data):
    assert [(s.path.name, s.data) for s in find_sources(["-"], lambda: data)] == [("standard input", data)]


@pytest.mark.parametrize("first", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("second", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_photos_one_behind_the_other_are_refused(first, second):
    """All but the first would be dropped in silence."""
    with pytest.raises(DataError, match="holds several images"):
        find_sources(["-"], lambda: encoded(first) + encoded(second))


def test_text_is_names_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    found = find_sources(["-"], lambda: "\ufeffa.png\n\nmissing.png\n".encode())
    assert [s.path.name for s in found] == ["a.png", "missing.png"]
    for text, said in (
        ("hello\nworld\n", "none of its 2 lines names a file that exists, the first: 'hello'"),
        ("a.png\n\x1b[31m\n", r"line 2: '\\x1b\[31m' is not the name of a file; give one image"),
        ("a.png\n" + "x" * 5000, "line 2: 'xxx.*' is not the name of a file"),
        (" \n", "standard input is empty; give one image"),
    ):
        with pytest.raises(DataError, match=said):
            find_sources(["-"], lambda text=text: text.encode())
    with pytest.raises(DataError, match="one of the names of photos is empty"):
        find_sources([""])
