"""Files appear whole or not at all, and a refusal leaves what was there."""

import os

import pytest

from yolojax import files
from yolojax.errors import WriteError
from yolojax.files import write_together, write_whole


def test_text_and_bytes_are_written_as_they_are(tmp_path):
    write_whole(tmp_path / "a", "x\r\ny\n\u00e9")
    write_whole(str(tmp_path / "b"), b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == b"x\r\ny\n\xc3\xa9" and (tmp_path / "b").read_bytes() == b"\x00\xff"
    write_whole(tmp_path / "a", "half \ud800 pair")
    assert (tmp_path / "a").read_text() == "half ? pair"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_refusal_leaves_the_old_files_and_no_other(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(WriteError, match=r"cannot write .*a: No space left on device; go on") as caught:
        write_together({tmp_path / "a": "new", tmp_path / "b": b"new"}, advice="go on")
    assert isinstance(caught.value.__cause__, OSError)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old"}


def test_none_takes_its_name_before_all_are_on_the_disk(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda n: (events.append("fsync"), fsync(n)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    write_together({tmp_path / "a": "1", tmp_path / "b": "2"})
    assert events == ["fsync", "fsync", "replace", "replace"]


@pytest.mark.parametrize("name", ["folder", "none/x", "file/x"])
def test_places_that_cannot_hold_a_file_are_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=f"cannot write .*{name}"):
        write_whole(tmp_path / name, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
