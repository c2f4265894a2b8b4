"""Programs kept between processes: where, how many, and what a killed process or a full disk leaves."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from yolojax import compilation_cache
from yolojax.compilation_cache import INDEX, cache_folder, cache_limit, tidy
from yolojax.errors import ConfigError

PROGRAM = """
import sys, warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp
from yolojax import compilation_cache
compilation_cache.SHORTEST_COMPILATION = 0.0
folder = compilation_cache.keep_programs()
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))))
print(folder, events.count("cache_hits"), events.count("cache_misses"))
"""


def run(cache: Path, **environment: str) -> tuple[str, int, int]:
    """The folder, hits and misses of a new process that compiles."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "YOLOJAX_"))}
    variables |= {"YOLOJAX_COMPILATION_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    ended = subprocess.run([sys.executable, "-c", PROGRAM], env=variables, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and not ended.stderr, ended.stderr
    folder, hits, misses = ended.stdout.split()
    return folder, int(hits), int(misses)


@pytest.mark.slow  # four processes
def test_a_second_process_compiles_nothing_and_a_truncated_entry_is_compiled_anew_once(tmp_path):
    folder, hits, misses = run(tmp_path / "cache")
    assert hits == 0 and misses > 0
    assert run(tmp_path / "cache") == (folder, misses, 0)
    entries = sorted(Path(folder).glob("*-cache"))
    assert len(entries) == misses and os.stat(folder).st_mode & 0o077 == 0
    entries[0].write_bytes(entries[0].read_bytes()[:-20])  # checked before, and shorter now
    (Path(folder) / INDEX).write_text("damaged, too")
    assert run(tmp_path / "cache") == (folder, misses - 1, 1)
    assert run(tmp_path / "cache") == (folder, misses, 0)


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    folder, hits, misses = run(tmp_path / "file")
    assert (folder, hits, misses) == ("None", 0, 0)


def entry(folder: Path, name: str, size: int, used: float) -> Path:
    """An entry whose content decompresses, of about ``size`` bytes, last used at ``used``."""
    path = folder / f"{name}-cache"
    path.write_bytes(zlib.compress(os.urandom(size), 0))
    os.utime(path, (used, used))
    return path


def test_the_entries_not_used_for_longest_go_first(tmp_path):
    paths = [entry(tmp_path, name, 1000, used) for name, used in (("b", 30.0), ("a", 10.0), ("c", 20.0))]
    (tmp_path / "other.txt").write_text("not an entry")
    tidy(tmp_path, 10**6)
    assert all(path.exists() for path in paths)
    assert json.loads((tmp_path / INDEX).read_text()) == {path.name: path.stat().st_size for path in paths}
    tidy(tmp_path, 2500)
    assert [path.exists() for path in paths] == [True, False, True]
    tidy(tmp_path, 1)
    assert not any(path.exists() for path in paths) and (tmp_path / "other.txt").exists()


@pytest.mark.parametrize("content", [b"", b"\x78\x9c", b"no compressed data", zlib.compress(b"x" * 5000)[:-1]])
def test_what_is_not_whole_is_removed(tmp_path, content):
    whole = entry(tmp_path, "whole", 100, 1.0)
    (tmp_path / "part-cache").write_bytes(content)
    tidy(tmp_path, 10**6)
    assert whole.exists() and not (tmp_path / "part-cache").exists()


def test_an_entry_is_read_once_and_again_when_its_size_changes(tmp_path, monkeypatch):
    path = entry(tmp_path, "a", 100, 1.0)
    tidy(tmp_path, 10**6)
    read = []
    monkeypatch.setattr(compilation_cache, "_is_whole", lambda path: bool(read.append(path)))
    tidy(tmp_path, 10**6)
    assert not read and path.exists()
    path.write_bytes(path.read_bytes()[:-1])
    tidy(tmp_path, 10**6)
    assert read == [path] and not path.exists()


def test_the_folder_by_variable_and_by_platform(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for off in ("off", "0", "None"):
        assert cache_folder({"YOLOJAX_COMPILATION_CACHE": off}) is None
    given = cache_folder({"YOLOJAX_COMPILATION_CACHE": str(tmp_path / "mine"), "XDG_CACHE_HOME": "/xdg"})
    assert given is not None and given.parent == tmp_path / "mine"
    with pytest.raises(ConfigError, match=r"YOLOJAX_COMPILATION_CACHE=here: give an absolute path, or off"):
        cache_folder({"YOLOJAX_COMPILATION_CACHE": "here"})

    def parent(platform: str, environment: dict[str, str]) -> Path:
        monkeypatch.setattr("yolojax.paths.sys.platform", platform)
        folder = cache_folder(environment)
        assert folder is not None
        return folder.parent

    assert parent("linux", {}) == tmp_path / ".cache" / "yolojax"
    assert parent("linux", {"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/yolojax")
    assert parent("linux", {"XDG_CACHE_HOME": "not/absolute"}) == tmp_path / ".cache" / "yolojax"
    assert parent("darwin", {}) == tmp_path / "Library" / "Caches" / "yolojax"
    assert parent("win32", {"LOCALAPPDATA": "/local"}) == Path("/local/yolojax/Cache")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder({}) is None


def test_the_limit():
    assert cache_limit({}) == 10**9 and cache_limit({"YOLOJAX_COMPILATION_CACHE_MB": "20"}) == 20 * 10**6
    for wrong in ("0", "-1", "1.5", "2G", "many"):
        with pytest.raises(ConfigError, match=rf"_MB={wrong}: give a whole number of megabytes"):
            cache_limit({"YOLOJAX_COMPILATION_CACHE_MB": wrong})
