"""A sweep's runs are the runs that would be made one by one, whatever strategy trains them."""

import jax
import numpy as np
import pytest

from yolojax.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from yolojax.data import sample_indices
from yolojax.errors import ConfigError
from yolojax.training import sweep as module
from yolojax.training.fit import make_hyper
from yolojax.training.state import make_state
from yolojax.training.sweep import GroupRunner, Trial, grid, step_maker, sweep

TINY = {"widths": [8, 8, 16, 16], "depths": [0, 0, 1, 1], "head_width": 16}
TRIALS = [Trial(0), Trial(1, {"lambda_cls": 2.0}), Trial(0, {"learning_rate": 5e-4, "weight_decay": 0.0})]
STEPS = 10


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from yolojax.data import shapes_dataset, write_yolo

    folder = tmp_path_factory.mktemp("set")
    write_yolo(
        {"train": shapes_dataset(20, size=(48, 48)), "val": shapes_dataset(6, size=(48, 48), split="val")}, folder
    )
    return TrainConfig(
        data=DataConfig(path=str(folder)),
        model=ModelConfig(name="compact", size=64, options=TINY),
        augment=AugmentConfig(mixup=0.5, mosaic_off=0.4),
        epochs=2,
        batch_size=4,
    )


@pytest.fixture(scope="module")
def found(config):
    return {s: sweep(config, TRIALS, strategy=s, measure=s == "unroll") for s in ("vmap", "unroll", "devices")}


@pytest.fixture(scope="module")
def separate(config, found):
    """Each trial alone, by the training step itself, one step after the other."""
    from dataclasses import replace

    from yolojax.training.inputs import lay_out_images
    from yolojax.training.progress import Quiet
    from yolojax.training.splits import open_splits

    detector = found["unroll"].detector
    images = lay_out_images(open_splits(config.data)[0], detector.spec, Quiet(), room=2)
    losses, averages = [], []
    step = jax.jit(lambda key, state, batch, hyper: step_maker(config, detector, STEPS)(key)(state, batch, hyper))
    for trial in TRIALS:
        key = jax.random.key(trial.seed)
        hyper = make_hyper(replace(config, hyper=dict(trial.hyper)), detector)
        state = make_state(detector, config.optimiser, STEPS, jax.random.fold_in(key, 0))
        own = []
        for t in range(STEPS):
            batch = images.batch(sample_indices(trial.seed, t, config.batch_size, len(images)))
            state, report = step(jax.random.fold_in(key, 1), state, batch, hyper)
            own.append(float(report.loss))
        losses.append(own)
        averages.append(state.ema)
    return np.array(losses), averages


@pytest.mark.parametrize("strategy", ["vmap", "unroll", "devices"])
def test_losses_are_those_of_separate_runs(strategy, found, separate):
    result = found[strategy]
    assert result.losses.shape == (3, STEPS) and result.strategy == strategy
    np.testing.assert_allclose(result.losses, separate[0], rtol=1e-4)
    for ours, theirs in zip(result.variables, separate[1], strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-4), ours, theirs)
    assert len({tuple(row) for row in result.losses.tolist()}) == 3  # the trials do differ


def test_runs_are_measured(found):
    results = found["unroll"].results
    assert all(result is not None and result.AP is not None and 0 <= result.AP <= 1 for result in results)
    values = [result.AP for result in results]
    assert found["unroll"].best("AP") == int(np.argmax(values))
    assert set(found["unroll"].seconds) == {"compile", "train", "validate", "per_run"}
    with pytest.raises(ConfigError, match="measured"):
        found["vmap"].best()


def test_a_grid_is_every_combination():
    trials = grid(seed=range(2), lambda_cls=[0.5, 1.0])
    assert [(t.seed, t.hyper["lambda_cls"]) for t in trials] == [(0, 0.5), (1, 0.5), (0, 1.0), (1, 1.0)]
    assert str(trials[1]) == "seed 1, lambda_cls 0.5"


def test_wrong_sweeps_are_refused(config):
    with pytest.raises(ConfigError, match="at least one trial"):
        sweep(config, [])
    with pytest.raises(ConfigError, match="unknown hyper-parameter"):
        sweep(config, [Trial(hyper={"lambda_class": 1.0})])
    with pytest.raises(ConfigError, match="width"):
        sweep(config, [Trial()], strategy="vmap", width=0)


def test_one_program_trains_all_groups(config, found, monkeypatch):
    compiled = []

    class Counted(GroupRunner):
        def __call__(self, group, progress):
            before = self._program
            result = super().__call__(group, progress)
            compiled.append(self._program is not before)
            return result

    monkeypatch.setattr(module, "GroupRunner", Counted)
    again = sweep(config, TRIALS, strategy="unroll", width=1, measure=False)
    assert compiled == [True, False, False]
    np.testing.assert_array_equal(again.losses, found["unroll"].losses)
