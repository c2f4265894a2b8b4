"""The loss of anchored detectors belongs to their coder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.coding import encode, encode_yolov5
from yolojax.losses import yolov3_loss
from yolojax.structures import Hyper, Level, Targets
from yolojax.zoo.anchored import AnchoredLevel, anchored_detection
from yolojax.zoo.parts import BOX_LOSSES


@pytest.mark.parametrize(("squared", "scale"), [(False, 1.0), (False, 1.2), (True, 2.0)])
@pytest.mark.parametrize("box", ["mse", *BOX_LOSSES])
def test_a_prediction_that_decodes_to_its_object_costs_nothing(box, squared, scale):
    """Whatever the coder: a loss in the space of another one would train boxes to wrong sizes."""
    anchor, truth = (20.0, 30.0), jnp.array([[9.0, 12.0, 31.0, 50.0]])
    loss, decode, _ = anchored_detection([AnchoredLevel(16, (anchor,), scale, squared)], box_loss=box)
    centre, stride, sizes = jnp.array([[1.0, 1.0]]), jnp.array([16.0]), jnp.array([anchor])
    own = (truth, centre, stride, sizes)
    found = encode_yolov5(*own) if squared else encode(*own, scale_x_y=scale)
    raw = jnp.full((1, 4, 4, 1, 7), -9.0).at[0, 1, 1, 0, :4].set(found[0])
    flag = jnp.ones((1, 1), bool)
    targets = Targets(truth[None], jnp.zeros((1, 1), jnp.int32), flag, ~flag, jnp.zeros(1, jnp.int32))
    boxes = decode((raw,)).boxes.reshape(4, 4, 4)
    np.testing.assert_allclose(boxes[1, 1], truth[0], atol=1e-3)
    cost, gradient = jax.value_and_grad(lambda raw: loss((raw,), targets, Hyper()).sums["box"].sum())(raw)
    assert float(cost) < 1e-5 and bool(jnp.isfinite(gradient).all())
    assert float(loss((raw.at[0, 1, 1, 0, 2].add(0.5),), targets, Hyper()).sums["box"].sum()) > 1e-3


@pytest.mark.slow  # tens of seconds of tracing
def test_squared_errors_of_any_coder_are_those_of_the_plain_one():
    """Against `squared_offset_loss`, which `yolov3_loss` takes by itself, in value and gradient."""
    anchors = ((20.0, 30.0), (40.0, 25.0))
    loss, *_ = anchored_detection([AnchoredLevel(16, anchors)], box_loss="mse")
    rng = np.random.default_rng(0)
    raw = jnp.asarray(rng.normal(size=(2, 4, 4, 2, 8)), jnp.float32)
    truth = jnp.asarray([[[9, 12, 31, 50], [30, 5, 63, 30]], [[0, 0, 18, 40], [20, 20, 44, 44]]], jnp.float32)
    flags = jnp.ones((2, 2), bool)
    targets = Targets(truth, jnp.asarray([[0, 2], [1, 1]], jnp.int32), flags, ~flags, jnp.zeros(2, jnp.int32))

    def plain(raw):
        return yolov3_loss((raw,), (Level(4, 4, 16),), jnp.asarray([anchors]), targets, Hyper()).sums["box"].sum()

    def own(raw):
        return loss((raw,), targets, Hyper()).sums["box"].sum()

    for got, want in zip(*(jax.tree.leaves(jax.value_and_grad(f)(raw)) for f in (own, plain)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
