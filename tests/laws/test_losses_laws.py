"""Laws of the losses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolojax.assign import simota_assign, task_aligned_assign
from yolojax.losses import (
    binary_cross_entropy,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    distribution_focal_loss,
    focal_loss,
    generalized_box_iou_loss,
    on_decoded_boxes,
    quality_focal_loss,
    scylla_box_iou_loss,
    varifocal_loss,
    yolov3_loss,
    yolov8_loss,
    yolox_loss,
)
from yolojax.structures import Hyper, Level, LossTerms, Targets, hyper_as_arrays

LEVELS = (Level(3, 4, 8), Level(2, 2, 16))
ANCHORS = jnp.array([[[6.0, 6.0], [10.0, 14.0]], [[24.0, 20.0], [40.0, 44.0]]])
B, M, C = 4, 3, 2
HYPER = hyper_as_arrays(Hyper(lambda_l1=1.0))
fast = settings(max_examples=20, deadline=None)

_rng = np.random.default_rng(0)
YOLOV3_MAPS = tuple(jnp.asarray(_rng.normal(0, 1, (B, v.h, v.w, 2, 5 + C)), jnp.float32) for v in LEVELS)
YOLOV8_MAPS = tuple(
    tuple(jnp.asarray(_rng.normal(0, 1, (B, v.h, v.w, d)), jnp.float32) for v in LEVELS) for d in (4 * 8, C)
)
YOLOX_MAPS = tuple(
    tuple(jnp.asarray(_rng.normal(0, 1, (B, v.h, v.w, d)), jnp.float32) for v in LEVELS) for d in (4, 1, C)
)
LOSSES = {
    "yolov3": (lambda maps, t, h: yolov3_loss(maps, LEVELS, ANCHORS, t, h), YOLOV3_MAPS),
    "yolov3, CIoU": (
        lambda maps, t, h: yolov3_loss(maps, LEVELS, ANCHORS, t, h, box_loss=on_decoded_boxes(complete_box_iou_loss)),
        YOLOV3_MAPS,
    ),
    "yolox": (
        lambda maps, t, h: yolox_loss(*maps, LEVELS, t, h, assign=functools.partial(simota_assign, largest_k=4)),
        YOLOX_MAPS,
    ),
    "yolov8": (
        lambda maps, t, h: yolov8_loss(*maps, LEVELS, t, h, assign=functools.partial(task_aligned_assign, k=4)),
        YOLOV8_MAPS,
    ),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@functools.cache
def with_gradient(name):
    """The terms and the gradient of their total by the maps, in one program."""

    def total(*of):
        terms = LOSSES[name][0](*of)
        return terms.reduce()[0], terms

    return jax.jit(lambda *of: jax.grad(total, has_aux=True)(*of)[::-1])


def compiled(name):
    return lambda *of: with_gradient(name)(*of)[0]


coordinate = st.one_of(
    st.integers(0, 4).map(lambda i: 8.0 * i), st.floats(0, 32, width=32), st.sampled_from([-1e9, 1e9])
)
drawn = st.tuples(*[coordinate] * 4, st.integers(0, C - 1), st.booleans(), st.sampled_from([False, False, True]))
scenes = st.lists(drawn, min_size=B * M, max_size=B * M).map(
    lambda objects: as_targets(np.array(objects, np.float64).reshape(B, M, 7))
)


def as_targets(table):
    """Boxes may be inverted, empty or huge."""
    flags = table[..., 5:] > 0
    boxes, classes = table[..., :4].astype(np.float32), table[..., 4].astype(np.int32)
    return Targets(boxes, classes, flags[..., 0], flags[..., 1], np.zeros(len(table), np.int32))


@every_loss
@fast
@given(targets=scenes)
def test_finite_and_not_negative_with_finite_gradients(name, targets):
    terms, gradient = with_gradient(name)(LOSSES[name][1], targets, HYPER)
    for part in terms.sums.values():
        assert np.isfinite(part).all() and (np.asarray(part) >= 0).all()
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()


@every_loss
@fast
@given(targets=scenes)
def test_a_batch_is_the_sum_of_its_halves(name, targets):
    """What accumulation over micro-batches needs: sums and normalisers of an image do not depend on the others."""
    maps = LOSSES[name][1]
    whole = compiled(name)(maps, targets, HYPER)
    maps = jax.device_get(maps)
    halves = [
        compiled(name)(*jax.tree.map(lambda a, s=s: a[s], (maps, targets)), HYPER) for s in (slice(2), slice(2, 4))
    ]
    joined = jax.tree.map(lambda *a: np.concatenate(a), *halves)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(joined), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.reduce()[0], LossTerms(*joined).reduce()[0], rtol=1e-5)


@every_loss
@fast
@given(targets=scenes, order=st.permutations(range(M)))
def test_order_and_padding_are_irrelevant(name, targets, order):
    mixed = Targets(*(a[:, order].copy() for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = 10**6
    first, second = (compiled(name)(LOSSES[name][1], t, HYPER) for t in (targets, mixed))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@every_loss
@fast
@given(targets=scenes, factor=st.floats(0, 100, width=32))
def test_each_lambda_scales_its_part_alone(name, targets, factor):
    maps = LOSSES[name][1]
    plain = compiled(name)(maps, targets, HYPER)
    lambdas = {
        "box": "lambda_coord",
        "cls": "lambda_cls",
        "dfl": "lambda_dfl",
        "obj": "lambda_obj",
        "noobj": "lambda_noobj",
        "l1": "lambda_l1",
    }
    for part in plain.sums:
        field = lambdas[part]
        scaled = compiled(name)(maps, targets, HYPER._replace(**{field: getattr(HYPER, field) * jnp.float32(factor)}))
        for other, value in scaled.sums.items():
            expected = plain.sums[other] * (factor if other == part else 1)
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert with_gradient(name)._cache_size() <= 3  # whole batches, halves, shards: a new value compiles nothing


@every_loss
def test_a_batch_sharded_over_devices_gives_the_same(name):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    low = np.random.default_rng(1).uniform(0, 20, (B, M, 2))
    table = np.concatenate([low, low + 10, np.ones((B, M, 2)), np.zeros((B, M, 1))], -1)
    inputs = LOSSES[name][1], as_targets(table)
    spread = jax.device_put(inputs, NamedSharding(mesh, PartitionSpec("data")))
    one, two = (jax.tree.leaves(with_gradient(name)(*given, HYPER)) for given in (inputs, spread))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


side = st.floats(0.5, 100, width=32)
box = st.tuples(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32), side, side)
box_losses = jax.jit(
    lambda a, b: jnp.stack(
        [
            loss(a, b)
            for loss in (
                box_iou_loss,
                generalized_box_iou_loss,
                distance_box_iou_loss,
                complete_box_iou_loss,
                scylla_box_iou_loss,
            )
        ]
    )
)


def corner(b):
    return np.array([[b[0], b[1], b[0] + b[2], b[1] + b[3]]], np.float32)


@fast
@given(a=box, b=box)
def test_box_losses_are_ordered_and_bounded(a, b):
    iou, giou, diou, ciou, siou = np.asarray(box_losses(corner(a), corner(b)))[:, 0]
    tiny = 1e-5
    assert -tiny <= iou <= 1 + tiny and iou <= giou + tiny and giou <= 2 + tiny
    assert iou <= diou + tiny <= ciou + 2 * tiny and iou <= siou + tiny
    assert diou <= 2 + tiny and ciou <= 3 + tiny and siou <= 3 + tiny
    np.testing.assert_allclose(box_losses(corner(a), corner(a)), 0, atol=1e-5)


logit = st.floats(-30, 30, width=32)
class_losses = jax.jit(
    lambda x, y: jnp.stack([f(x, y) for f in (binary_cross_entropy, focal_loss, quality_focal_loss, varifocal_loss)])
)


@fast
@given(x=st.lists(logit, min_size=4, max_size=4), y=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_focal_relatives_never_exceed_the_cross_entropy(x, y):
    bce, focal, quality, varifocal = np.asarray(class_losses(np.float32(x), np.float32(y)))
    for part in (focal, quality, varifocal):
        assert (part >= 0).all() and (part <= bce * (1 + 1e-6)).all()


distribution = jax.jit(lambda z, y: distribution_focal_loss(z, y))


@fast
@given(z=st.lists(st.floats(-20, 20, width=32), min_size=8, max_size=8), y=st.floats(0, 7, width=32))
def test_distribution_focal_loss_is_least_at_the_two_bins_beside_the_target(z, y):
    low = min(int(y), 6)
    shares = np.full(8, 1e-30)
    shares[low : low + 2] = np.maximum([low + 1 - y, y - low], 1e-30)
    best = float(distribution(np.float32([np.log(shares)]), np.float32([y]))[0])
    assert best <= float(distribution(np.float32([z]), np.float32([y]))[0]) + 1e-5
