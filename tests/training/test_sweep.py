"""A sweep's runs are the runs that would be made one by one, whatever strategy trains them."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from tests.training.linear import linear_detector
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig
from yolojax.data import open_input_images, open_splits, sample_indices, shapes_dataset, write_yolo
from yolojax.errors import ConfigError
from yolojax.training import sweep as module
from yolojax.training.preparation import step_maker
from yolojax.training.state import make_state
from yolojax.training.step import make_hyper
from yolojax.training.sweep import GroupRunner, Trial, choose_strategy, grid, make_train, sweep

TRIALS = [Trial(0), Trial(1, {"lambda_cls": 2.0}), Trial(0, {"learning_rate": 5e-3, "weight_decay": 0.0})]
STEPS = 10
OFF = {"scale_min": 1.0, "scale_max": 1.0, "translate": 0.0, "hue": 0.0, "saturation": 0.0, "value": 0.0}
REAL = {"widths": [8, 8, 16, 16], "depths": [0, 0, 1, 1], "head_width": 16}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    parts = {part: shapes_dataset(count, size=(48, 48), split=part) for part, count in (("train", 20), ("val", 6))}
    write_yolo(parts, folder)
    return TrainConfig(
        data=DataConfig(path=str(folder)),
        model=ModelConfig(name="compact", size=64, options=REAL),
        # Mixing images, so that the end of the run without it is looked at too; nothing that is slow to compile.
        augment=AugmentConfig(mixup=0.5, close_mosaic=0.4, **OFF),
        optimiser=OptimiserConfig(learning_rate=1e-2),
        epochs=2,
        batch_size=4,
    )


@pytest.fixture(scope="module")
def toy():
    """The sweep with the toy in place of the zoo's detectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build", lambda config, dataset: linear_detector(dataset.class_names, (64, 64)))
        yield


@pytest.fixture(scope="module")
def found(config, toy):
    return {s: sweep(config, TRIALS, strategy=s, measure=s == "unroll") for s in ("vmap", "unroll", "devices")}


def images_of(config, detector):
    dataset = open_splits(config.data.path)[0]
    return open_input_images(dataset, detector.spec.input_size, detector.spec.preprocess, images_per_sample=2)


def one_by_one(config, detector):
    """Each trial alone, by the training step itself: its losses and its averaged parameters."""
    images = images_of(config, detector)
    losses, averages = [], []
    begin = jax.jit(lambda key: make_state(detector, config.optimiser, STEPS, key))
    step = jax.jit(lambda key, state, batch, hyper: step_maker(config, detector)(key)(state, batch, hyper))
    for trial in TRIALS:
        key = jax.random.key(trial.seed)
        hyper = make_hyper(replace(config, hyper=dict(trial.hyper)), detector)
        state = begin(jax.random.fold_in(key, 0))
        own = []
        for t in range(STEPS):
            batch = images.batch(sample_indices(trial.seed, t, config.batch_size, len(images)))
            state, report = step(jax.random.fold_in(key, 1), state, batch, hyper)
            own.append(float(report.loss))
        losses.append(own)
        averages.append(state.ema)
    return np.array(losses), averages


def test_losses_are_those_of_separate_runs(config, found):
    losses, averages = one_by_one(config, found["unroll"].detector)
    for strategy, result in found.items():
        assert result.losses.shape == (3, STEPS) and result.strategy == strategy
        np.testing.assert_allclose(result.losses, losses, rtol=1e-4, err_msg=strategy)
        for ours, theirs in zip(result.variables, averages, strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    assert len({tuple(row) for row in losses.tolist()}) == 3  # the trials do differ


@pytest.mark.slow
def test_so_it_is_with_a_real_detector(config):
    real = {s: sweep(config, TRIALS, strategy=s, measure=False) for s in ("vmap", "unroll", "devices")}
    losses, _ = one_by_one(config, real["unroll"].detector)
    for strategy, result in real.items():
        # Each way adds up in an order of its own, and Adam's steps double that rounding from step to step.
        np.testing.assert_allclose(result.losses[:, :4], losses[:, :4], rtol=2e-5, err_msg=strategy)
        np.testing.assert_allclose(result.losses, losses, rtol=1e-3, err_msg=strategy)


def test_runs_are_measured(found):
    results = found["unroll"].results
    values = [result.AP for result in results]
    assert all(0 <= value <= 1 for value in values)
    assert found["unroll"].best("AP") == int(np.argmax(values))
    assert set(found["unroll"].seconds) == {"compile", "prepare", "train", "validate", "per_run"}
    with pytest.raises(ConfigError, match="measured"):
        found["vmap"].best()
    with pytest.raises(ConfigError, match="metric = 'mAP': give one of AP, AP50"):
        found["unroll"].best("mAP")


@pytest.mark.parametrize(
    ("backend", "devices", "chosen"),
    [("cpu", 1, "unroll"), ("cpu", 8, "unroll"), ("gpu", 1, "vmap"), ("gpu", 8, "devices")],
)
def test_a_strategy_is_chosen_by_the_machine(monkeypatch, backend, devices, chosen):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_device_count", lambda: devices)
    assert choose_strategy() == chosen


def test_a_grid_is_every_combination():
    trials = grid(seed=range(2), lambda_cls=[0.5, 1.0])
    assert [(t.seed, t.hyper["lambda_cls"]) for t in trials] == [(0, 0.5), (1, 0.5), (0, 1.0), (1, 1.0)]
    assert str(trials[1]) == "seed 1, lambda_cls 0.5"


def test_wrong_sweeps_are_refused(config, toy):
    with pytest.raises(ConfigError, match="at least one trial"):
        sweep(config, [])
    with pytest.raises(ConfigError, match="unknown hyper-parameter"):
        sweep(config, [Trial(hyper={"lambda_class": 1.0})])
    with pytest.raises(ConfigError, match="width"):
        sweep(config, [Trial()], strategy="vmap", width=0)
    with pytest.raises(ConfigError, match="auto"):
        sweep(replace(config, batch_size="auto"), [Trial()])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"minutes": 1.0}, "minutes"),
        ({"patience": 2}, "patience"),
        ({"select": "best"}, "select"),
        ({"validate_raw": True}, "validate_raw"),
        ({"init": "runs/other"}, "init"),
        ({"validate_every": 3}, "validate_every"),
        ({"checkpoint_every": 3}, "checkpoint_every"),
        ({"model": ModelConfig(size=64, multi_scale=3)}, "model.multi_scale"),
        ({"data": DataConfig(cache="stream")}, "data.cache"),
        ({"data": DataConfig(fraction=0.5)}, "data.fraction"),
    ],
)
def test_what_a_sweep_cannot_honour_is_named(config, change, name):
    with pytest.raises(ConfigError, match=f"^{name} = "):
        sweep(replace(config, **change), [Trial(0), Trial(1)])


def test_a_fraction_is_drawn_by_the_seed_of_the_trials(config, toy, monkeypatch):
    """The images of `fit` with that seed, whatever the seed of the configuration is."""
    seen = []
    inner = module.open_input_images
    monkeypatch.setattr(
        module, "open_input_images", lambda dataset, *a, **k: seen.append(dataset) or inner(dataset, *a, **k)
    )
    part = replace(config, data=replace(config.data, fraction=0.5), seed=0, epochs=1)
    sweep(part, [Trial(7)], measure=False)
    expected = open_splits(config.data.path, fraction=0.5, seed=7)[0]
    assert seen[0].fingerprint() == expected.fingerprint()
    assert expected.fingerprint() != open_splits(config.data.path, fraction=0.5, seed=0)[0].fingerprint()


def test_one_program_trains_all_groups(config, toy, found, monkeypatch):
    compiled = []

    class Counted(GroupRunner):
        def __call__(self, group, progress):
            before = self._program
            result = super().__call__(group, progress)
            compiled.append(self._program is not before)
            return result

    monkeypatch.setattr(module, "GroupRunner", Counted)
    again = sweep(config, TRIALS, strategy="vmap", width=2, measure=False)
    assert compiled == [True, False]  # and the second group is filled up with a run that is not reported
    np.testing.assert_allclose(again.losses, found["vmap"].losses, rtol=1e-5)


def test_a_whole_run_is_a_function(config, found):
    """The loop inside the program gives the losses of one step at a call."""
    detector = found["unroll"].detector
    images = images_of(config, detector)
    order = np.stack([sample_indices(0, t, config.batch_size, len(images)) for t in range(STEPS)]).astype(np.int32)
    key = jax.random.key(0)
    state = make_state(detector, config.optimiser, STEPS, jax.random.fold_in(key, 0))
    data = module.TrainData(*jax.device_put((images.images, images.targets, order)), jax.random.fold_in(key, 1))
    train = jax.jit(make_train(step_maker(config, detector), unroll=False))
    _, losses = train(state, data, make_hyper(config, detector))
    np.testing.assert_allclose(losses, found["unroll"].losses[0], rtol=1e-4)
