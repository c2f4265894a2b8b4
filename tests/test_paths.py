"""Paths as users give them: home directories that do not exist, and places that cannot be written to."""

import os
import re
from pathlib import Path

import pytest

from yolojax.errors import ConfigError
from yolojax.paths import check_writable, user_path


def test_home_directories(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a/b") == tmp_path / "a" / "b"
    with pytest.raises(ConfigError, match="~nobody-of-that-name/a: there is no home directory ~nobody-of-that-name"):
        user_path("~nobody-of-that-name/a")


def test_what_can_be_written_to_is_left_as_it_was(tmp_path):
    check_writable(tmp_path, "give another")
    check_writable(tmp_path / "a" / "b", "give another")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (tmp_path / "file" / "x", tmp_path / "loop"):
        with pytest.raises(ConfigError, match=f"{re.escape(str(place))} cannot be made: .* is not a folder; give a"):
            check_writable(place, "give another")
    with pytest.raises(ConfigError, match=r"(?i)name too long.*give another"):
        check_writable(tmp_path / "kept" / ("a" * 300), "give another")
    assert not (tmp_path / "kept").exists()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    for place in (tmp_path, tmp_path / "new"):
        with pytest.raises(ConfigError, match=r"cannot be written to \(Permission denied\)"):
            check_writable(place, "give another")


@pytest.mark.parametrize("path", ["https://host/a.zip", Path("https://host/a.zip"), "S3://host/a.zip"])
def test_an_address_is_no_path(path):
    """A `pathlib.Path` has one slash of the two; the message has both."""
    with pytest.raises(ConfigError, match=r"://host/a\.zip is an address, not a file; download it"):
        user_path(path)
