"""The parts of a run one by one: the steps of an epoch, its end, saving, restoring, stopping and shortening."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from tests.training.own_detectors import tuple_detector
from tests.training.test_own_detector import CONFIG, DATA
from yolojax.config import DataConfig
from yolojax.data import DeviceCache
from yolojax.errors import ConfigError, DataError, NonFiniteError, Terminated
from yolojax.progress import Quiet
from yolojax.training import budget
from yolojax.training.checkpoint import complete_checkpoints
from yolojax.training.fit import fit, open_trainer
from yolojax.training.preparation import prepare

pytestmark = pytest.mark.usefixtures("blank_plots", "compiled_once")


@pytest.fixture
def make(tmp_path):
    """Makes a trainer of 4 epochs of 2 steps each."""

    def make(callbacks=(), *, resume=False, compiled=0.0, name="run", reporter=None, **settings):
        config = dataclasses.replace(CONFIG, **settings)
        run = prepare(config, Quiet(), data=DATA, detector=tuple_detector())
        run.step.seconds += compiled
        return open_trainer(
            run,
            tmp_path / name,
            {"data": {}},
            None,
            resume=resume,
            callbacks=callbacks,
            reporter=reporter or Quiet(),
            started=0.0,
        )

    return make


def run_epoch(trainer, epoch):
    for done in trainer.steps(epoch):
        trainer.record(done)
    trainer.stop_if_asked()
    trainer.end_epoch(epoch)


def test_the_host_is_one_step_ahead_of_the_report_it_reads(make):
    with make() as trainer:
        seen = [(done.step, trainer.step) for done in trainer.steps(2)]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)] and not trainer.pending


def test_the_end_of_an_epoch_logs_measures_and_saves(make):
    with make(validate_every=2, checkpoint_every=2) as trainer:
        run_epoch(trainer, 1)
        assert trainer.evaluation is None and not complete_checkpoints(trainer.directory.folder / "checkpoints")
        run_epoch(trainer, 2)
        assert trainer.evaluation[0] == 4 and trainer.run_state.log.steps == 0
    rows = [json.loads(line) for line in (trainer.directory.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"], "val/AP" in row) for row in rows] == [(1, 2, False), (2, 4, True)]
    assert [p.name for p in complete_checkpoints(trainer.directory.folder / "checkpoints")] == ["00000004"]


def test_what_is_saved_is_restored(make):
    with make() as trainer:
        for done in trainer.steps(1):
            trainer.record(done)
        trainer.save()
    again = make(resume=True)
    assert (again.step, again.run_state.log.steps) == (2, 2)
    assert again.run_state.to_dict() | {"spent_seconds": 0} == trainer.run_state.to_dict() | {"spent_seconds": 0}
    jax.tree.map(np.testing.assert_array_equal, again.state, trainer.state)
    assert next(again.epochs()) == 1  # its end was not logged yet
    with again:
        run_epoch(again, 1)
    assert again.directory.last_row["step"] == 2 and next(again.epochs()) == 2


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_ends_the_steps_and_saves(make, number, error):
    with pytest.raises(error), make() as trainer:
        for done in trainer.steps(2):
            trainer.record(done)
            if done.step == 0:
                signal.raise_signal(number)
        trainer.stop_if_asked()
    (place,) = complete_checkpoints(trainer.directory.folder / "checkpoints")
    assert int(place.name) == trainer.step == 2 and make(resume=True).run_state.log.steps == 2


def test_a_signal_while_the_last_epoch_ends_is_not_lost(make):
    """The checkpoint of the end is written; what is resumed from it is complete."""

    def ask(event):
        if event.kind == "epoch" and event.step == event.total_steps:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Terminated), make(callbacks=[ask]) as trainer:
        for epoch in trainer.epochs():
            run_epoch(trainer, epoch)
    assert trainer.step == trainer.total_steps == 8
    with make(resume=True) as again:
        assert list(again.epochs()) == []
    assert again.finish()[1] is not None


class FakeTime:
    """A clock that only steps move: one second each."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(budget.time, "monotonic", clock.monotonic)
    return clock


def test_a_budget_shortens_the_run_and_its_schedule(make, clock):
    """At one second a step 3 of 5 seconds are left after the two of the first epoch: the run ends at step 5.

    Seven more seconds were spent on compilations before the first step, as with an automatic batch size. They belong to
    the budget, but not to the pace.
    """
    heard = []

    class Heard(Quiet):
        def say(self, line):
            heard.append(line)

    with make(minutes=(5 + 7) / 60, compiled=7.0, reporter=Heard()) as trainer:
        trainer.run_state.validation_seconds = 0.0
        start = trainer.start_step

        def start_step():
            start()
            clock.now += 1.0

        trainer.start_step = start_step
        for epoch in trainer.epochs():
            run_epoch(trainer, epoch)
    assert trainer.step == trainer.total_steps == int(trainer.state.total_steps) == 5
    rates = [row["learning_rate"] for row in trainer.directory.rows]
    top, final = CONFIG.optimiser.learning_rate, CONFIG.optimiser.final_fraction

    def rate(step, total):
        return top * (final + (1 - final) * (1 + np.cos(np.pi * step / total)) / 2)

    # The last step of the first epoch was taken with the schedule of 8 steps, the others with that of 5.
    np.testing.assert_allclose(rates, [rate(1, 8), rate(3, 5), rate(4, 5)], rtol=1e-5)
    assert [line.split(":")[0] for line in heard if line.startswith("epoch")] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]


@pytest.mark.parametrize("seconds", [None, 3.0])
def test_a_budget_keeps_time_for_the_measurement_at_its_end(make, clock, seconds):
    """Of 9 seconds 2 are spent, and 3 are kept if that is what measuring took, also before the run was resumed.

    Before the first measurement as much is kept as training on as many images would take.
    """
    with make(minutes=9 / 60, validate_every=0) as trainer:
        trainer.run_state.validation_seconds = seconds
        for _ in range(2):
            trainer.start_step()
            clock.now += 1.0
        trainer.save()
        trainer.shorten()
        expected = len(DATA[1]) / trainer.run.batch_size if seconds is None else seconds
        assert trainer.total_steps == min(8, 2 + int(9 - 2 - expected))
    assert make(resume=True, minutes=9 / 60, validate_every=0).run_state.validation_seconds == seconds


def test_a_detector_that_cannot_detect_is_found_before_anything_is_written(tmp_path):
    def decode(outputs):
        raise TypeError("no boxes here")

    broken = tuple_detector()._replace(decode=decode)
    with pytest.raises(
        ConfigError, match="tuples cannot detect: TypeError: no boxes here; mend its forward or its decode"
    ):
        fit(CONFIG, tmp_path / "run", data=DATA, detector=broken)
    assert list(tmp_path.iterdir()) == []


def test_every_event_has_the_state_of_its_step(tmp_path):
    steps = {"start": [], "step": [], "epoch": [], "end": []}

    def watch(event):
        assert int(event.state.step) == event.step
        steps[event.kind].append(event.step)

    fit(CONFIG, tmp_path / "run", data=DATA[0], detector=tuple_detector(), callbacks=[watch])
    assert steps == {"start": [0], "step": list(range(1, 9)), "epoch": [2, 4, 6, 8], "end": [8]}


def test_an_error_after_a_step_leaves_a_checkpoint_and_the_run_goes_on_from_it(tmp_path):
    """Of an epoch that was logged already no second row is written."""
    config = dataclasses.replace(CONFIG, checkpoint_every=0)
    whole = fit(config, tmp_path / "whole", data=DATA, detector=tuple_detector())

    def fail(event):
        if event.kind == "epoch" and event.step == 4:
            raise RuntimeError("the disk of the logger is full")

    with pytest.raises(RuntimeError, match="logger"):
        fit(config, tmp_path / "run", data=DATA, detector=tuple_detector(), callbacks=[fail])
    assert [p.name for p in complete_checkpoints(tmp_path / "run" / "checkpoints")] == ["00000004"]
    again = fit(config, tmp_path / "run", data=DATA, detector=tuple_detector(), resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.variables, whole.variables)
    rows = [json.loads(line) for line in (again.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_leaves_none(tmp_path):
    """A resumed run could only end at the same step again."""
    config = dataclasses.replace(CONFIG, hyper={"lambda_coord": 1e38}, checkpoint_every=0)
    with pytest.raises(NonFiniteError):
        fit(config, tmp_path / "run", data=DATA[0], detector=tuple_detector())
    assert not complete_checkpoints(tmp_path / "run" / "checkpoints")


def test_ground_truth_that_cannot_be_measured_is_refused_before_the_first_step(tmp_path):
    train, val = DATA
    record = val.records[0]
    boxes = np.array(record.boxes)
    boxes[0, 2] = np.inf
    broken = dataclasses.replace(val, records=(dataclasses.replace(record, boxes=boxes), *val.records[1:]))
    with pytest.raises(DataError, match="annotation row 0"):
        fit(CONFIG, tmp_path / "run", data=(train, broken), detector=tuple_detector())
    assert not (tmp_path / "run").exists()


def test_images_in_device_memory_train_and_validate_on_all_devices(tmp_path):
    """Also where their number is no multiple of the devices; the numbers are those of a cache in memory."""
    assert len(jax.devices()) == 2
    train, val = DATA[0].take(range(15)), DATA[1].take(range(3))
    runs = {}
    for cache in ("memory", "device"):
        seen = []
        runs[cache] = fit(
            dataclasses.replace(CONFIG, data=DataConfig(cache=cache), epochs=1),
            tmp_path / cache,
            data=(train, val),
            detector=tuple_detector(),
            callbacks=[lambda event, seen=seen: seen.append(event.run.images) if event.kind == "start" else None],
        )
        assert isinstance(seen[0], DeviceCache) == (cache == "device")
    jax.tree.map(np.testing.assert_array_equal, runs["memory"].variables, runs["device"].variables)
    assert runs["memory"].result.AP == runs["device"].result.AP


def test_a_callback_that_fails_at_the_start_leaves_the_signals_as_they_were(make):
    before = signal.getsignal(signal.SIGTERM)

    def fail(event):
        raise RuntimeError(event.kind)

    with pytest.raises(RuntimeError, match="start"), make([fail]):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_validation_images_are_kept_where_the_configuration_says(make):
    trainer = make(data=DataConfig(cache="stream"))
    assert type(trainer.val_images).__name__ == type(trainer.run.images).__name__ == "ImageStream"


def test_paths_may_be_paths_and_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = fit(dataclasses.replace(CONFIG, epochs=1), "~/run", data=DATA[0], detector=tuple_detector())
    assert run.folder == tmp_path / "run" and (tmp_path / "run" / "config.json").is_file()
    config = dataclasses.replace(CONFIG, epochs=1, init=tmp_path / "run" / "best" / "weights.safetensors")
    again = fit(config, tmp_path / "second", data=DATA[0], detector=tuple_detector())
    assert json.loads((again.folder / "config.json").read_text())["init"] == str(config.init)
    written = dataclasses.replace(CONFIG, data=DataConfig(path=tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        fit(written, tmp_path / "third")
