"""Laws of suppression on arbitrary boxes: what is kept, what it does not depend on, and what `jit` and `vmap` keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from yolojax.boxes import box_iou
from yolojax.nms import batched_nms, greedy_nms, nms, soft_nms_gaussian
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates

LAWS = settings(max_examples=40, deadline=None)
N = 24

boxes_ = hnp.arrays(np.float32, (N, 2, 2), elements=st.integers(0, 24).map(float)).map(
    lambda c: np.sort(c, axis=1).reshape(N, 4)
)
"""Small integer corners: overlaps exactly at a threshold, equal, nested and empty boxes are common."""

distinct = st.permutations(range(N)).map(lambda p: (np.array(p, np.float32) + 1) / (N + 1))
tied = hnp.arrays(np.float32, N, elements=st.sampled_from([0.25, 0.5, 0.75]))
classes_ = hnp.arrays(np.int32, N, elements=st.integers(0, 2))
masks = hnp.arrays(bool, N)
thresholds = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])

NMS = jax.jit(lambda b, s, t, v: nms(b, s, t, N, valid=v))
NMS_5 = jax.jit(lambda b, s, t, v: nms(b, s, t, 5, valid=v))
BATCHED = jax.jit(lambda b, s, c, t: batched_nms(b, s, c, t, N))
IOU = jax.jit(box_iou)
ALL = np.ones(N, bool)


def kept(boxes, scores, threshold, valid=ALL, f=NMS):
    indices, exist = (np.asarray(x) for x in f(jnp.asarray(boxes), jnp.asarray(scores), threshold, jnp.asarray(valid)))
    return indices[exist]


def kept_by_class(boxes, scores, classes, threshold):
    indices, exist = (np.asarray(x) for x in BATCHED(*(jnp.asarray(x) for x in (boxes, scores, classes)), threshold))
    return indices[exist]


@given(boxes=boxes_, scores=tied, threshold=thresholds, valid=masks)
@LAWS
def test_kept_boxes_do_not_overlap_and_explain_every_other(boxes, scores, threshold, valid):
    rows = kept(boxes, scores, threshold, valid)
    over = np.asarray(IOU(jnp.asarray(boxes), jnp.asarray(boxes))) > np.float32(threshold)
    assert valid[rows].all()
    assert not (over[np.ix_(rows, rows)] & ~np.eye(len(rows), dtype=bool)).any()
    before = (scores[:, None] > scores) | ((scores[:, None] == scores) & (np.arange(N)[:, None] < np.arange(N)))
    for row in set(np.flatnonzero(valid)) - set(rows):
        assert (over[rows, row] & before[rows, row]).any()
    assert (np.diff(scores[rows]) <= 0).all()


@given(boxes=boxes_, scores=tied, threshold=thresholds)
@LAWS
def test_idempotent(boxes, scores, threshold):
    rows = kept(boxes, scores, threshold)
    again = np.zeros(N, bool)
    again[rows] = True
    np.testing.assert_array_equal(kept(boxes, scores, threshold, again), rows)


@given(boxes=boxes_, scores=tied, threshold=thresholds, drop=masks)
@LAWS
def test_a_suppressed_box_never_changes_what_is_kept(boxes, scores, threshold, drop):
    rows = kept(boxes, scores, threshold)
    without = ~drop
    without[rows] = True
    np.testing.assert_array_equal(kept(boxes, scores, threshold, without), rows)


@given(boxes=boxes_, scores=distinct, threshold=thresholds, order=st.permutations(range(N)))
@LAWS
def test_the_order_of_rows_does_not_matter_where_scores_differ(boxes, scores, threshold, order):
    rows = kept(boxes, scores, threshold)
    np.testing.assert_array_equal(np.array(order)[kept(boxes[order], scores[order], threshold)], rows)


@given(boxes=boxes_, scores=tied, threshold=thresholds, dx=st.integers(-64, 64), power=st.integers(-4, 4))
@LAWS
def test_translation_and_scale_change_nothing(boxes, scores, threshold, dx, power):
    rows = kept(boxes, scores, threshold)
    np.testing.assert_array_equal(kept(boxes + np.float32(dx), scores, threshold), rows)
    np.testing.assert_array_equal(kept(boxes * np.float32(2.0**power), scores, threshold), rows)


@given(boxes=boxes_, scores=tied, classes=classes_, threshold=thresholds)
@LAWS
def test_classes_are_suppressed_each_by_itself(boxes, scores, classes, threshold):
    rows = kept_by_class(boxes, scores, classes, threshold)
    for c in range(3):
        np.testing.assert_array_equal(rows[classes[rows] == c], kept(boxes, scores, threshold, classes == c))
    np.testing.assert_array_equal(kept_by_class(boxes, scores, classes * 0, threshold), kept(boxes, scores, threshold))


@given(boxes=boxes_, scores=tied, threshold=thresholds)
@LAWS
def test_fewer_detections_are_the_first_of_more(boxes, scores, threshold):
    np.testing.assert_array_equal(kept(boxes, scores, threshold, f=NMS_5), kept(boxes, scores, threshold)[:5])


SOFT = jax.jit(lambda b, s: soft_nms_gaussian(b, s, None, N, score_threshold=0.0))


@given(boxes=boxes_, scores=distinct)
@LAWS
def test_soft_suppression_takes_every_box_once_and_raises_no_score(boxes, scores):
    got = SOFT(jnp.asarray(boxes), jnp.asarray(scores))
    np.testing.assert_array_equal(np.sort(got.indices), np.arange(N))
    assert (np.asarray(got.scores) <= scores[got.indices]).all()
    assert (np.diff(got.scores) <= 0).all()


POST = jax.jit(lambda c, t: postprocess(c, 0.3, t, max_detections=N, multi_label=True))


@given(boxes=boxes_, threshold=thresholds, order=st.permutations(range(N)), scores=st.permutations(range(3 * N)))
@LAWS
def test_the_order_of_candidates_does_not_matter_where_scores_differ(boxes, threshold, order, scores):
    scores = (np.array(scores, np.float32).reshape(N, 3) + 1) / (3 * N + 1)
    both = Candidates(jnp.stack([boxes, boxes[order]]), jnp.stack([scores, scores[order]]))
    for x in POST(both, threshold):
        np.testing.assert_array_equal(x[0], x[1])


def example(seed, n=40):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (n, 2))], 1).astype(np.float32)
    return jnp.asarray(boxes), jnp.asarray(rng.random(n).astype(np.float32)), jnp.asarray(rng.integers(0, 2, n))


@pytest.mark.slow  # tens of seconds of tracing
def test_mapped_equals_one_after_another_and_eager():
    """Also mapped twice, and mapped over one argument alone."""

    def f(boxes, scores, classes, threshold):
        return batched_nms(boxes, scores, classes, threshold, 40)

    one = jax.jit(f)
    batch = [jnp.stack(x) for x in zip(*(example(s) for s in range(4)), strict=True)]
    grid = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    over_images = jax.vmap(f, (0, 0, 0, None))
    mapped = jax.jit(over_images)(*batch, 0.4)
    twice = jax.jit(jax.vmap(over_images, (0, 0, 0, None)))(*grid, 0.4)
    for i in range(4):
        expected = one(*(x[i] for x in batch), 0.4)
        for got in (jax.tree.map(lambda x, i=i: x[i], mapped), jax.tree.map(lambda x, i=i: x[i // 2, i % 2], twice)):
            np.testing.assert_array_equal(got.indices, expected.indices)
            np.testing.assert_array_equal(got.valid, expected.valid)
    sweep = jax.jit(jax.vmap(f, (None, None, None, 0)))(*example(0), jnp.array([0.1, 0.4, 0.9]))
    np.testing.assert_array_equal(sweep.indices[1], one(*example(0), 0.4).indices)
    np.testing.assert_array_equal(f(*example(0), 0.4).indices, sweep.indices[1])
    assert sweep.valid[0].sum() < sweep.valid[2].sum()


def test_compiled_once_for_a_shape_whatever_the_threshold():
    f = jax.jit(lambda b, s, t: nms(b, s, t, 10))
    for seed, threshold in enumerate((0.1, 0.5, 0.9)):
        f(*example(seed)[:2], threshold)
    assert f._cache_size() == 1


def test_split_over_devices_equals_whole():
    """Inside `jax.shard_map`, which tells values that differ between devices from constants."""
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    images = [jnp.stack(x) for x in zip(*(example(s) for s in range(4)), strict=True)]
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    f = jax.vmap(lambda b, s, c: batched_nms(b, s, c, 0.4, 40))
    split = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(*images)
    for a, b in zip(split, jax.jit(f)(*images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_kept_rows_pass_a_gradient_on_and_the_choice_of_them_has_none():
    boxes, scores, _ = example(1)

    @jax.jit
    def gradient(boxes, scores):
        def loss(boxes, scores):
            kept = nms(boxes, scores, 0.4, 40)
            return jnp.sum(jnp.where(kept.valid, scores[kept.indices], 0.0)), kept

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(boxes, scores)

    (by_boxes, by_scores), (indices, valid) = gradient(boxes, scores)
    assert not by_boxes.any()
    np.testing.assert_array_equal(by_scores, np.isin(np.arange(40), indices[valid]).astype(np.float32))


def test_bfloat16_in_float32_out():
    boxes, scores, classes = example(3)
    half = boxes.astype(jnp.bfloat16), scores.astype(jnp.bfloat16)
    f = jax.jit(lambda b, s: greedy_nms(b, s, classes, 40, iou_threshold=0.4))
    got, expected = f(*half), f(*(x.astype(jnp.float32) for x in half))
    assert got.scores.dtype == jnp.float32
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
