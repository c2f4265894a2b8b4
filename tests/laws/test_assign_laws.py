"""Laws that hold for every assigner, on scenes that include equal, degenerate and outlying objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.assign import (
    Predictions,
    assign_targets,
    atss_assign,
    best_anchor_assign,
    one_to_one_assign,
    ratio_assign,
    simota_assign,
    task_aligned_assign,
)
from yolojax.boxes import paired_box_iou
from yolojax.coding import cell_centres
from yolojax.structures import Level, Targets

LEVELS = (Level(4, 5, 8), Level(2, 3, 16))
ANCHORS = jnp.array([[[6.0, 6.0], [10.0, 14.0]], [[24.0, 20.0], [40.0, 44.0]]])
POINTS, STRIDES = cell_centres(LEVELS)
B, M, C, N = 2, 4, 3, len(POINTS)

_rng = np.random.default_rng(0)
_REACH = np.asarray(STRIDES)[None, :, None] * _rng.uniform(0.3, 3, (2, B, N, 2))
PREDICTIONS = Predictions(
    jnp.asarray(np.concatenate([POINTS[None] - _REACH[0], POINTS[None] + _REACH[1]], -1), jnp.float32),
    jnp.asarray(_rng.normal(0, 2, (B, N, C)), jnp.float32),
    jnp.asarray(_rng.normal(0, 2, (B, N)), jnp.float32),
)


ASSIGNERS = {
    "task aligned": jax.jit(lambda t, predictions: task_aligned_assign(t, LEVELS, predictions, k=4)),
    "simota": jax.jit(lambda t, predictions: simota_assign(t, LEVELS, predictions)),
    "atss": jax.jit(lambda t, predictions: atss_assign(t, LEVELS, predictions, k=4, anchor_scale=2.0)),
    "ratio": jax.jit(lambda t, _: ratio_assign(t, LEVELS, ANCHORS)),
    "best anchor": jax.jit(lambda t, _: best_anchor_assign(t, LEVELS, ANCHORS, iou_thresh=0.3)),
    "one to one": jax.jit(lambda t, predictions: one_to_one_assign(t, LEVELS, predictions)),
}
best_anchor = jax.jit(lambda t: assign_targets(t, LEVELS, ANCHORS, C))

coordinate = st.one_of(st.integers(-1, 5).map(lambda i: 8.0 * i), st.floats(-8, 48, width=32, allow_subnormal=False))
side = st.one_of(st.sampled_from([0.0, 8.0, 16.0]), st.floats(0, 40, width=32, allow_subnormal=False))
mostly = st.sampled_from([True, True, True, False])
drawn_object = st.tuples(coordinate, coordinate, side, side, st.integers(0, C - 1), mostly, mostly.map(lambda x: not x))
scenes = st.lists(drawn_object, min_size=B * M, max_size=B * M).map(
    lambda objects: as_targets(np.array(objects, np.float64).reshape(B, M, 7))
)
fast = settings(max_examples=20, deadline=None)
every_assigner = pytest.mark.parametrize("assign", ASSIGNERS.values(), ids=ASSIGNERS)


def as_targets(table):
    boxes = np.concatenate([table[..., :2], table[..., :2] + table[..., 2:4]], -1).astype(np.float32)
    flags = table[..., 5:] > 0
    return Targets(boxes, table[..., 4].astype(np.int32), flags[..., 0], flags[..., 1], np.zeros(B, np.int32))


def reordered(targets, order):
    """Other order, garbage in the padding."""
    mixed = Targets(*(a[:, order].copy() for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = -(10**6)
    mixed.crowd[~mixed.valid] ^= True
    return mixed


def owned(got, targets):
    row = np.arange(B)[:, None]
    held = np.concatenate([targets.boxes[row, got.objects], targets.classes[row, got.objects][..., None]], -1)
    return np.where(np.asarray(got.positive)[..., None], held, 0)


@every_assigner
@fast
@given(targets=scenes)
def test_only_real_objects_own_predictions(assign, targets):
    got = jax.tree.map(np.asarray, assign(targets, PREDICTIONS))
    sizes = targets.boxes[..., 2:] - targets.boxes[..., :2]
    real = targets.valid & ~targets.crowd & (sizes > 0).all(-1)
    assert np.take_along_axis(real, got.objects, 1)[got.positive].all()
    assert not got.objects[~got.positive].any() and not got.scores[~got.positive].any()
    assert ((got.scores >= 0) & (got.scores <= 1 + 1e-6)).all()
    assert not got.positive[~real.any(-1)].any()


@every_assigner
@fast
@given(targets=scenes, order=st.permutations(range(M)))
def test_order_and_padding_are_irrelevant(assign, targets, order):
    mixed = reordered(targets, order)
    first, second = assign(targets, PREDICTIONS), assign(mixed, PREDICTIONS)
    np.testing.assert_array_equal(first.positive, second.positive)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(owned(first, targets), owned(second, mixed))


@every_assigner
@fast
@given(targets=scenes)
def test_images_know_nothing_of_each_other(assign, targets):
    swapped = assign(*jax.tree.map(lambda a: a[::-1], (targets, PREDICTIONS)))
    for a, b in zip(assign(targets, PREDICTIONS), swapped, strict=True):
        np.testing.assert_array_equal(a, b[::-1])


@fast
@given(targets=scenes)
def test_points_lie_inside_their_object(targets):
    for name in ("task aligned", "atss"):
        got = ASSIGNERS[name](targets, PREDICTIONS)
        boxes = owned(got, targets)[..., :4][np.asarray(got.positive)]
        points = np.broadcast_to(POINTS, (B, N, 2))[np.asarray(got.positive)]
        assert ((points > boxes[:, :2]) & (points < boxes[:, 2:])).all()


@fast
@given(targets=scenes)
def test_the_best_aligned_point_has_the_best_overlap_as_score(targets):
    """``max t_hat = max u`` over the positives of an object (arXiv 2108.07755, section 3.2.2)."""
    got = jax.tree.map(np.asarray, ASSIGNERS["task aligned"](targets, PREDICTIONS))
    for b in range(B):
        for m in range(M):
            own = np.flatnonzero(got.positive[b] & (got.objects[b] == m))
            if len(own):
                ious = paired_box_iou(PREDICTIONS[0][b, own], jnp.tile(targets.boxes[b, m], (len(own), 1)))
                np.testing.assert_allclose(got.scores[b, own].max(), ious.max(), rtol=1e-5)


@fast
@given(targets=scenes)
def test_one_to_one_gives_every_object_one_prediction(targets):
    got = jax.tree.map(np.asarray, ASSIGNERS["one to one"](targets, PREDICTIONS))
    sizes = targets.boxes[..., 2:] - targets.boxes[..., :2]
    real = targets.valid & ~targets.crowd & (sizes > 0).all(-1)
    for b in range(B):
        assert sorted(got.objects[b][got.positive[b]]) == list(np.flatnonzero(real[b]))


@fast
@given(targets=scenes, order=st.permutations(range(M)))
def test_best_anchor_owns_or_collides(targets, order):
    got = best_anchor(targets)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(best_anchor(reordered(targets, order))), strict=True):
        np.testing.assert_array_equal(a, b)
    sizes = targets.boxes[..., 2:] - targets.boxes[..., :2]
    real = targets.valid & ~targets.crowd & (sizes > 0).all(-1)
    owners = sum(np.asarray(p).sum((1, 2, 3)) for p in got.positive)
    np.testing.assert_array_equal(owners + np.asarray(got.collisions), real.sum(-1))
    for boxes, classes, positive, ignored in zip(got.boxes, got.classes, got.positive, got.ignored, strict=True):
        np.testing.assert_array_equal(classes.sum(-1), positive)
        assert not (positive & ignored).any()
        assert not np.asarray(boxes)[~np.asarray(positive)].any()
