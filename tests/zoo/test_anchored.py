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

PLAIN, SCALED, SQUARED = (False, 1.0), (False, 1.2), (True, 2.0)


# Every loss, and every coder with both kinds of loss: in its own space, and on decoded boxes.
@pytest.mark.parametrize(
    ("box", "squared", "scale"),
    [
        *((box, *SCALED) for box in ("mse", *BOX_LOSSES)),
        *((box, *coder) for box in ("mse", "ciou") for coder in (PLAIN, SQUARED)),
    ],
)
def test_a_prediction_that_decodes_to_its_object_costs_nothing(box, squared, scale):
    """Whatever the coder: a loss in the space of another one would train boxes to wrong sizes."""
    anchor, truth = (20.0, 30.0), jnp.array([[9.0, 12.0, 31.0, 50.0]])
    loss, decode, _ = anchored_detection([AnchoredLevel(16, (anchor,), scale, squared)], box_loss=box)
    centre, stride, sizes = jnp.array([[1.0, 1.0]]), jnp.array([16.0]), jnp.array([anchor])
    own = (truth, centre, stride, sizes)
    flag = np.ones((1, 1), bool)
    targets = Targets(truth[None], np.zeros((1, 1), np.int32), flag, ~flag, np.zeros(1, np.int32))

    def box_part(raw):
        return loss((raw,), targets, Hyper()).sums["box"].sum()

    @jax.jit
    def costs(truth, centre, stride, sizes):
        own = (truth, centre, stride, sizes)
        found = encode_yolov5(*own) if squared else encode(*own, scale_x_y=scale)
        raw = jnp.full((1, 4, 4, 1, 7), -9.0).at[0, 1, 1, 0, :4].set(found[0])
        # The program is a loop over two inputs, so that the loss is in it once.
        cost, gradient = jax.lax.map(jax.value_and_grad(box_part), jnp.stack([raw, raw.at[0, 1, 1, 0, 2].add(0.5)]))
        return decode((raw,)).boxes, cost, gradient[0]

    boxes, (cost, other), gradient = jax.device_get(costs(*own))
    np.testing.assert_allclose(boxes.reshape(4, 4, 4)[1, 1], truth[0], atol=1e-3)
    assert cost < 1e-5 and np.isfinite(gradient).all() and other > 1e-3


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
