"""`task_aligned_assign` against a loop over images, objects and points that follows the paper step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import inside_crowd, task_aligned_assign
from yolojax.coding import cell_centres
from yolojax.structures import Level, Targets

LEVELS = (Level(8, 8, 8), Level(4, 4, 16), Level(2, 2, 32))
CANVAS, B, M, C, K = 64, 2, 6, 3, 5


def iou(a, b):
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0


def content(box, label):
    return ((box[2] - box[0]) * (box[3] - box[1]), *box, label)


def oracle(points, boxes, logits, targets, alpha, beta, k):
    """Arrays ``objects, positive, scores``, in float64."""
    batch, n = boxes.shape[:2]
    owner, score = np.full((batch, n), -1), np.zeros((batch, n))
    for b in range(batch):
        objects = [m for m in range(M) if targets.valid[b, m] and not targets.crowd[b, m]]
        alignment, overlap, wanted = {}, {}, [[] for _ in range(n)]
        for m in objects:
            box = targets.boxes[b, m]
            for i, (x, y) in enumerate(points):
                if box[0] < x < box[2] and box[1] < y < box[3]:
                    s = 1 / (1 + np.exp(-logits[b, i, targets.classes[b, m]]))
                    overlap[m, i] = iou(box, boxes[b, i])
                    alignment[m, i] = s**alpha * overlap[m, i] ** beta
            inside = [i for i in range(n) if alignment.get((m, i), 0) > 0]
            for i in sorted(inside, key=lambda i, m=m: (-alignment[m, i], i))[:k]:
                wanted[i].append(m)
        for i, wanting in enumerate(wanted):
            if wanting:
                owner[b, i] = min(
                    wanting, key=lambda m, i=i: (-overlap[m, i], content(targets.boxes[b, m], targets.classes[b, m]))
                )
        for m in objects:
            own = np.flatnonzero(owner[b] == m)
            if len(own):
                top = max(alignment[m, i] for i in own)
                score[b, own] = [alignment[m, i] / top * max(overlap[m, j] for j in own) for i in own]
    return np.maximum(owner, 0), owner >= 0, score


def scene(rng, case="random"):
    low = rng.uniform(0, CANVAS * 0.7, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, CANVAS * 0.5, (B, M, 2))], -1)
    if case == "one place":  # all objects on top of each other, in two sizes: more objects than points to go round
        boxes[:] = [16, 16, 30, 30]
        boxes[:, ::2] += [0, 0, 4, 4]
    if case == "smaller than a stride":
        boxes = np.concatenate([low, low + rng.uniform(0.5, 3, (B, M, 2))], -1)
    valid = np.ones((B, M), bool) if case != "none" else np.zeros((B, M), bool)
    valid[0, 4:] = False
    crowd = np.zeros((B, M), bool)
    crowd[1, 1] = True
    return Targets(
        boxes.astype(np.float32),
        rng.integers(0, C, (B, M)).astype(np.int32),
        valid,
        crowd,
        np.zeros(B, np.int32),
    )


def predictions(rng, points, spread=12.0):
    low = points[None] - rng.uniform(1, spread, (B, len(points), 2))
    high = points[None] + rng.uniform(1, spread, (B, len(points), 2))
    logits = rng.normal(0, 2, (B, len(points), C))
    return np.concatenate([low, high], -1).astype(np.float32), logits.astype(np.float32)


POINTS = np.asarray(cell_centres(LEVELS)[0])
assign = jax.jit(lambda boxes, logits, targets: task_aligned_assign(jnp.asarray(POINTS), boxes, logits, targets, k=K))


@pytest.mark.parametrize("case", ["random", "one place", "smaller than a stride", "none"])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_loop_of_the_paper(case, seed):
    rng = np.random.default_rng(seed)
    targets = scene(rng, case)
    boxes, logits = predictions(rng, POINTS)
    if case == "one place":  # a tie in the overlap of two objects: the content of the objects decides
        boxes[:] = [16, 16, 32, 32]
    got = assign(boxes, logits, targets)
    objects, positive, scores = oracle(POINTS, boxes.astype(np.float64), logits, targets, 0.5, 6.0, K)
    np.testing.assert_array_equal(got.positive, positive)
    np.testing.assert_array_equal(content_of(got.objects, targets), content_of(objects, targets))
    np.testing.assert_allclose(got.scores, scores, rtol=2e-5, atol=1e-7)
    assert positive.any() == (case in ("random", "one place") or bool(np.asarray(got.positive).any()))


def content_of(objects, targets):
    """Boxes and classes instead of row numbers: objects equal in everything are interchangeable."""
    row = np.arange(B)[:, None]
    return np.concatenate([targets.boxes[row, objects], targets.classes[row, objects][..., None]], -1)


def test_the_papers_exponents_are_arguments():
    rng = np.random.default_rng(7)
    targets = scene(rng)
    boxes, logits = predictions(rng, POINTS)
    got = jax.jit(lambda *a: task_aligned_assign(jnp.asarray(POINTS), *a, alpha=1.0, beta=2.0, k=3))(
        boxes, logits, targets
    )
    objects, positive, scores = oracle(POINTS, boxes.astype(np.float64), logits, targets, 1.0, 2.0, 3)
    np.testing.assert_array_equal(got.positive, positive)
    np.testing.assert_array_equal(got.objects, objects)
    np.testing.assert_allclose(got.scores, scores, rtol=2e-5)


def test_order_and_padding_of_objects_do_not_matter():
    rng = np.random.default_rng(3)
    targets = scene(rng, "one place")
    boxes, logits = predictions(rng, POINTS)
    first = assign(boxes, logits, targets)
    order = rng.permutation(M)
    mixed = Targets(*(a[:, order] for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = 10**6
    second = assign(boxes, logits, mixed)
    np.testing.assert_array_equal(first.positive, second.positive)
    np.testing.assert_array_equal(first.scores, second.scores)
    held = np.asarray(first.positive)[..., None]
    np.testing.assert_array_equal(
        np.where(held, content_of(first.objects, targets), 0), np.where(held, content_of(second.objects, mixed), 0)
    )


def test_predictions_that_are_not_finite_own_nothing():
    rng = np.random.default_rng(4)
    targets = scene(rng)
    boxes, logits = predictions(rng, POINTS)
    boxes[:, ::2] = np.nan
    logits[:, 1::4] = np.nan
    got = assign(boxes, logits, targets)
    assert not np.asarray(got.positive)[:, ::2].any()
    assert not np.asarray(got.positive)[:, 1::4].any()
    assert np.isfinite(got.scores).all()
    assert np.asarray(got.positive).any()


def test_inside_crowd_is_the_share_of_the_predictions_own_area():
    crowd = np.array([[[0, 0, 32, 32], [40, 40, 60, 60]]], np.float32)
    targets = Targets(
        crowd, np.zeros((1, 2), np.int32), np.array([[True, True]]), np.array([[True, False]]), np.zeros(1, np.int32)
    )
    boxes = np.array([[[0, 0, 8, 8], [16, 0, 48, 32], [16.1, 0, 48.1, 32], [41, 41, 50, 50], [5, 5, 5, 9]]], np.float32)
    got = jax.jit(inside_crowd)(boxes, targets)
    np.testing.assert_array_equal(got, [[True, True, False, False, False]])
    hidden = targets._replace(valid=np.array([[False, True]]))
    assert not jax.jit(inside_crowd)(boxes, hidden).any()
