"""The command ``yolojax``: arguments are read before any work is imported, so that ``--help`` answers at once.

Results go to standard output, progress and remarks to standard error. Exit codes: 0 done; 2 something is wrong with
what was given, said in one line; 130 interrupted; 141 nobody reads the output any more; 143 ended by SIGTERM. A
training run that is interrupted or ended saves a checkpoint first. Anything else is a defect of the program and keeps
its traceback.
"""

import contextlib
import difflib
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Union, get_args

import tyro
from tyro.conf import subcommand

from yolojax import __version__
from yolojax.cli.anchors import Anchors
from yolojax.cli.bench import Bench
from yolojax.cli.data import Data
from yolojax.cli.diagnose import Diagnose
from yolojax.cli.doctor import Doctor
from yolojax.cli.evaluate import Eval, Val
from yolojax.cli.export import Export
from yolojax.cli.info import Info
from yolojax.cli.mistyped import in_one_line
from yolojax.cli.models import Models
from yolojax.cli.plan import Plan
from yolojax.cli.predict import Predict
from yolojax.cli.provenance import remember
from yolojax.cli.train import Demo, Train
from yolojax.errors import ConfigError, Terminated, YolojaxError

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143
"""128 plus the number of the signal, as a shell counts."""

_MEMORY = "not enough memory; give smaller images, a smaller size or batch, or fewer detections"

Command = Union[  # noqa: UP007 (its members are annotations)
    Annotated[Demo, subcommand("demo")],
    Annotated[Train, subcommand("train")],
    Annotated[Val, subcommand("val")],
    Annotated[Predict, subcommand("predict")],
    Annotated[Eval, subcommand("eval")],
    Annotated[Diagnose, subcommand("diagnose")],
    Annotated[Data, subcommand("data")],
    Annotated[Anchors, subcommand("anchors")],
    Annotated[Info, subcommand("info")],
    Annotated[Export, subcommand("export")],
    Annotated[Models, subcommand("models")],
    Annotated[Doctor, subcommand("doctor")],
    Annotated[Bench, subcommand("bench")],
    Annotated[Plan, subcommand("plan")],
]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line (``sys.argv`` unless given) and return its exit code; wrong arguments exit with 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in ("stdout", "stderr"):  # whoever started the command may have closed either
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as the program runs)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _run(arguments)
        _flush()
    except SystemExit:  # help, or wrong arguments
        _flush_or_close()
        raise
    except YolojaxError as error:
        _say(f"error: {' '.join(str(error).split())}")
        code = 2
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        _say("; ".join(["ended by SIGTERM" if terminated else "interrupted", *map(str, stop.args)]))
        code = TERMINATED if terminated else INTERRUPTED
    except BrokenPipeError:
        code = BROKEN_PIPE
    except MemoryError:
        _say(f"error: {_MEMORY}")
        code = 2
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):  # what XLA says when a device has no memory left
            raise
        _say(f"error: {_MEMORY}")
        code = 2
    except OSError as error:  # no space, no permission, no such file: the place is wrong, not the program
        place = error.filename or "standard output or a file"  # what fails on writing has no name
        _say(f"error: {place}: {error.strerror or error}; give another path or free space")
        code = 2
    _flush_or_close()
    return code


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        print(f"yolojax {__version__}")
        return 0
    check_command(arguments)
    if "" in arguments:  # as a path it would mean the folder one is in
        before = arguments[: arguments.index("")]
        place = f" after {before[-1]}" if before else ""
        raise ConfigError(f"the argument{place} is empty; give a value, or leave it out (was a variable not set?)")
    command = parse(arguments or ["--help"])
    remember(arguments)
    # What orbax logs, tracebacks included, reaches the user as the error that is raised from it.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    return command.run()


def _flush() -> None:
    getattr(sys.stdout, "flush", int)()  # None where it was closed by whoever started the command


def _flush_or_close() -> None:
    """Flushes both streams. One that nobody reads, or that has no room, is closed.

    Python flushes them once more on its way out; that must not fail either.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            getattr(stream, "flush", int)()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def check_command(arguments: list[str]) -> None:
    """Raises `ConfigError` where the first argument is nearly the name of a command, and proposes that."""
    names = [metadata.name for member in get_args(Command) for metadata in get_args(member)[1:]]
    if arguments and arguments[0] not in names and (near := difflib.get_close_matches(arguments[0], names, 1)):
        raise ConfigError(f"unknown command {arguments[0]!r}: did you mean {near[0]}?")


def parse(arguments: list[str]) -> Command:
    """The command with its settings; raises `ConfigError`, in one line, when the arguments are wrong."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return _parse(arguments)
    except SystemExit as end:  # with 0 after --help
        if end.code != 2:
            raise
    raise ConfigError(in_one_line(_said(arguments, 2), arguments, _options_of))


def _options_of(command: Sequence[str]) -> list[str]:
    """All options of a command, as its help lists them."""
    return list(dict.fromkeys(re.findall(r"--[a-z][\w.-]*", _said([*command, "--help"], 0))))


def _said(arguments: Sequence[str], code: int) -> str:
    """What the parser prints about arguments with which it exits, on lines without end."""
    said, width = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            _parse(list(arguments))
    except SystemExit as end:
        return said.getvalue() if end.code == code else ""
    finally:
        os.environ.pop("COLUMNS")
        if width is not None:
            os.environ["COLUMNS"] = width
    return ""


def _parse(arguments: list[str]) -> Command:
    return tyro.cli(
        Command,  # pyright: ignore[reportArgumentType]
        prog="yolojax",
        description="YOLO object detection in JAX: train, evaluate and use detectors. To begin: yolojax demo",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"yolojax: {line}", file=sys.stderr)
