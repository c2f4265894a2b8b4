"""What happens to commands from outside: interrupts, readers that go away, full disks, numbers beyond all bounds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from yolojax.cli import main
from yolojax.config import TrainConfig, to_json
from yolojax.errors import ConfigError
from yolojax.inference.loading import with_input_size
from yolojax.training.run_directory import hold_run
from yolojax.zoo import build

ROOT = Path(__file__).resolve().parents[2]
SWALLOWING = """
import os, signal, sys
from yolojax import __main__ as entry
signal.signal(signal.SIGINT, entry._interrupt)
sys.path.insert(0, {folder!r})
try:
    import interrupted
except BaseException:
    pass
print("went on")
"""


def start(*arguments: str, **streams: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, text=True, **streams)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_an_interrupt_while_modules_are_imported_cannot_be_swallowed(tmp_path):
    (tmp_path / "interrupted.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    process = start("-c", SWALLOWING.format(folder=str(tmp_path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "yolojax: interrupted\n")


def test_an_interrupt_that_is_swallowed_later_still_gives_130(tmp_path):
    """A callback of a library may swallow the exception; the command then runs to its end."""
    program = (
        "import os, signal, sys, yolojax.cli\n"
        "from yolojax import __main__ as entry\n"
        "def main():\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT)\n    except KeyboardInterrupt:\n        pass\n"
        "    return 0\n"
        "yolojax.cli.main = main\nsys.exit(entry.run())\n"
    )
    process = start("-c", program, stderr=subprocess.PIPE)
    assert process.communicate(timeout=60)[1] == "yolojax: interrupted\n" and process.returncode == 130


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_an_interrupt_in_the_first_second_is_one_line(command, tmp_path):
    (tmp_path / "t.json").write_text('{"images": [], "annotations": [], "categories": []}')
    (tmp_path / "d.json").write_text("[]")
    rest = ["t.json", "d.json"] if command == "eval" else [".", "--model", "nowhere"]
    program = ("import sys, yolojax.__main__ as m, signal\nprint('ready', flush=True)\nsys.exit(m.run())",)
    process = subprocess.Popen(
        [sys.executable, "-c", *program, command, *rest],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "yolojax: interrupted\n"


@pytest.mark.parametrize("arguments", [("train", "--help"), ("--version",), ("--help",)])
def test_help_for_a_reader_that_goes_away_ends_quietly(arguments):
    process = start("-m", "yolojax", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_is_closed_is_done_without(closed, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, closed, None)
    assert main(["data", "tile", "shapes:?count=1&size=64", "--tile", "32", "--out", str(tmp_path / "tiles")]) == 0
    getattr(sys, closed).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("arguments", [("train", "--help"), ("--version",)])
def test_a_full_standard_output_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        process = start("-m", "yolojax", *arguments, stdout=full, stderr=subprocess.PIPE)
        err = process.communicate(timeout=60)[1]
    assert process.returncode == 2 and err.count("\n") == 1 and "standard output or a file: No space left" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "shapes", "--size", "32000000000"], "at most 16,384"),
        (["train", "shapes", "--epochs", "9" * 21], "at most 1,000,000"),
        (["train", "shapes", "--batch-size", "100000000000000"], "at most 65,536"),
        (["train", "shapes:?count=8&size=64", "--option", "widths=[1e400,1,1,1]"], "widths"),
        (["train", "shapes:?count=8&size=64", "--option", "widths=" + "[" * 60_000], "widths"),
        (["train", "shapes:?count=999999999999"], "at most 1,000,000 images"),
        (["train", "shapes:?seed=" + "9" * 400], "below 2^63"),
        (["bench", "train", "--batch", "100000000000"], "at most 65,536"),
        (["bench", "train", "--seconds", "1e300"], "at most 86,400"),
        (["data", "check", "shapes:?count=999999999999"], "at most 1,000,000 images"),
        (["anchors", "shapes", "--evolve", "9" * 30], "--evolve"),
    ],
)
def test_every_number_has_an_upper_bound(arguments, said, yolojax):
    ended = yolojax(*arguments)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1 and len(ended.err) < 1000


@pytest.mark.parametrize("size", [3_200_000_000, (32, 3_200_000_000), 10**400])
def test_an_input_size_beyond_all_bounds_is_refused(size):
    with pytest.raises(ConfigError, match="at most 16,384 pixels"):
        with_input_size(build("compact", ("a",), (64, 64)), size)


def test_a_run_directory_is_held_by_one_process(tmp_path):
    (tmp_path / "config.json").write_text(to_json(TrainConfig()))
    with hold_run(tmp_path):
        with pytest.raises(ConfigError, match="is being trained in by another process"), hold_run(tmp_path):
            pass
        with hold_run(tmp_path, writes=False):  # the other processes of the same job
            pass
    with hold_run(tmp_path):  # released
        pass
    with hold_run(tmp_path / "none"):  # that there is no run is said elsewhere
        pass


@pytest.mark.parametrize(
    ("arguments", "after"), [(["data", "check", ""], "check"), (["train", "shapes", "--out", ""], "--out")]
)
def test_an_empty_argument_is_no_folder(arguments, after, yolojax):
    """As a path it would be the folder in which the command was started."""
    ended = yolojax(*arguments)
    assert ended.code == 2 and f"the argument after {after} is empty" in ended.err and ended.err.count("\n") == 1
