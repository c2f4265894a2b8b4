"""One training step: what it moves, what it must not move, and how often it is compiled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.toy import toy_batch, toy_detector
from yolojax import zoo
from yolojax.augment import compose
from yolojax.config import OptimiserConfig
from yolojax.detector import check_parts
from yolojax.errors import ConfigError
from yolojax.structures import Batch, Hyper, Targets, hyper_as_arrays
from yolojax.training.gradient import accumulated_gradient, whole_gradient
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step

INPUT_SIZE = (32, 32)
SMALL = {"widths": (4, 4, 8), "depths": (0, 0, 0), "head_width": 8, "reg_max": 4, "shared_head": True}
CONFIG = OptimiserConfig(warmup_steps=0, schedule="constant", ema_decay=0.5)
HYPER = hyper_as_arrays(Hyper(learning_rate=0.01, weight_decay=0.1))


def make_batch(key: int = 0) -> Batch:
    images = jax.random.randint(jax.random.key(key), (2, *INPUT_SIZE, 3), 0, 256).astype(jnp.uint8)
    boxes = jnp.broadcast_to(jnp.array([[4.0, 4, 20, 24], [0, 0, 1, 1]]), (2, 2, 4))
    valid = jnp.broadcast_to(jnp.array([True, False]), (2, 2))
    zero = jnp.zeros((2, 2), jnp.int32)
    targets = Targets(boxes, zero, valid, jnp.zeros((2, 2), bool), jnp.zeros(2, jnp.int32))
    return Batch(images, targets)


def fresh(detector, total_steps=10):
    return jax.jit(lambda key: make_state(detector, CONFIG, total_steps, key))(jax.random.key(0))


@functools.cache
def toy_state():
    return fresh(toy_detector())


@functools.cache
def toy_step(**settings):
    return jax.jit(make_train_step(toy_detector(), CONFIG, compose([]), jax.random.key(1), **settings))


@pytest.fixture
def step():
    return toy_step()


def moved(before, after):
    return jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != np.asarray(b))), before, after)


def test_a_step_lowers_the_loss_of_its_batch_and_moves_everything():
    """Of a real detector."""
    detector = zoo.build("compact", ("thing",), INPUT_SIZE, **SMALL)
    step = jax.jit(make_train_step(detector, CONFIG, compose([]), jax.random.key(1)))
    hyper = hyper_as_arrays(Hyper()._replace(**detector.spec.hyper))
    state, batch = fresh(detector), make_batch()
    losses = []
    for _ in range(6):
        state, report = step(state, batch, hyper)
        losses.append(float(report.loss))
    assert losses[-1] < losses[0]
    assert int(state.step) == 6
    before = fresh(detector).variables
    # A kernel may rest only where its gradient is exactly zero; on this batch none of the normalised ones is.
    assert np.mean(jax.tree.leaves(moved(before["params"], state.variables["params"]))) > 0.9
    assert all(jax.tree.leaves(moved(before["batch_stats"], state.variables["batch_stats"])))


def test_a_loss_reads_how_far_the_run_has_come():
    toy = toy_detector()

    def loss(outputs, targets, hyper):
        terms = toy.loss(outputs, targets, hyper)
        images = next(iter(terms.sums.values())).shape
        return terms._replace(counts={"progress": jnp.broadcast_to(hyper.progress, images) / images[0]})

    step = jax.jit(make_train_step(toy._replace(loss=loss), CONFIG, compose([]), jax.random.key(1)))
    state, seen = fresh(toy, total_steps=4), []
    for _ in range(4):
        state, report = step(state, toy_batch(), HYPER)
        seen.append(float(report.counts["progress"]))
    np.testing.assert_allclose(seen, [0, 0.25, 0.5, 0.75], rtol=1e-6)


def test_the_average_follows_its_formula(step):
    state = toy_state()
    new, _ = step(state, toy_batch(), HYPER)
    decay = min(CONFIG.ema_decay, 1 / 10)
    old_and_new = jax.device_get((state.ema, new.variables))
    expected = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, *old_and_new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), new.ema, expected)


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(step, accumulate, value):
    step = step if accumulate == 1 else toy_step(accumulate=accumulate)
    state, report = step(toy_state(), toy_batch(), HYPER)
    assert bool(report.finite)
    after, report = step(state, toy_batch(1), HYPER._replace(lambda_coord=jnp.float32(value)))
    assert not bool(report.finite)
    # Image 0 has no object, so an infinite weight of nothing is NaN there as well; the parts name what it is.
    assert not bool(jnp.isfinite(report.image_loss).all())
    assert not bool(jnp.isfinite(report.parts["objects"])) and bool(jnp.isfinite(report.parts["images"]))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_of_accumulated_parts_the_image_that_is_not_finite_is_named():
    def spoil(key, images, targets):
        return images.astype(jnp.float32).at[5].set(jnp.nan), targets

    settings = {"accumulate": 4, "freeze": ("backbone", "neck")}  # running statistics keep the images apart
    step = jax.jit(make_train_step(toy_detector(), CONFIG, spoil, jax.random.key(1), **settings))
    state = toy_state()
    after, report = step(state, toy_batch(), HYPER)
    assert np.flatnonzero(~np.isfinite(report.image_loss)).tolist() == [5]
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_hyper_parameters_batches_and_length_change_without_recompiling():
    traces = []
    inner = make_train_step(toy_detector(), CONFIG, compose([]), jax.random.key(1))

    @jax.jit
    def step(*arguments):
        traces.append(1)
        return inner(*arguments)

    state = toy_state()
    for i, rate in enumerate((1e-4, 1e-2, 0.0)):
        hyper = HYPER._replace(learning_rate=jnp.float32(rate), lambda_cls=jnp.float32(i))
        step(state._replace(total_steps=jnp.int32(10 + i)), toy_batch(i), hyper)
    assert len(traces) == 1


def test_learning_rate_zero_moves_no_parameter(step):
    state = toy_state()
    new, _ = step(state, toy_batch(), HYPER._replace(learning_rate=jnp.float32(0)))
    jax.tree.map(np.testing.assert_array_equal, new.variables["params"], state.variables["params"])


def test_bfloat16_computes_with_float32_parameters(step):
    detector = toy_detector("bfloat16")
    outputs, _ = jax.eval_shape(
        detector.forward_train,
        *(fresh(detector).variables, jnp.ones((2, 8, 8, 3)), toy_batch(size=2).targets, jax.random.key(0)),
    )
    assert outputs.dtype == jnp.bfloat16
    low = jax.jit(make_train_step(detector, CONFIG, compose([]), jax.random.key(1)))
    new, report = low(fresh(detector), toy_batch(), HYPER)
    _, exact = step(toy_state(), toy_batch(), HYPER)
    assert bool(report.finite) and report.loss.dtype == jnp.float32
    assert float(report.loss) != float(exact.loss)
    np.testing.assert_allclose(report.loss, exact.loss, rtol=0.02)
    assert {x.dtype for x in jax.tree.leaves(new.variables)} == {jnp.dtype("float32")}


# ---- accumulation


def frozen_everywhere(gradient_of):
    """With the running statistics in all normalisations, so that every image is treated by itself."""
    from yolojax.models.batch_norm import frozen_statistics

    def run(variables, batch, hyper):
        with frozen_statistics(("backbone", "neck")):
            images = batch.images.astype(jnp.float32) / 255
            return gradient_of(toy_detector(), variables, images, batch.targets, jax.random.key(0), hyper)

    return jax.jit(run)


@pytest.mark.parametrize("count", [2, 8])
def test_an_accumulated_gradient_is_that_of_the_whole_batch(count):
    """Although the two parts of the loss have different divisors, known only when all images were seen."""
    variables, batch = toy_state().variables, toy_batch()
    whole = frozen_everywhere(whole_gradient)(variables, batch, HYPER)
    parts = frozen_everywhere(accumulated_gradient(count))(variables, batch, HYPER)
    for name, divisor in (("objects", 7.0), ("images", 8.0)):  # 0 1 2 0 1 2 0 1 objects
        assert float(jnp.sum(whole.terms.normalisers[name])) == divisor
    assert jax.tree.structure(whole) == jax.tree.structure(parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)
    # What adding up the mean losses of the parts would give, as is often done, is something else.
    halves, of_half = jax.device_get(batch), frozen_everywhere(whole_gradient)
    naive = [of_half(variables, jax.tree.map(lambda x, i=i: x[i::2], halves), HYPER).loss for i in range(2)]
    assert abs(float(sum(naive)) / 2 - float(whole.loss)) > 1e-3 * float(whole.loss)


def test_accumulated_parts_move_the_running_statistics_one_after_the_other():
    batch, variables, key = toy_batch(), toy_state().variables, jax.random.key(0)
    images, targets = jax.device_get(batch.images).astype(np.float32) / 255, jax.device_get(batch.targets)
    gradient_of = jax.jit(lambda *arguments: accumulated_gradient(2)(toy_detector(), *arguments))
    found = gradient_of(variables, images, targets, key, HYPER)
    expected, forward_train = variables, jax.jit(toy_detector().forward_train)
    for i in range(2):
        half = jax.tree.map(lambda x, i=i: x[i::2], targets)
        expected = {**expected, **forward_train(expected, images[i::2], half, key)[1]}
    for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(expected["batch_stats"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# ---- freezing


def test_a_frozen_part_stays_to_the_byte_and_normalises_as_at_inference():
    """With weight decay, which moves what has no gradient, and an average, which rounds."""
    detector, step = toy_detector(), toy_step(freeze=("backbone", "neck/first/norm"))
    start = fresh(detector)
    # An average that has left the parameters: rounding would show.
    start = start._replace(ema=jax.tree.map(lambda x: np.asarray(x) * np.float32(0.7), start.variables))
    state = start
    for i in range(3):
        state, report = step(state, toy_batch(i), HYPER)
    for kind in ("variables", "ema"):
        for tree in ("params", "batch_stats"):
            old, new = getattr(start, kind)[tree], getattr(state, kind)[tree]
            assert not any(jax.tree.leaves(moved(old["backbone"], new["backbone"])))
            assert not any(jax.tree.leaves(moved(old["neck"]["first"]["norm"], new["neck"]["first"]["norm"])))
    params = moved(start.variables["params"], state.variables["params"])
    assert params["neck"]["first"]["conv"]["kernel"] and all(jax.tree.leaves(params["head"]))
    # The loss that it trains on is that of the network as it will be used.
    _, report = step(state, toy_batch(3), HYPER)

    @jax.jit
    def loss_of(variables, batch):
        outputs = detector.forward(variables, batch.images.astype(jnp.float32) / 255)
        return detector.loss(outputs, batch.targets, HYPER).reduce()[0]

    expected = loss_of(state.variables, toy_batch(3))
    np.testing.assert_allclose(report.loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("spine",), r"'spine': the detector has no such part; there are backbone, head, neck"),
        (("neck/second",), r"'neck/second': .*there are neck/first"),
        (("back",), "'back'"),
        (("backbone", "neck", "head"), "nothing is left to train"),
    ],
)
def test_freezing_what_is_not_there_or_everything_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        check_parts(jax.eval_shape(lambda: toy_state()).variables["params"], parts)
