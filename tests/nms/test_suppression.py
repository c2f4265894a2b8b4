"""Every kind of suppression against its paper's algorithm, written out in NumPy with float64 and one pair at a time."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import nms
from yolojax.errors import ConfigError


def make_boxes(seed, n=48):
    """Clusters, with classes, and with scores that all differ, so that no result hangs on rounding."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, 200, (8, 2)), rng.uniform(20, 90, (8, 2))
    of = rng.integers(0, 8, n)
    centre = centre[of] + rng.normal(size=(n, 2)) * size[of] * 0.12
    size = size[of] * np.exp(rng.normal(size=(n, 2)) * 0.15)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
    scores = (rng.permutation(n) + 1).astype(np.float32) / (n + 1)
    return boxes, scores, rng.integers(0, 2, n).astype(np.int32)


def iou64(a, b):
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    area = [np.prod(x[2:] - x[:2]) for x in (a, b)]
    return size.prod() / (sum(area) - size.prod())


def diou64(a, b):
    hull = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    return iou64(a, b) - (((a[:2] + a[2:] - b[:2] - b[2:]) / 2) ** 2).sum() / (hull**2).sum()


# Each gives (index, score) pairs in any order; the test sorts them.


def greedy(boxes, scores, same, threshold, measure=iou64):
    waiting, kept = list(np.argsort(-scores)), []
    while waiting:
        best, *waiting = waiting
        kept.append((best, scores[best]))
        waiting = [j for j in waiting if not (same(best, j) and measure(boxes[best], boxes[j]) > threshold)]
    return kept


def soft(boxes, scores, same, penalty, score_threshold):
    """Figure 2 of the paper."""
    left, taken = dict(enumerate(scores.astype(np.float64))), []
    while left:
        best = max(left, key=left.get)
        taken.append((best, left.pop(best)))
        for j in left:
            if same(best, j):
                left[j] *= penalty(iou64(boxes[best], boxes[j]))
        left = {j: s for j, s in left.items() if s >= score_threshold}
    return taken


def matrix(boxes, scores, same, f, score_threshold):
    def better(j):
        return [i for i in range(len(scores)) if scores[i] > scores[j] and same(i, j)]

    out = []
    for j in range(len(scores)):
        ratios = [
            f(iou64(boxes[i], boxes[j])) / min([f(iou64(boxes[k], boxes[i])) for k in better(i)], default=1.0)
            for i in better(j)
        ]
        out.append((j, scores[j] * min(ratios, default=1.0)))
    return [(j, s) for j, s in out if s >= score_threshold]


def fast(boxes, scores, same, threshold):
    n = range(len(scores))
    return [
        (j, scores[j])
        for j in n
        if all(iou64(boxes[i], boxes[j]) <= threshold for i in n if scores[i] > scores[j] and same(i, j))
    ]


CASES = {
    "greedy": (partial(nms.greedy_nms, iou_threshold=0.45), partial(greedy, threshold=0.45)),
    "diou": (partial(nms.diou_nms, diou_threshold=0.4), partial(greedy, threshold=0.4, measure=diou64)),
    "soft_linear": (
        partial(nms.soft_nms_linear, iou_threshold=0.3, score_threshold=0.05),
        partial(soft, penalty=lambda iou: 1 - iou if iou >= 0.3 else 1.0, score_threshold=0.05),
    ),
    "soft_gaussian": (
        partial(nms.soft_nms_gaussian, sigma=0.5, score_threshold=0.01),
        partial(soft, penalty=lambda iou: np.exp(-(iou**2) / 0.5), score_threshold=0.01),
    ),
    "matrix_linear": (
        partial(nms.matrix_nms_linear, score_threshold=0.05),
        partial(matrix, f=lambda iou: 1 - iou, score_threshold=0.05),
    ),
    "matrix_gaussian": (
        partial(nms.matrix_nms_gaussian, sigma=0.5, score_threshold=0.05),
        partial(matrix, f=lambda iou: np.exp(-(iou**2) / 0.5), score_threshold=0.05),
    ),
    "fast": (partial(nms.fast_nms, iou_threshold=0.45), partial(fast, threshold=0.45)),
    "cluster": (partial(nms.cluster_nms, iou_threshold=0.45), partial(greedy, threshold=0.45)),
}


@cache
def compiled(name):
    """One program for 48 boxes with classes, of which a mask says which exist; it keeps at most 40."""
    return jax.jit(lambda boxes, scores, classes, valid: CASES[name][0](boxes, scores, classes, 40, valid=valid))


ALL = np.ones(48, bool)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_paper(name):
    oracle, kept = CASES[name][1], compiled(name)
    for seed in range(3):
        boxes, scores, classes = make_boxes(seed)
        valid = np.ones(48, bool)
        valid[5:9] = False
        rows = np.flatnonzero(valid)
        for by_class in (True, False):
            c = classes[rows] if by_class else np.zeros(len(rows))
            expected = oracle(boxes[rows].astype(np.float64), scores[rows], lambda i, j, c=c: c[i] == c[j])
            expected = sorted(((rows[i], s) for i, s in expected), key=lambda row: -row[1])[:40]
            got = kept(boxes, scores, classes if by_class else np.zeros(48, np.int32), valid)
            assert len(expected) < 44 and len(expected) == got.valid.sum()
            np.testing.assert_array_equal(got.valid, np.arange(40) < len(expected))
            np.testing.assert_array_equal(got.indices[: len(expected)], [i for i, _ in expected])
            np.testing.assert_allclose(got.scores[: len(expected)], [s for _, s in expected], rtol=1e-5)
            assert not got.indices[len(expected) :].any() and not got.scores[len(expected) :].any()
    assert kept._cache_size() == 1


@pytest.mark.parametrize("name", CASES)
def test_without_classes_all_boxes_compete(name):
    boxes, scores, _ = make_boxes(7)
    more = jax.jit(lambda boxes, scores: CASES[name][0](boxes, scores, None, 60))(boxes, scores)
    for a, b in zip(more, compiled(name)(boxes, scores, np.zeros(48, np.int32), ALL), strict=True):
        assert len(a) == 60 and not a[48:].any()  # more than there are boxes
        np.testing.assert_array_equal(a[:40], b)


@pytest.mark.parametrize("name", CASES)
def test_mapped_equals_one_after_another(name):
    batch = [np.stack(arrays) for arrays in zip(*((*make_boxes(s), ALL) for s in range(3)), strict=True)]
    mapped = jax.jit(jax.vmap(compiled(name)))(*batch)
    for i in range(3):
        for a, b in zip(mapped, compiled(name)(*(x[i] for x in batch)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_not_finite_empty_and_none(name):
    f = CASES[name][0]
    boxes, scores, classes = make_boxes(1)
    boxes[3, 2], boxes[8], scores[20], scores[21] = np.nan, np.inf, np.nan, np.inf
    got = compiled(name)(boxes, scores, classes, np.arange(48) < 40)  # all that exist could be kept
    assert not set(np.asarray(got.indices)[np.asarray(got.valid)]) & {3, 8, 20, 21}
    assert np.isfinite(got.scores).all()
    assert (np.diff(np.asarray(got.scores)) <= 0).all()

    empty = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    nothing = jax.jit(f, static_argnums=3)(*empty, 3)
    assert nothing.indices.shape == (3,) and not any(x.any() for x in nothing)
    with pytest.raises(ConfigError, match="max_detections is 0"):
        f(*map(jnp.asarray, (boxes, scores, classes)), 0)


@pytest.mark.parametrize("name", CASES)
def test_identical_boxes(name):
    """The first of three identical boxes keeps its score; nothing else is certain but order and finiteness."""
    boxes = np.broadcast_to(np.float32([3, 4, 30, 50]), (48, 4))
    scores = np.full(48, 2.0, np.float32)
    scores[:3] = 0.5, 0.9, 0.9
    got = compiled(name)(boxes, scores, np.zeros(48, np.int32), np.arange(48) < 3)
    assert got.indices[0] == 1 and got.scores[0] == jnp.float32(0.9)
    assert np.isfinite(got.scores).all()
    if not name.endswith("gaussian"):
        assert got.valid.sum() == 1


def test_fast_nms_removes_what_a_suppressed_box_overlaps_and_greedy_does_not():
    boxes = jnp.array([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = jnp.array([0.9, 0.8, 0.7])
    for f, kept in ((nms.fast_nms, [0]), (nms.cluster_nms, [0, 2]), (nms.greedy_nms, [0, 2])):
        got = jax.jit(partial(f, max_detections=3, iou_threshold=0.4))(boxes, scores, None)
        np.testing.assert_array_equal(got.indices[: len(kept)], kept)
        assert got.valid.sum() == len(kept)


def test_diou_spares_a_box_whose_centre_lies_apart():
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 19], [-2, -2, 12, 12]])  # IoU .526 and .51 with the first
    scores = jnp.array([0.9, 0.8, 0.7])
    greedy, spared = jax.jit(
        lambda *of: (nms.greedy_nms(*of, 3, iou_threshold=0.5), nms.diou_nms(*of, 3, diou_threshold=0.5))
    )(boxes, scores, None)
    assert greedy.valid.sum() == 1
    np.testing.assert_array_equal(spared.indices[spared.valid], [0, 1])
