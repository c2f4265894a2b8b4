"""Greedy suppression against torchvision's indices and a float64 loop, and every edge that the contract names."""

import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.nms import batched_nms, nms
from yolojax.nms.greedy import Rows, keep_by_blocks, keep_by_tiles

GOLDENS = pathlib.Path(__file__).parent.parent / "goldens"
GOLDEN = np.load(GOLDENS / "nms_torchvision.npz")
SCRIPT = runpy.run_path(str(GOLDENS / "make_nms_golden.py"))
NMS = jax.jit(nms, static_argnums=3)
BATCHED = jax.jit(batched_nms, static_argnums=4)


def greedy64(boxes, scores, threshold, classes=None):
    """The lesson's loop, in float64: indices kept, by falling score, equal scores by index."""
    boxes = np.asarray(boxes, np.float64)
    classes = np.zeros(len(boxes)) if classes is None else np.asarray(classes)
    usable = np.isfinite(boxes).all(1) & np.isfinite(scores)
    order = [i for i in np.argsort(-np.where(usable, scores, -np.inf), kind="stable") if usable[i]]
    kept = []
    while order:
        i, *rest = order
        kept.append(i)
        order = [j for j in rest if classes[i] != classes[j] or iou64(boxes[i], boxes[j]) <= threshold]
    return np.array(kept, np.int64)


def iou64(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0.0) * max(h, 0.0)
    area = [max(x[2] - x[0], 0.0) * max(x[3] - x[1], 0.0) for x in (a, b)]
    union = sum(area) - inter
    return inter / union if union else 0.0


def kept(result):
    """The kept indices; checks that valid rows come first and padding is index 0."""
    indices, valid = (np.asarray(x) for x in result)
    count = valid.sum()
    assert valid[:count].all() and not indices[count:].any()
    return indices[:count]


@pytest.mark.parametrize("n", [pytest.param(n, marks=pytest.mark.slow if n > 1000 else []) for n in SCRIPT["SIZES"]])
def test_equals_torchvision(n):
    for seed in range(SCRIPT["SEEDS"]):
        boxes, scores, classes = (jnp.asarray(x) for x in SCRIPT["case"](n, seed))
        for threshold in SCRIPT["thresholds"](n, seed):
            key = f"{n}/{seed}/{threshold}"
            np.testing.assert_array_equal(kept(NMS(boxes, scores, threshold, max(n, 1))), GOLDEN[f"{key}/nms"])
            got = kept(BATCHED(boxes, scores, classes, threshold, max(n, 1)))
            np.testing.assert_array_equal(got, GOLDEN[f"{key}/batched_nms"])


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_float64_loop(seed):
    boxes, scores, classes = SCRIPT["case"](10, 100 + seed)
    for threshold in (0.0, 0.45, 1.0):
        np.testing.assert_array_equal(
            kept(NMS(jnp.asarray(boxes), jnp.asarray(scores), threshold, 10)), greedy64(boxes, scores, threshold)
        )
        got = kept(BATCHED(boxes, jnp.asarray(scores), jnp.asarray(classes), threshold, 10))
        np.testing.assert_array_equal(got, greedy64(boxes, scores, threshold, classes))


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_a_pair_exactly_at_the_threshold_is_kept(threshold):
    tenths = round(threshold * 10)
    boxes = jnp.array([[0.0, 0, 100, 10], [0, 0, 10 * tenths, 10], [0, 0, 10 * tenths + 1, 10]])
    np.testing.assert_array_equal(kept(NMS(boxes[:2], jnp.array([0.9, 0.8]), threshold, 2)), [0, 1])
    np.testing.assert_array_equal(kept(NMS(boxes[::2], jnp.array([0.9, 0.8]), threshold, 2)), [0])


def test_equal_scores_keep_the_lower_index():
    boxes, _, _ = SCRIPT["case"](1000, 0)
    scores = np.full(1000, 0.5, np.float32)
    got = kept(NMS(jnp.asarray(boxes), jnp.asarray(scores), 0.5, 1000))
    np.testing.assert_array_equal(got, greedy64(boxes, scores, 0.5))
    assert (np.diff(got) > 0).all()


def test_identical_boxes_leave_the_best():
    boxes = jnp.broadcast_to(jnp.array([-20.0, -10, 5, 30]), (40, 4))
    scores = jnp.linspace(0.1, 0.9, 40)[jax.random.permutation(jax.random.key(0), 40)]
    np.testing.assert_array_equal(kept(NMS(boxes, scores, 0.99, 5)), [int(scores.argmax())])
    classes = jnp.arange(40) % 3
    assert sorted(np.asarray(classes)[kept(BATCHED(boxes, scores, classes, 0.99, 5))]) == [0, 1, 2]


def test_negative_zero_and_falling_below_zero():
    boxes = jnp.arange(5.0)[:, None] * 100 + jnp.array([[0.0, 0, 10, 10]])
    scores = jnp.array([-1.0, 0.0, -0.0, 2.0, -3.0])
    np.testing.assert_array_equal(kept(NMS(boxes, scores, 0.5, 5)), [3, 1, 2, 0, 4])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_never_kept_and_suppress_nothing(bad):
    boxes, scores, classes = SCRIPT["case"](1000, 3)
    clean = greedy64(boxes[100:], scores[100:], 0.5) + 100
    for column in range(4):
        boxes[column * 20 : column * 20 + 20, column] = bad
    scores[:80] = 2.0  # they would go first
    scores[80:100] = bad
    np.testing.assert_array_equal(kept(NMS(jnp.asarray(boxes), jnp.asarray(scores), 0.5, 1000)), clean)
    assert (kept(BATCHED(jnp.asarray(boxes), jnp.asarray(scores), jnp.asarray(classes), 0.5, 1000)) >= 100).all()


def test_empty_and_inverted_boxes_overlap_nothing():
    boxes = jnp.array([[5.0, 5, 5, 5], [5, 5, 5, 5], [9, 9, 1, 1], [0, 0, 10, 10], [0, 4, 10, 4]])
    np.testing.assert_array_equal(kept(NMS(boxes, jnp.linspace(1, 0.5, 5), 0.0, 5)), [0, 1, 2, 3, 4])


@pytest.mark.parametrize("k", [1, 65, 1500])
def test_fewer_or_more_than_survive(k):
    boxes, scores, classes = SCRIPT["case"](1000, 1)
    args = jnp.asarray(boxes), jnp.asarray(scores)
    indices, valid = NMS(*args, 0.5, k)
    assert indices.shape == valid.shape == (k,)
    np.testing.assert_array_equal(kept((indices, valid)), GOLDEN["1000/1/0.5/nms"][:k])
    got = kept(BATCHED(*args, jnp.asarray(classes), 0.5, k))
    np.testing.assert_array_equal(got, GOLDEN["1000/1/0.5/batched_nms"][:k])


def test_rows_that_are_not_valid_do_not_exist():
    boxes, scores, classes = SCRIPT["case"](1000, 2)
    valid = np.random.default_rng(0).random(1000) < 0.5
    rows = np.flatnonzero(valid)
    got = NMS(jnp.asarray(boxes), jnp.asarray(scores), 0.6, 1000, valid=jnp.asarray(valid))
    np.testing.assert_array_equal(kept(got), rows[greedy64(boxes[rows], scores[rows], 0.6)])
    got = BATCHED(*(jnp.asarray(x) for x in (boxes, scores, classes)), 0.6, 1000, valid=jnp.zeros(1000, bool))
    assert kept(got).size == 0


def test_classes_are_told_apart_at_any_coordinate():
    """Moving boxes apart by class would round these away: 1e6 pixels times 80 classes."""
    boxes = jnp.broadcast_to(jnp.array([1e6, 1e6, 1e6 + 1, 1e6 + 1]), (160, 4)) + jnp.arange(160)[:, None] // 80 * 0.25
    classes = jnp.tile(jnp.arange(80), 2) - 40
    got = kept(BATCHED(boxes, jnp.linspace(1, 0.1, 160), classes, 0.3, 200))
    np.testing.assert_array_equal(got, np.arange(80))


def test_no_detection_can_be_asked_for():
    with pytest.raises(ConfigError, match="max_detections is 0"):
        nms(jnp.zeros((3, 4)), jnp.zeros(3), 0.5, 0)


def chain(n):
    """Every box suppresses the next one alone: the longest possible dependency."""
    x = np.arange(n, dtype=np.float32)[:, None] * 4
    return jnp.asarray(np.concatenate([x, x * 0, x + 10, x * 0 + 10], axis=1))


def rows_of(name):
    if name == "chain":
        return chain(700), None
    boxes, scores, classes = SCRIPT["case"](1000, 5)
    order = np.argsort(-scores, kind="stable")
    if name == "by_class":
        order = order[np.argsort(classes[order], kind="stable")]
    return jnp.asarray(boxes[order]), None if name == "agnostic" else jnp.asarray(classes[order])


@pytest.mark.parametrize("name", ["agnostic", "classes", "by_class", "chain"])
def test_both_algorithms_are_the_greedy_one(name):
    """The one for accelerators too, which the platform of this test would not choose."""
    boxes, classes = rows_of(name)
    rows, count, threshold = Rows.of(boxes, classes), len(boxes) - 7, jnp.float32(0.3)
    by_class = name == "by_class"
    tiles = jax.jit(lambda r: keep_by_tiles(r, jnp.int32(count), threshold, limit=None, by_class=by_class))(rows)
    twice = rows.map(lambda x: jnp.stack([x, x]))
    counts = jnp.array([count, 100], jnp.int32)
    blocks = jax.jit(lambda r: keep_by_blocks(r, counts, jnp.full(2, threshold), limit=None))(twice)
    order = greedy64(boxes[:count], -np.arange(count), 0.3, classes if classes is None else classes[:count])
    expected = np.zeros(len(boxes), bool)
    expected[order] = True
    np.testing.assert_array_equal(tiles, expected)
    np.testing.assert_array_equal(blocks[0], expected)
    np.testing.assert_array_equal(blocks[1, :100], expected[:100])
    assert not blocks[1, 100:].any()
    if name == "chain":
        np.testing.assert_array_equal(expected[:count], np.arange(count) % 2 == 0)


def test_a_limit_stops_early_but_never_before_enough_are_kept():
    boxes, classes = rows_of("agnostic")
    rows = Rows.of(boxes, classes)

    @jax.jit
    def keep(rows):
        count, threshold = jnp.int32(1000), jnp.float32(0.5)
        full, tiles = (keep_by_tiles(rows, count, threshold, limit=limit, by_class=False) for limit in (None, 40))
        one = rows.map(lambda x: x[None])
        return full, tiles, keep_by_blocks(one, count[None], threshold[None], limit=40)[0]

    full, tiles, blocks = jax.device_get(keep(rows))
    for keep in (tiles, blocks):
        assert 40 <= keep.sum() < full.sum()
        last = np.flatnonzero(keep)[-1]
        np.testing.assert_array_equal(keep[:last], full[:last])
