"""Every kind of suppression against its paper's algorithm, written out in NumPy with float64 and one pair at a time."""

from functools import partial

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


@pytest.mark.parametrize("name", CASES)
def test_equals_the_paper(name):
    f, oracle = CASES[name]
    kept = jax.jit(f, static_argnums=3)
    for seed in range(3):
        boxes, scores, classes = make_boxes(seed)
        valid = np.ones(48, bool)
        valid[5:9] = False
        rows = np.flatnonzero(valid)
        for by_class in (True, False):
            c = classes[rows] if by_class else np.zeros(len(rows))
            expected = oracle(boxes[rows].astype(np.float64), scores[rows], lambda i, j, c=c: c[i] == c[j])
            expected = sorted(((rows[i], s) for i, s in expected), key=lambda row: -row[1])[:40]
            # `None` and one class for all are the same question; both signatures are compiled once.
            given = jnp.asarray(classes) if by_class else jnp.zeros(48, jnp.int32)
            got = kept(jnp.asarray(boxes), jnp.asarray(scores), given, 40, valid=jnp.asarray(valid))
            assert len(expected) < 44 and len(expected) == got.valid.sum()
            np.testing.assert_array_equal(got.valid, np.arange(40) < len(expected))
            np.testing.assert_array_equal(got.indices[: len(expected)], [i for i, _ in expected])
            np.testing.assert_allclose(got.scores[: len(expected)], [s for _, s in expected], rtol=1e-5)
            assert not got.indices[len(expected) :].any() and not got.scores[len(expected) :].any()
    assert kept._cache_size() == 1


@pytest.mark.parametrize("name", CASES)
def test_without_classes_all_boxes_compete(name):
    boxes, scores, _ = make_boxes(7)
    f = jax.jit(CASES[name][0], static_argnums=3)
    args = jnp.asarray(boxes), jnp.asarray(scores)
    for a, b in zip(f(*args, None, 60), f(*args, jnp.zeros(48, jnp.int32), 60), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_mapped_equals_one_after_another(name):
    f = partial(CASES[name][0], max_detections=20)
    batch = [
        jnp.stack([jnp.asarray(x) for x in arrays]) for arrays in zip(*(make_boxes(s) for s in range(3)), strict=True)
    ]
    mapped = jax.jit(jax.vmap(lambda b, s, c: f(b, s, c)))(*batch)
    one = jax.jit(lambda b, s, c: f(b, s, c))
    for i in range(3):
        for a, b in zip(mapped, one(*(x[i] for x in batch)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_not_finite_empty_and_none(name):
    f = CASES[name][0]
    boxes, scores, classes = (jnp.asarray(x) for x in make_boxes(1))
    boxes = boxes.at[3, 2].set(jnp.nan).at[8].set(jnp.inf)
    scores = scores.at[20].set(jnp.nan).at[21].set(jnp.inf)
    got = jax.jit(f, static_argnums=3)(boxes, scores, classes, 48)
    assert not set(np.asarray(got.indices)[np.asarray(got.valid)]) & {3, 8, 20, 21}
    assert np.isfinite(got.scores).all()
    assert (np.diff(np.asarray(got.scores)) <= 0).all()

    nothing = f(jnp.zeros((0, 4)), jnp.zeros(0), jnp.zeros(0, jnp.int32), 3)
    assert nothing.indices.shape == (3,) and not any(x.any() for x in nothing)
    with pytest.raises(ConfigError, match="max_detections is 0"):
        f(boxes, scores, classes, 0)


@pytest.mark.parametrize("name", CASES)
def test_identical_boxes(name):
    """The first of three identical boxes keeps its score; nothing else is certain but order and finiteness."""
    boxes = jnp.broadcast_to(jnp.array([[3.0, 4, 30, 50]]), (3, 4))
    got = CASES[name][0](boxes, jnp.array([0.5, 0.9, 0.9]), None, 3)
    assert got.indices[0] == 1 and got.scores[0] == jnp.float32(0.9)
    assert np.isfinite(got.scores).all()
    if not name.endswith("gaussian"):
        assert got.valid.sum() == 1


def test_fast_nms_removes_what_a_suppressed_box_overlaps_and_greedy_does_not():
    boxes = jnp.array([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = jnp.array([0.9, 0.8, 0.7])
    for f, kept in ((nms.fast_nms, [0]), (nms.cluster_nms, [0, 2]), (nms.greedy_nms, [0, 2])):
        got = f(boxes, scores, None, 3, iou_threshold=0.4)
        np.testing.assert_array_equal(got.indices[: len(kept)], kept)
        assert got.valid.sum() == len(kept)


def test_diou_spares_a_box_whose_centre_lies_apart():
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 19], [-2, -2, 12, 12]])  # IoU .526 and .51 with the first
    scores = jnp.array([0.9, 0.8, 0.7])
    assert nms.greedy_nms(boxes, scores, None, 3, iou_threshold=0.5).valid.sum() == 1
    spared = nms.diou_nms(boxes, scores, None, 3, diou_threshold=0.5)
    np.testing.assert_array_equal(spared.indices[spared.valid], [0, 1])
