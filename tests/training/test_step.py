"""One training step: what it moves, what it must not move, and how often it is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import zoo
from yolojax.augment import compose
from yolojax.config import OptimiserConfig
from yolojax.structures import Batch, Hyper, Targets, hyper_as_arrays
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step

CANVAS = (32, 32)
SMALL = {"widths": (4, 4, 8, 8, 8), "depths": (0, 0, 0, 0, 0), "head_width": 8, "reg_max": 4}
CONFIG = OptimiserConfig(warmup_steps=0, schedule="constant", ema_decay=0.5)


def make_batch(key: int = 0) -> Batch:
    images = jax.random.randint(jax.random.key(key), (2, *CANVAS, 3), 0, 256).astype(jnp.uint8)
    boxes = jnp.broadcast_to(jnp.array([[4.0, 4, 20, 24], [0, 0, 1, 1]]), (2, 2, 4))
    valid = jnp.broadcast_to(jnp.array([True, False]), (2, 2))
    zero = jnp.zeros((2, 2), jnp.int32)
    targets = Targets(boxes, zero, valid, jnp.zeros((2, 2), bool), jnp.zeros(2, jnp.int32))
    return Batch(images, targets, jnp.arange(2), jnp.full((2, 2), 32), jnp.zeros((2, 4)), jnp.ones(2, bool))


@pytest.fixture(scope="module")
def setting():
    detector = zoo.build("compact", ("thing",), CANVAS, **SMALL)
    traces = []
    inner = make_train_step(detector, CONFIG, 10, compose([]), jax.random.key(1))

    def step(state, batch, hyper):
        traces.append(1)
        return inner(state, batch, hyper)

    hyper = hyper_as_arrays(Hyper()._replace(**detector.spec.hyper))
    return detector, jax.jit(step), hyper, traces


def fresh(detector):
    return make_state(detector, CONFIG, 10, jax.random.key(0))


def test_a_step_lowers_the_loss_of_its_batch_and_moves_everything(setting):
    detector, step, hyper, _ = setting
    state, batch = fresh(detector), make_batch()
    losses = []
    for _ in range(6):
        state, report = step(state, batch, hyper)
        losses.append(float(report.loss))
    assert losses[-1] < losses[0]
    assert int(state.step) == 6
    before, after = fresh(detector).variables, state.variables
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before["params"], after["params"])
    # A kernel may rest only where its gradient is exactly zero; on this batch none of the normalised ones is.
    assert np.mean(jax.tree.leaves(moved)) > 0.9
    assert all(
        jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before["batch_stats"], after["batch_stats"]))
    )


def test_the_average_follows_its_formula(setting):
    detector, step, hyper, _ = setting
    state = fresh(detector)
    new, _ = step(state, make_batch(), hyper)
    decay = min(CONFIG.ema_decay, 1 / 10)
    expected = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state.ema, new.variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), new.ema, expected)


@pytest.mark.parametrize("field", ["lambda_coord", "lambda_cls"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(setting, field, value):
    detector, step, hyper, _ = setting
    state, _ = step(fresh(detector), make_batch(), hyper)
    after, report = step(state, make_batch(1), hyper._replace(**{field: jnp.float32(value)}))
    assert not bool(report.finite)
    assert not bool(jnp.isfinite(report.image_loss).all())
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_hyper_parameters_and_batches_change_without_recompiling(setting):
    detector, step, hyper, traces = setting
    state = fresh(detector)
    step(state, make_batch(), hyper)
    count = len(traces)
    for i, rate in enumerate((1e-4, 1e-2, 0.0)):
        step(state, make_batch(i), hyper._replace(learning_rate=jnp.float32(rate), lambda_dfl=jnp.float32(i)))
    assert len(traces) == count


def test_learning_rate_zero_moves_no_parameter(setting):
    detector, step, hyper, _ = setting
    state = fresh(detector)
    new, _ = step(state, make_batch(), hyper._replace(learning_rate=jnp.float32(0)))
    jax.tree.map(np.testing.assert_array_equal, new.variables["params"], state.variables["params"])


def test_bfloat16_computes_with_float32_parameters():
    detector = zoo.build("compact", ("thing",), CANVAS, dtype="bfloat16", **SMALL)
    state = make_state(detector, CONFIG, 10, jax.random.key(0))
    step = jax.jit(make_train_step(detector, CONFIG, 10, compose([]), jax.random.key(1)))
    new, report = step(state, make_batch(), hyper_as_arrays(Hyper()._replace(**detector.spec.hyper)))
    assert bool(report.finite) and report.loss.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(new.variables)} == {jnp.dtype("float32")}
