"""Checkpoints: what is read is what was written, or an error that names the file."""

import contextlib
import errno
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolojax.errors import CheckpointError
from yolojax.training.checkpoint import (
    complete_checkpoints,
    restore_newest,
    save_checkpoint,
    verify,
    write_manifest,
)
from yolojax.training.run_state import Best, RunState

ROOT = Path(__file__).resolve().parents[2]


class State(NamedTuple):
    step: jax.Array
    params: dict
    optimiser: tuple


def make_state(step: int, width: int = 8) -> State:
    params = {"neck": {}, "head": {"kernel": jax.random.normal(jax.random.key(step), (3, width))}}
    return State(jnp.int32(step), params, optax.adam(1e-3).init(params))


LIKE = jax.eval_shape(lambda: make_state(0))


def assert_same(restored, state) -> None:
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_round_trip_bit_for_bit(tmp_path):
    facts = {"best_AP": 0.5, "seconds": 12.25}
    place = save_checkpoint(tmp_path, 7, make_state(7), facts)
    assert place.name == "00000007"
    restored, read_facts, passed_over = restore_newest(tmp_path, LIKE)
    assert_same(restored, make_state(7))
    assert read_facts == facts and passed_over == []


def test_only_the_newest_are_kept_and_the_newest_is_read(tmp_path):
    for step in (5, 10, 99, 100):
        save_checkpoint(tmp_path, step, make_state(step), {"step": step}, keep=2)
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["00000099", "00000100"]
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 100}


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, make_state(1), {"step": step})
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 100_000_000}


def test_a_step_can_be_written_again(tmp_path):
    save_checkpoint(tmp_path, 4, make_state(1), {"try": 1})
    save_checkpoint(tmp_path, 4, make_state(2), {"try": 2})
    restored, facts, _ = restore_newest(tmp_path, LIKE)
    assert_same(restored, make_state(2))
    assert facts == {"try": 2}


def test_a_flipped_byte_in_any_file_is_noticed_and_the_previous_checkpoint_used(tmp_path):
    save_checkpoint(tmp_path, 1, make_state(1), {"step": 1})
    newest = save_checkpoint(tmp_path, 2, make_state(2), {"step": 2})
    files = sorted(p for p in newest.rglob("*") if p.is_file() and p.stat().st_size)
    assert len(files) >= 5
    for path in files:
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            # A byte of the manifest that leaves its meaning alone (a space turned to another one) may pass.
            try:
                verify(newest)
            except CheckpointError as error:
                assert path.name in str(error) or path.name == "manifest.json"
            else:
                assert path.name == "manifest.json"
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
        restored, facts, passed_over = restore_newest(tmp_path, LIKE)
        assert_same(restored, make_state(1))
        assert facts == {"step": 1}
        assert len(passed_over) == 1 and "00000002" in passed_over[0]
        path.write_bytes(whole)
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 2}


@pytest.mark.parametrize("change", ["missing", "added", "manifest"])
def test_missing_and_added_files_are_named(tmp_path, change):
    place = save_checkpoint(tmp_path, 1, make_state(1), {})
    if change == "missing":
        (place / "facts.json").unlink()
        match = "facts.json is missing"
    elif change == "added":
        (place / "state" / "stray").write_text("x")
        match = "state/stray is not in the manifest"
    else:
        (place / "manifest.json").write_text("[]")
        match = r"no readable manifest\.json"
    with pytest.raises(CheckpointError, match=match):
        verify(place)
    with pytest.raises(CheckpointError, match=f"no whole checkpoint in .*{match}.*start a new run"):
        restore_newest(tmp_path, LIKE)


def test_where_there_has_never_been_one_there_is_none(tmp_path):
    assert restore_newest(tmp_path / "nowhere", LIKE) is None


@pytest.mark.parametrize(
    ("like", "match"),
    [
        (lambda: make_state(0, width=9), r"head/kernel is 3x8 float32 there and 3x9 float32 here"),
        (
            lambda: make_state(0)._replace(params={"head": {}}),
            r"params/head/kernel is 3x8 float32 there and absent here",
        ),
        (lambda: make_state(0)._replace(step=jnp.float32(0)), r"step is  int32 there and  float32 here"),
    ],
)
def test_another_configuration_is_refused_by_the_name_of_the_array(tmp_path, like, match):
    save_checkpoint(tmp_path, 1, make_state(1), {})
    with pytest.raises(CheckpointError, match=match):
        restore_newest(tmp_path, jax.eval_shape(like))


def test_what_a_killed_save_left_is_ignored_and_removed(tmp_path):
    save_checkpoint(tmp_path, 1, make_state(1), {"step": 1})
    for name in ("tmp-00000002", "notes"):  # half written, and not ours
        (tmp_path / name).mkdir()
        (tmp_path / name / "facts.json").write_text("{}")
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 1}
    save_checkpoint(tmp_path, 3, make_state(3), {"step": 3})
    assert not (tmp_path / "tmp-00000002").exists() and (tmp_path / "notes").exists()
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 3}


def test_a_checkpoint_without_its_manifest_is_passed_over_aloud(tmp_path):
    """It appears by one rename and goes by one, so this is damage, not a leftover."""
    save_checkpoint(tmp_path, 1, make_state(1), {"step": 1})
    (save_checkpoint(tmp_path, 2, make_state(2), {"step": 2}) / "manifest.json").unlink()
    _, facts, passed_over = restore_newest(tmp_path, LIKE)
    assert facts == {"step": 1} and len(passed_over) == 1 and "no readable manifest.json" in passed_over[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda place: (place / "arrays.json").unlink(),
        lambda place: (place / "facts.json").unlink(),
        lambda place: (place / "facts.json").write_text("[1]"),
        lambda place: (place / "facts.json").write_text("[" * 100_000),
        lambda place: (place / "facts.json").write_bytes(b"\xff{}"),
        lambda place: (place / "arrays.json").write_text('{"step": [[1e400], 7]}'),
        lambda place: (place / "arrays.json").write_text('{"step": [[], "int32"]}'),  # of another network
        lambda place: shutil.rmtree(place / "state"),
        lambda place: [p.write_bytes(b"{}") for p in (place / "state").rglob("*") if p.is_file()],
        lambda place: shutil.move(place / "state", place / "nested" / "state"),
    ],
)
def test_foreign_content_under_a_manifest_that_agrees_is_passed_over(tmp_path, change):
    """And the checkpoint before it is read."""
    save_checkpoint(tmp_path, 1, make_state(1), {"step": 1})
    newest = save_checkpoint(tmp_path, 2, make_state(2), {"step": 2})
    (newest / "nested").mkdir()
    change(newest)
    write_manifest(newest)
    restored, facts, passed_over = restore_newest(tmp_path, LIKE)
    assert_same(restored, make_state(1))
    assert facts == {"step": 1} and len(passed_over) == 1 and str(newest) in passed_over[0]
    assert len(passed_over[0]) < 1000


def test_facts_that_a_run_cannot_use_are_passed_over(tmp_path):
    whole = RunState("a", None, {"ema": Best(0.5, 1, 1)}).to_dict()
    save_checkpoint(tmp_path, 1, make_state(1), whole)
    for step, facts in enumerate(({"best": []}, {**whole, "environment": 3}, {**whole, "train_seconds": "x"}), 2):
        save_checkpoint(tmp_path, step, make_state(step), facts, keep=9)
    _, facts, passed_over = restore_newest(tmp_path, LIKE, check_facts=RunState.from_dict)
    assert facts == whole and [line.count("another version of yolojax") for line in passed_over] == [1, 1, 1]


def test_arrays_that_lay_on_several_devices_are_restored_onto_one(tmp_path):
    """Whatever number of devices goes on with them."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    save_checkpoint(tmp_path, 1, jax.device_put(make_state(1), everywhere), {})
    restored, _, _ = restore_newest(tmp_path, LIKE)
    assert_same(restored, make_state(1))
    assert {len(x.devices()) for x in jax.tree.leaves(restored)} == {1}


class Interrupted(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), Interrupted()])
def test_a_save_that_fails_at_any_file_operation_loses_nothing(tmp_path, fault):
    """Every opening, renaming, making and removing of a file by our own code fails in turn, the disk being full or the
    process killed there; the same step is written again, which replaces a checkpoint. What orbax does below ``state``
    is left out: its threads wait minutes for one that failed. The next test and the killed runs hit those."""
    save_checkpoint(tmp_path, 1, make_state(1), {"try": 0})
    save_checkpoint(tmp_path, 2, make_state(2), {"try": 0})
    failing_at, outcomes = 0, set()
    while True:
        failing_at += 1
        with failing_operation(tmp_path, failing_at, fault) as happened:
            try:
                save_checkpoint(tmp_path, 2, make_state(2), {"try": failing_at})
            except (CheckpointError, Interrupted) as error:
                assert isinstance(error, Interrupted) or "free space" in str(error)
        found = restore_newest(tmp_path, LIKE)
        assert found is not None
        restored, facts, passed_over = found
        assert_same(restored, make_state(2))
        assert passed_over == []
        outcomes.add(facts["try"] == failing_at)
        if not happened:
            break
    assert failing_at > 8 and outcomes == {True, False}


@contextlib.contextmanager
def failing_operation(folder: Path, at: int, fault: BaseException):
    """Raises at the ``at``-th change below ``folder`` that Python announces; the list tells whether it came to that."""
    seen, happened = [], []

    def watch(event: str, arguments: tuple) -> None:
        if watching and event in ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove"):
            name = arguments[0] if isinstance(arguments[0], str | Path) else ""
            reads = event == "open" and not (isinstance(arguments[1], str) and arguments[1][:1] in "wxa")
            if not reads and str(name).startswith(str(folder)) and "/state" not in str(name):
                seen.append(event)
                if len(seen) == at:
                    happened.append(event)
                    raise fault

    watching = True
    sys.addaudithook(watch)  # it cannot be taken away again, only silenced
    try:
        yield happened
    finally:
        watching = False


def test_going_on_from_an_earlier_checkpoint_removes_the_later_ones(tmp_path):
    """A damaged checkpoint must not outlive the good one that replaces it, however few are kept."""
    for step in (10, 20):
        save_checkpoint(tmp_path, step, make_state(step), {"step": step}, keep=2)
    (tmp_path / "00000020" / "facts.json").write_text("{")
    assert restore_newest(tmp_path, LIKE)[1] == {"step": 10}
    save_checkpoint(tmp_path, 15, make_state(15), {"step": 15}, keep=1)
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["00000015"]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .*file.*another --out"):
        save_checkpoint(tmp_path / "file" / "checkpoints", 1, make_state(1), {})


def test_a_full_disk_is_an_error_and_leaves_the_earlier_checkpoint(tmp_path):
    """A limit on the size of files stands for the disk; it needs a process of its own."""
    program = """
import resource, sys
from pathlib import Path
import jax.numpy as jnp
from yolojax.errors import CheckpointError
from yolojax.training.checkpoint import restore_newest, save_checkpoint
folder, state = Path(sys.argv[1]), {"a": jnp.arange(100_000.0)}
save_checkpoint(folder, 1, state, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(folder, 2, state, {"step": 2})
except CheckpointError as error:
    assert "free space" in str(error), error
    print(sorted(p.name for p in folder.iterdir()), restore_newest(folder, state)[1])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.stdout.strip() == "['00000001'] {'step': 1}", ended.stderr


def test_what_the_store_reports_after_a_failed_read_is_not_printed(tmp_path, caplog):
    state = make_state(1)
    save_checkpoint(tmp_path, 1, state, {})
    (tmp_path / "00000001" / "state" / "manifest.ocdbt").write_bytes(b"damaged")
    write_manifest(tmp_path / "00000001")
    with pytest.raises(CheckpointError, match="its arrays cannot be read"):
        restore_newest(tmp_path, state)
    late = "Task exception was never retrieved\nfuture: <Task finished coro=<async_deserialize() at {}>"
    for place in ("/site-packages/orbax/checkpoint/serialization.py", "/home/somebody/own.py"):
        logging.getLogger("asyncio").error(late.format(place))
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == [
        late.format("/home/somebody/own.py")
    ]
