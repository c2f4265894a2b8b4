"""What all commands have in common: help, wrong arguments, errors in one line, exit codes."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from yolojax import __version__
from yolojax.cli import Command, main
from yolojax.cli.assign import Assign
from yolojax.cli.bench import BenchPredict, BenchTrain
from yolojax.cli.data import Check, Convert, Tile
from yolojax.cli.mistyped import in_one_line
from yolojax.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "demo",
    "train",
    "val",
    "predict",
    "eval",
    "diagnose",
    "data",
    "anchors",
    "info",
    "export",
    "models",
    "doctor",
    "bench",
    "plan",
)
NUMBERS = ["--precision", ".8", "--recall", ".7", "--ap50", ".7", "--ap", ".5"]


def test_help_names_every_command(yolojax):
    ended = yolojax("--help")
    assert ended.code == 0 and ended.err == ""
    for name in COMMANDS:
        assert f"• {name} " in ended.out
    assert yolojax().out == ended.out


MEMBERS = {(name,): typing.get_args(c)[0] for c, name in zip(typing.get_args(Command), COMMANDS, strict=True)}
for own in ("data", "bench"):  # they have commands of their own
    del MEMBERS[own,]
MEMBERS |= {("data", "check"): Check, ("data", "assign"): Assign, ("data", "tile"): Tile, ("data", "convert"): Convert}
MEMBERS |= {("bench", "train"): BenchTrain, ("bench", "predict"): BenchPredict}


@pytest.mark.parametrize("command", MEMBERS, ids=" ".join)
def test_every_option_of_every_command_is_explained(command, yolojax):
    """By a text of its own, with a default unless it is required or off until it is given."""
    ended = yolojax(*command, "--help")
    assert ended.code == 0

    def documented(cls: type) -> None:
        for field in dataclasses.fields(cls):
            assert f"  {field.name}: " in (cls.__doc__ or ""), (cls, field.name)  # Python 3.13 strips the indentation
            if dataclasses.is_dataclass(field.default_factory):
                documented(field.default_factory)

    documented(MEMBERS[command])
    options = re.split(r"\n│ (?=--)", ended.out.split("show this help message and exit")[1])[1:]
    for option in options:
        text = " ".join(option.replace("│", " ").split())
        assert len(text.split()) > 3, text
        assert "{None}" not in text, text


def test_version(yolojax):
    assert yolojax("--version") == (0, f"yolojax {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frain"], "train"),
        (["train", "shapes", "--epoch", "3"], "--epochs"),
        (["train", "shapes", "--epochs", "many"], "--epochs"),
        (["predict", "photo.jpg"], "--model"),
        (["train", "shapes", "--compute", "float8"], "bfloat16"),
    ],
)
def test_wrong_arguments_are_explained(arguments, said, yolojax):
    ended = yolojax(*arguments)
    assert ended.code == 2 and ended.out == ""
    assert said in ended.err and "Traceback" not in ended.err


def test_a_misspelt_command_is_one_line_that_proposes_the_near_one(yolojax):
    ended = yolojax("trian", "shapes")
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1
    assert "unknown command 'trian': did you mean train?" in ended.err


def test_an_error_is_one_line_and_code_2(yolojax, monkeypatch):
    def refuse(**_):
        raise DataError("labels.json: line 3\n  is cut off; write the file anew")

    monkeypatch.setattr("yolojax.eval.diagnosis.diagnose", refuse)
    assert yolojax("diagnose", *NUMBERS) == (
        2,
        "",
        "yolojax: error: labels.json: line 3 is cut off; write the file anew\n",
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/data/x"), "/data/x: Permission denied; give another path"),
        (OSError(28, "No space left on device"), "a file: No space left on device; give another path or free space"),
    ],
)
def test_a_file_system_that_refuses_is_one_line_and_code_2(error, said, yolojax, monkeypatch):
    def refuse(**_):
        raise error

    monkeypatch.setattr("yolojax.eval.diagnosis.diagnose", refuse)
    ended = yolojax("diagnose", *NUMBERS)
    assert ended.code == 2 and ended.err.count("\n") == 1 and said in ended.err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")])
def test_too_little_memory_is_one_line_and_code_2(error, yolojax, monkeypatch):
    def refuse(**_):
        raise error

    monkeypatch.setattr("yolojax.eval.diagnosis.diagnose", refuse)
    ended = yolojax("diagnose", *NUMBERS)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "not enough memory; give smaller images" in ended.err


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr("yolojax.eval.diagnosis.diagnose", fail)
    with pytest.raises(ZeroDivisionError):
        main(["diagnose", *NUMBERS])


def test_an_interrupt_is_a_line_and_code_130(yolojax, monkeypatch):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("yolojax.eval.diagnosis.diagnose", interrupt)
    assert yolojax("diagnose", *NUMBERS) == (130, "", "yolojax: interrupted\n")


def start(*arguments: str, **streams: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "yolojax", *arguments], cwd=ROOT, text=True, **streams)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_a_reader_that_goes_away_is_no_error():
    process = start("diagnose", *NUMBERS, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 141


def test_a_name_that_the_terminal_cannot_show_is_replaced():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    arguments = ("diagnose", *NUMBERS, "--class-recall", "caf\xe9=.1", "dog=.9")
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "") and "caf?" in out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell ignores SIGINT for what it starts in the background, and so would everything that the tests start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_process_says_so(tmp_path, interruptible):
    """A pipe that nobody writes to keeps the command waiting until it is interrupted."""
    truth, found = tmp_path / "truth.json", tmp_path / "found.json"
    os.mkfifo(truth)
    found.write_text("[]")
    process = start("eval", str(truth), str(found), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with writer_of(truth, process):
        # A signal that comes between Python's look for one and the system call waits until the call ends, which it
        # does not here: it must find the process waiting.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "yolojax: interrupted\n")


def writer_of(pipe: Path, process: subprocess.Popen) -> typing.IO[str]:
    """The pipe opened for writing as soon as the process reads it; an error if that ends or 2 minutes pass before."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            return os.fdopen(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "w")
        except OSError as error:
            assert error.errno == errno.ENXIO  # nobody reads it yet
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the pipe was never read: {process.communicate()}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train D --batch 0", "yolojax train does not know '--batch': did you mean --batch-size?"),
        ("train D --lr .1", "'--lr': did you mean --optimiser.learning-rate?"),
        ("train D --imgsz=64", "'--imgsz=64': did you mean --size?"),
        ("train d --augment.mosiac 1", "did you mean --augment.mosaic?"),
        ("anchors D --nothing", "yolojax anchors does not know '--nothing': see yolojax anchors --help"),
        ("data stats D", "yolojax data does not know 'stats': give one of check, assign, tile, convert"),
        ("data check a b", "yolojax data check does not know 'b': see yolojax data check --help"),
        ("elephant", "yolojax does not know 'elephant': give one of demo, train, val,"),
        ("predict", "yolojax predict needs --model RUN|FILE ...; see yolojax predict --help"),
        ("eval truth.json", "yolojax eval needs DETECTIONS; see yolojax eval --help"),
        (
            "eval a b --confidence abc",
            "--confidence: could not convert string to float: 'abc'; see yolojax eval --help",
        ),
        ("train D --cache ram", "invalid choice 'ram' for argument '--cache'. Expected one of ('auto', 'device',"),
        ("bench", "Expected one of {train, predict}; see yolojax bench --help"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(arguments, said, yolojax):
    ended = yolojax(*arguments.split())
    assert ended.code == 2 and ended.out == "" and said in ended.err
    assert ended.err.startswith("yolojax: error: ") and ended.err.count("\n") == 1


def test_the_box_of_the_parser_is_read_as_its_plain_form_is():
    box = """╭─ Unrecognized options ──────╮
│ Unrecognized options: -q, 1 │
│ ─────────────────────────── │
│ Arguments similar to -q: ...│
╰─────────────────────────────╯
"""
    plain = (
        " Unrecognized options \n ------------\n  Unrecognized options: -q, 1 \n  ---------\n  Arguments similar: ...\n"
    )
    for said in (box, plain, "\x1b[31m" + box):
        assert in_one_line(said, ["val", "-q", "1"], lambda command: []) == (
            "yolojax val does not know '-q': see yolojax val --help"
        )
