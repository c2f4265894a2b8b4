"""Laws of the IoU family on arbitrary boxes: symmetry, bounds, order, invariance, and what `jit` and `vmap` keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from yolojax import boxes as B

LAWS = settings(max_examples=40, deadline=None)
MATRIX = {f.__name__: f for f in (B.box_iou, B.generalized_box_iou, B.distance_box_iou, B.complete_box_iou)}
LOWER = {"box_iou": 0.0, "generalized_box_iou": -1.0, "distance_box_iou": -1.0, "complete_box_iou": -2.0}
JITTED = {name: jax.jit(f) for name, f in MATRIX.items()}
SIOU = jax.jit(B.paired_scylla_box_iou)

any_boxes = hnp.arrays(np.float32, (5, 4), elements=st.floats(-1e9, 1e9, width=32))
"""Any coordinates at all: half of the boxes are inverted."""

grid_boxes = hnp.arrays(np.float32, (5, 2, 2), elements=st.integers(0, 64).map(float)).map(
    lambda c: np.sort(c, axis=1).reshape(5, 4)
)
"""Ordered boxes with small integer corners: equal edges, touching and empty boxes are common, arithmetic is exact."""


@pytest.mark.parametrize("name", MATRIX)
@given(a=any_boxes, b=any_boxes)
@LAWS
def test_bounds(name, a, b):
    value = np.asarray(JITTED[name](jnp.asarray(a), jnp.asarray(b)))
    assert np.isfinite(value).all() and (value >= LOWER[name] - 1e-5).all() and (value <= 1 + 1e-6).all()


@pytest.mark.parametrize("name", MATRIX)
@given(a=any_boxes, b=grid_boxes)
@LAWS
def test_symmetry(name, a, b):
    f = JITTED[name]
    np.testing.assert_allclose(f(jnp.asarray(a), jnp.asarray(b)), f(jnp.asarray(b), jnp.asarray(a)).T, atol=1e-6)
    np.testing.assert_allclose(SIOU(jnp.asarray(a), jnp.asarray(b)), SIOU(jnp.asarray(b), jnp.asarray(a)), atol=1e-6)


@given(a=any_boxes, b=any_boxes)
@LAWS
def test_every_variant_is_at_most_iou(a, b):
    a, b = jnp.asarray(a), jnp.asarray(b)
    iou, giou, diou, ciou = (np.asarray(f(a, b)) for f in JITTED.values())
    assert (giou <= iou).all() and (diou <= iou).all()
    assert (ciou <= diou + 1e-6).all()  # two programs, which round the last bit of the distance term each their way
    assert (np.asarray(SIOU(a, b)) <= np.diagonal(iou) + 1e-6).all()


@pytest.mark.parametrize("name", MATRIX)
@given(a=grid_boxes)
@LAWS
def test_a_box_overlaps_itself_fully(name, a):
    filled = (a[:, 2] > a[:, 0]) & (a[:, 3] > a[:, 1])
    value = np.diagonal(JITTED[name](jnp.asarray(a), jnp.asarray(a)))
    np.testing.assert_array_equal(value, filled.astype(np.float32))
    np.testing.assert_array_equal(SIOU(jnp.asarray(a), jnp.asarray(a)), filled.astype(np.float32))


@pytest.mark.parametrize("name", MATRIX)
@given(a=grid_boxes, b=grid_boxes, dx=st.integers(-64, 64), dy=st.integers(-64, 64), power=st.integers(-8, 8))
@LAWS
def test_translation_and_scale_change_nothing(name, a, b, dx, dy, power):
    f = JITTED[name]
    base = f(jnp.asarray(a), jnp.asarray(b))
    shift = np.array([dx, dy, dx, dy], np.float32)
    np.testing.assert_array_equal(f(jnp.asarray(a + shift), jnp.asarray(b + shift)), base)
    scale = np.float32(2.0**power)  # exact in binary, so the results must be the same bits
    np.testing.assert_array_equal(f(jnp.asarray(a * scale), jnp.asarray(b * scale)), base)


@given(a=any_boxes, b=any_boxes)
@LAWS
def test_iou_is_the_same_bits_eager_compiled_paired_and_mapped(a, b):
    a, b = jnp.asarray(a), jnp.asarray(b)
    base = np.asarray(JITTED["box_iou"](a, b))
    np.testing.assert_array_equal(B.box_iou(a, b), base)
    np.testing.assert_array_equal(B.paired_box_iou(a, b), np.diagonal(base))
    np.testing.assert_array_equal(jax.vmap(B.box_iou)(jnp.stack([b, a]), jnp.stack([a, b]))[1], base)
    np.testing.assert_array_equal(B.box_iou(jnp.stack([b, a]), jnp.stack([a, b]))[1], base)


@given(boxes=grid_boxes)
@LAWS
def test_conversions_are_inverse(boxes):
    x = jnp.asarray(boxes)
    np.testing.assert_array_equal(B.xywh_to_xyxy(B.xyxy_to_xywh(x)), boxes)
    np.testing.assert_array_equal(B.cxcywh_to_xyxy(B.xyxy_to_cxcywh(x)), boxes)
    np.testing.assert_array_equal(B.cxcywh_to_xywh(B.xyxy_to_cxcywh(x)), B.xyxy_to_xywh(x))
    np.testing.assert_array_equal(B.xywh_to_cxcywh(B.xyxy_to_xywh(x)), B.xyxy_to_cxcywh(x))
    np.testing.assert_allclose(B.denormalise_boxes(B.normalise_boxes(x, (48, 80)), (48, 80)), boxes, rtol=1e-6)


@given(boxes=any_boxes)
@LAWS
def test_clipping_is_idempotent_and_lands_inside(boxes):
    clipped = B.clip_boxes(jnp.asarray(boxes), (30, 40))
    np.testing.assert_array_equal(B.clip_boxes(clipped, (30, 40)), clipped)
    assert ((np.asarray(clipped) >= 0) & (np.asarray(clipped) <= [40, 30, 40, 30])).all()


def test_compiled_once_for_a_shape():
    compiled = jax.jit(lambda a, b: B.complete_box_iou(a, b))
    for seed in range(3):
        compiled(jax.random.normal(jax.random.key(seed), (6, 4)), jnp.zeros((2, 4)))
    assert compiled._cache_size() == 1
