"""One small training run by the command itself, and the way in which the tests call the command."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.small_run import DATA, SMALL
from yolojax.cli import main


class Ended(NamedTuple):
    """How a command ended: its exit code and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def load_once() -> Callable[..., object]:
    """`yolojax.load`, compiling once for all tests that ask for the same."""
    from yolojax.inference.predict import load

    return functools.cache(load)


@pytest.fixture
def yolojax(capsys, monkeypatch, tmp_path) -> Callable[..., Ended]:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # how wrong arguments and --help end
            code = int(stop.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of two epochs on eight images: it knows nothing, but is complete."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    schedule = ["--epochs", "2", "--validate-every", "0", "--checkpoint-every", "1"]
    assert main(["train", DATA, "--out", str(folder), *SMALL, *schedule]) == 0
    return folder
