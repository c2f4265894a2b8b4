"""Losses and gradients of single images and objects against one image, and one object, after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared.small_runs import QUICK, images, lesson_detector, take
from yolojax.coding import encode
from yolojax.detector import prepare_images
from yolojax.structures import Hyper, Targets, hyper_as_arrays
from yolojax.training.per_example import per_example_gradient_norm, per_example_loss, per_object_loss

HYPER = hyper_as_arrays(Hyper())


@pytest.fixture(scope="module")
def case():
    input_images, detector = images(8, 32), lesson_detector(QUICK)
    batch = take(jnp.asarray(input_images.images), jax.tree.map(jnp.asarray, input_images.targets), jnp.arange(3))
    variables = detector.init(jax.random.key(0))
    # Statistics as after training, so that their use is seen.
    statistics = jax.tree.map(lambda x: x + 0.1, variables["batch_stats"])
    return detector, {**variables, "batch_stats": statistics}, batch


def one(batch, i):
    return batch.images[i : i + 1], jax.tree.map(lambda a: a[i : i + 1], batch.targets)


def test_losses_and_gradient_norms_are_those_of_one_image_alone(case):
    detector, variables, batch = case

    @jax.jit
    def alone(params, pixels, targets):
        def loss(params):
            outputs = detector.forward(
                {**variables, "params": params}, prepare_images(pixels, detector.spec.preprocess)
            )
            return detector.loss(outputs, targets, HYPER).reduce()[0]

        return jax.value_and_grad(loss)(params)

    @jax.jit
    def together(images, targets):
        of = (detector, variables, images, targets, HYPER)
        head = per_example_gradient_norm(*of, parts=("head",))
        return per_example_loss(*of), per_example_gradient_norm(*of), head

    losses, norms, heads = together(batch.images, batch.targets)
    for i in range(3):
        loss, gradient = alone(variables["params"], *one(batch, i))
        assert losses[i] == pytest.approx(float(loss), rel=1e-5)
        for found, part in ((norms, gradient), (heads, gradient["head"])):
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(part)))
            assert found[i] == pytest.approx(norm, rel=1e-4)
    assert (norms > heads).all()


def test_object_loss_is_the_difference_that_leaving_it_out_makes(case):
    detector, variables, batch = case
    forward = jax.jit(lambda x: detector.forward(variables, prepare_images(x, detector.spec.preprocess)))
    outputs = forward(batch.images)
    found = jax.jit(lambda o, t: per_object_loss(detector, o, t, HYPER))(outputs, batch.targets)
    total = jax.jit(lambda o, t: sum(detector.loss(o, t, HYPER).sums.values()))
    whole = total(outputs, batch.targets)
    for i, row in np.argwhere(np.asarray(batch.targets.valid)):
        rest = batch.targets._replace(valid=batch.targets.valid.at[i, row].set(False))
        assert found[i, row] == pytest.approx(float(whole[i] - total(outputs, rest)[i]), abs=2e-4)
    assert not np.asarray(found)[~np.asarray(batch.targets.valid)].any()


@pytest.mark.slow  # tens of seconds of tracing
def test_a_label_that_the_network_contradicts_stands_out():
    """On raw predictions that show one object clearly, a second label elsewhere costs, and the true one pays."""
    detector = lesson_detector(QUICK)
    anchors = jnp.asarray(detector.spec.options["anchors"], jnp.float32)
    seen, invented = (jnp.concatenate([corner, corner + anchors[0, i]]) for i, corner in enumerate(jnp.eye(2) * 9))
    raw = encode(seen, jnp.zeros(2), 32, anchors[0, 0])
    # The anchor of the figure's shape is confident, the other one silent: labels of the two shapes meet one each.
    confident, silent = (jnp.concatenate([raw, jnp.array(rest)]) for rest in ([6.0, 8.0, -8.0], [-6.0, 0.0, 0.0]))
    outputs = (jnp.stack([confident, silent])[None, None, None],)
    of_two, none = jnp.ones((1, 2), bool), jnp.zeros((1, 2), bool)
    targets = Targets(
        jnp.stack([seen, invented])[None], jnp.zeros((1, 2), jnp.int32), of_two, none, jnp.zeros(1, jnp.int32)
    )
    good, bad = per_object_loss(detector, outputs, targets, HYPER)[0]
    # As a negative the confident one would cost .5 * 6; as a positive the silent one costs 6, its class 2 log 2.
    assert good == pytest.approx(-0.5 * 6.0, abs=0.02) and bad > 6 + 2 * np.log(2) - 0.1
