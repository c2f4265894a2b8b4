"""A detector of somebody's own Flax network, and the laws of folding and freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from yolojax import zoo
from yolojax.detector import DetectorSpec
from yolojax.models.layers import ConvBNAct
from yolojax.structures import Candidates, LossTerms, Targets

NAMES, SIZE = ("a", "b"), (64, 64)
SYSTEMS = {
    "compact": {"widths": (8, 8, 8, 8), "depths": (0, 0, 1, 0), "head_width": 8},
    "lesson": {
        "backbone": "resnet18",
        "neck_width": 8,
        "anchors": (((30.0, 40.0), (60.0, 50.0)),),
    },
    "yolov2": {"width": 1 / 16},
    "yolov3": {"width": 1 / 16, "depths": (0, 1, 0, 0, 0)},
    "yolov3-tiny": {"width": 1 / 16},
    "yolov4": {"width": 1 / 16, "depths": (0, 1, 0, 0, 0)},
    "yolov4-tiny": {"width": 1 / 16},
    "yolox": {"width": 1 / 32, "depthwise": True},
}


def disturbed(variables, key=1):
    """The same variables with statistics, scales and shifts as after some training."""
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(key)
    return tree.unflatten(
        [jnp.asarray(x * rng.uniform(0.5, 1.5, x.shape).astype(np.float32) + np.float32(0.01)) for x in leaves]
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("yolox", "yolov4", "lesson") else []) for name in SYSTEMS],
)
def test_forward_reads_folded_variables_and_folding_twice_changes_nothing(name):
    detector = zoo.build(name, NAMES, SIZE, **SYSTEMS[name])
    variables = disturbed(detector.init(jax.random.key(0)))
    images = jax.random.uniform(jax.random.key(2), (1, *SIZE, 3))

    @jax.jit
    def both(variables, images):
        folded = detector.fold(variables)
        return folded, detector.fold(folded), detector.forward(variables, images), detector.forward(folded, images)

    folded, twice, trained, merged = both(variables, images)
    jax.tree.map(np.testing.assert_array_equal, folded, twice)
    assert not jax.tree.leaves(folded["batch_stats"])
    assert len(jax.tree.leaves(folded["params"])) < len(jax.tree.leaves(variables["params"]))
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(merged), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(a).max()))


class Net(nn.Module):
    """Flax's own layers, and one of the library, whose names say nothing: ``conv`` and ``norm`` are no pair here."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvBNAct(8, 3, 2, name="first")(x, train)
        x = nn.relu(nn.Conv(8, (3, 3), strides=(4, 4), name="conv")(x))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(nn.relu(x))
        x = nn.BatchNorm(momentum=0.9, name="second")(x, use_running_average=not train)
        return nn.Dense(6, name="scores")(x)


def own_detector():
    """What a user writes: a network, a loss and a decoder."""

    def loss(outputs, targets, hyper):
        error = jnp.sum((outputs - 1) ** 2, axis=(1, 2, 3))
        return LossTerms({"square": error}, {"square": jnp.ones_like(error)}, {})

    def decode(outputs):
        flat = outputs.reshape(outputs.shape[0], -1, 6)
        return Candidates(jnp.concatenate([flat[..., :2], flat[..., :2] + jnp.exp(flat[..., 2:4])], -1), flat[..., 4:])

    return zoo.flax_detector(DetectorSpec("mine", NAMES, (16, 16), (8,)), Net(), loss, decode)


def no_targets(batch=4):
    none = jnp.zeros((batch, 1), bool)
    return Targets(jnp.zeros((batch, 1, 4)), jnp.zeros((batch, 1), jnp.int32), none, none, jnp.zeros(batch, jnp.int32))


@pytest.fixture(scope="module")
def own():
    detector = own_detector()
    return detector, disturbed(detector.init(jax.random.key(0)))


def test_only_what_can_be_folded_is_folded(own):
    detector, variables = own
    folded = detector.fold(variables)
    assert set(folded["params"]["first"]) == {"conv"} and set(folded["batch_stats"]) == {"norm", "second"}
    jax.tree.map(np.testing.assert_array_equal, folded["params"]["norm"], variables["params"]["norm"])
    images = jax.random.uniform(jax.random.key(2), (4, 16, 16, 3))
    forward = jax.jit(detector.forward)
    np.testing.assert_allclose(forward(folded, images), forward(variables, images), rtol=1e-5, atol=1e-5)


def test_flax_batch_norm_trains_and_freezes(own):
    detector, variables = own
    images = jax.random.uniform(jax.random.key(2), (4, 16, 16, 3))

    def gradient(forward_train):
        @jax.jit
        def run(params):
            def loss(params):
                outputs, state = forward_train({**variables, "params": params}, images, no_targets(), jax.random.key(0))
                return jnp.sum((outputs - 1) ** 2), (outputs, state)

            return jax.grad(loss, has_aux=True)(params)

        return run(variables["params"])

    gradients, (outputs, state) = gradient(detector.forward_train)
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    # Momentum .9 of Flax: new = .9 old + .1 of the batch.
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved)) and all(bool(jnp.any(g != 0)) for g in jax.tree.leaves(gradients["second"]))
    assert np.abs(outputs - detector.forward(variables, images)).max() > 1e-3

    parts = ("first", "norm", "second")
    _, (outputs, state) = gradient(detector.freeze(detector.forward_train, parts))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    np.testing.assert_allclose(outputs, jax.jit(detector.forward)(variables, images), rtol=1e-5, atol=1e-5)

    _, (_, state) = gradient(detector.freeze(detector.forward_train, ("second",)))
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"]["second"], variables["batch_stats"]["second"])
    assert (np.asarray(state["batch_stats"]["norm"]["mean"]) != variables["batch_stats"]["norm"]["mean"]).all()


def test_freezing_wraps_a_forward_of_ones_own(own):
    detector, variables = own
    calls = []

    def mine(variables, images, targets, key):
        calls.append(1)
        return detector.forward_train(variables, images, targets, key)

    edited = detector._replace(forward_train=mine)
    frozen = edited.freeze(edited.forward_train, ("norm", "second", "first"))
    _, state = frozen(variables, jnp.ones((4, 16, 16, 3)), no_targets(), jax.random.key(0))
    assert calls and not jax.tree.leaves(
        jax.tree.map(lambda a, b: None if (a == b).all() else 1, state["batch_stats"], variables["batch_stats"])
    )
