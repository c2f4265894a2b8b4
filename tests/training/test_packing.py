"""Packed states: a step on them is the step on the state as it is, and outside of the step nothing shows it."""

import functools

import jax
import numpy as np
import pytest

from tests.training.own_detectors import tuple_detector
from tests.training.test_own_detector import CONFIG, DATA
from tests.training.toy import toy_batch, toy_detector
from yolojax.augment import compose
from yolojax.config import OptimiserConfig
from yolojax.progress import Quiet
from yolojax.structures import Hyper, hyper_as_arrays
from yolojax.training import preparation
from yolojax.training.fit import open_trainer
from yolojax.training.optimiser import ELEMENTWISE, OPTIMIZERS
from yolojax.training.packing import Packing, packing_for
from yolojax.training.preparation import prepare
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step

HYPER = hyper_as_arrays(Hyper(learning_rate=0.01, weight_decay=0.1))


def slow_backbone(params):
    """Every part has the rate 1, the backbone a tenth."""
    return {part: jax.tree.map(lambda _, p=part: 0.1 if p == "backbone" else 1.0, t) for part, t in params.items()}


@functools.cache
def slow_toy():
    return toy_detector()._replace(learning_rates=slow_backbone)


def close(found, want):
    """Up to rounding; what is left of two large numbers is as exact as they were."""

    def one(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-7 * np.abs(b).max(initial=0.0))

    jax.tree.map(one, found, want)


@pytest.mark.parametrize(
    ("optimiser", "settings"),
    [
        (OptimiserConfig(clip_norm=0.5), {}),
        (OptimiserConfig(name="sgd", decay="coupled"), {"freeze": ("neck",), "remat": "segments", "accumulate": 2}),
    ],
)
def test_a_step_on_a_packed_state_is_the_same_step(optimiser, settings):
    detector, batch = slow_toy(), toy_batch()
    packing = Packing(detector, settings.get("freeze", ()))
    shapes = jax.eval_shape(lambda: make_state(detector, optimiser, 10, jax.random.key(0)))
    rng = np.random.default_rng(0)
    begun = jax.tree.map(lambda x: np.abs(rng.normal(size=x.shape)).astype(x.dtype), shapes)
    begun = begun._replace(step=np.int32(3), total_steps=np.int32(10))
    make = functools.partial(make_train_step, detector, optimiser, compose([]), jax.random.key(1), **settings)
    want, told = jax.jit(make())(begun, batch, HYPER)
    found, report = jax.jit(make(packing=packing))(packing.pack(begun), batch, HYPER)
    # A vector of every kind: kernels, which decay, and the rest; the backbone has its own rate, the neck is frozen.
    assert len(jax.tree.leaves(found.variables["params"])) == (6 if "freeze" in settings else 4)
    close(packing.unpack(found), want)
    close(report, told)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_what_is_packed_is_unpacked_to_the_byte(name):
    """Whatever an optimiser keeps beside its moments; and a fresh packed state is the state that is packed."""
    config = OptimiserConfig(name=name)
    rng = np.random.default_rng(0)
    for detector in (slow_toy(), tuple_detector()):
        packing = Packing(detector)
        shapes = jax.eval_shape(lambda d=detector: make_state(d, config, 10, jax.random.key(0)))
        state = jax.tree.map(lambda x: (100 * rng.normal(size=x.shape)).astype(x.dtype), shapes)
        packed = packing.pack(state)
        jax.tree.map(np.testing.assert_array_equal, packing.unpack(packed), state)
        fresh = jax.eval_shape(lambda d=detector, p=packing: make_state(p.detector(d), config, 10, jax.random.key(0)))
        assert jax.tree.structure(packed) == jax.tree.structure(fresh)
        assert [x.shape for x in jax.tree.leaves(packed)] == [x.shape for x in jax.tree.leaves(fresh)]


def test_a_mask_may_stand_for_whole_branches_and_parameters_may_be_one_array():
    """As optax and JAX take them; Adam's count is no moment, though it is one array as well."""
    branches = slow_toy()._replace(decay_mask=lambda params: dict.fromkeys(params, True) | {"neck": False})
    one_array = toy_detector()._replace(init=lambda key: {"params": np.ones(3, np.float32)})
    for detector in (branches, one_array):
        packing = Packing(detector)
        state = jax.eval_shape(lambda d=detector: make_state(d, OptimiserConfig(), 10, jax.random.key(0)))
        state = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state)
        jax.tree.map(np.testing.assert_array_equal, packing.unpack(packing.pack(state)), state)
    decayed = jax.tree.leaves(Packing(branches).detector(branches).decay_mask(None))
    assert sorted(set(decayed)) == [False, True]


def test_states_are_packed_for_gpus_and_where_the_optimiser_allows_it():
    detector = toy_detector()
    assert packing_for("gpu", detector, OptimiserConfig()) is not None
    assert packing_for("cpu", detector, OptimiserConfig()) is packing_for("tpu", detector, OptimiserConfig()) is None
    assert packing_for("gpu", detector, OptimiserConfig(name="lamb")) is None and "adamw" in ELEMENTWISE


def test_a_run_on_packed_states_is_the_same_run(tmp_path, monkeypatch, compiled_once):
    """What callbacks and checkpoints see is the state as it is; a run that packs none goes on from its checkpoint."""

    def trainer(folder, **settings):
        run = prepare(CONFIG, Quiet(), data=DATA, detector=tuple_detector())
        given = {"weights": None, "callbacks": (), "reporter": Quiet(), "started": 0.0, "resume": False} | settings
        return open_trainer(run, tmp_path / folder, {"data": {}}, **given)

    def run_epoch(folder):
        with trainer(folder) as running:
            running.end_at(3)
            for done in running.steps(1):
                running.record(done)
            running.save()
        return running

    plain = run_epoch("plain")
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "packing_for", lambda platform, *settings: packing_for("gpu", *settings))
        packed = run_epoch("packed")
    assert jax.tree.structure(packed.state) == jax.tree.structure(plain.state)
    close(packed.state, plain.state)
    jax.tree.map(np.testing.assert_array_equal, trainer("packed", resume=True).state, packed.state)
