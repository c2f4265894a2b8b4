"""`simota_assign` against a loop that follows the YOLOX and OTA papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import Predictions, simota_assign
from yolojax.coding import cell_centres
from yolojax.structures import Level

LEVELS = (Level(5, 6, 8), Level(3, 3, 16))
POINTS, STRIDES = cell_centres(LEVELS)
P, S = np.asarray(POINTS, np.float64), np.asarray(STRIDES, np.float64)
B, M, C, N = 3, 7, 3, len(P)

assign = jax.jit(lambda boxes, cls, obj, targets: simota_assign(targets, LEVELS, Predictions(boxes, cls, obj)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def oracle(boxes, cls, obj, targets, lab, radius=2.5):
    owner, score = np.full((B, N), -1), np.zeros((B, N))
    for b in range(B):
        objects = lab.real(targets, b)
        in_box, in_centre, cost, overlap = ({} for _ in range(4))
        for m in objects:
            box = targets.boxes[b, m].astype(np.float64)
            centre = (box[:2] + box[2:]) / 2
            for n in range(N):
                in_box[m, n] = (P[n] > box[:2]).all() and (P[n] < box[2:]).all()
                in_centre[m, n] = (np.abs(P[n] - centre) < radius * S[n]).all()
                p = np.sqrt(sigmoid(cls[b, n].astype(np.float64)) * sigmoid(float(obj[b, n])))
                y = np.eye(C)[targets.classes[b, m]]
                overlap[m, n] = lab.iou(box, boxes[b, n].astype(np.float64))
                cost[m, n] = -(y * np.log(p) + (1 - y) * np.log(1 - p)).sum() - 3 * np.log(overlap[m, n] + 1e-8)
        pool = [n for n in range(N) if any(in_box[m, n] or in_centre[m, n] for m in objects)]
        proposals = [[] for _ in range(N)]
        for m in objects:
            for n in pool:
                cost[m, n] += 0 if in_box[m, n] and in_centre[m, n] else 1e5
            k = max(1, int(sum(sorted((overlap[m, n] for n in pool), reverse=True)[:10])))
            for n in sorted(pool, key=lambda n: (cost[m, n], n))[:k]:
                proposals[n].append((cost[m, n], lab.content(targets, b, m), m))
        for n, rivals in enumerate(proposals):
            if rivals:
                owner[b, n] = min(rivals)[-1]
                score[b, n] = overlap[owner[b, n], n]
    return owner, score


def inputs(seed, case, lab):
    rng = np.random.default_rng(seed)
    targets = lab.scene(rng, case, B, M, C, (40, 48))
    boxes, cls = lab.predictions(rng, P, S, B, C)
    return boxes, cls, rng.normal(0, 2, (B, N)).astype(np.float32), targets


@pytest.mark.parametrize("seed", range(2))
def test_equals_the_loop_of_the_papers(case, seed, lab):
    boxes, cls, obj, targets = inputs(seed, case, lab)
    owner, score = oracle(boxes, cls, obj, targets, lab)
    lab.same(assign(boxes, cls, obj, targets), owner, score, targets)
    assert (owner >= 0).any() == (case != "none")


def test_good_predictions_get_a_larger_k(lab):
    """Every prediction is the object's own box: IoUs of 1 sum to 10 points (the one of a tie is the earlier)."""
    boxes, cls, obj, targets = inputs(0, "random", lab)
    targets = targets._replace(valid=np.arange(M)[None] < np.array([[1], [1], [0]]))
    targets.boxes[:, 0] = [2, 2, 38, 38]
    boxes[:] = targets.boxes[:, :1]
    got = assign(boxes, np.zeros_like(cls), np.zeros_like(obj), targets)
    np.testing.assert_array_equal(got.positive.sum(-1), [10, 10, 0])
    np.testing.assert_array_equal(got.scores, got.positive)


def test_order_and_padding_do_not_matter(case, lab):
    boxes, cls, obj, targets = inputs(9, case, lab)
    lab.unmoved_by_order(lambda t: assign(boxes, cls, obj, t), targets)


def test_predictions_that_are_not_finite_own_nothing(lab):
    boxes, cls, obj, targets = inputs(4, "random", lab)
    boxes[:, ::3] = np.nan
    cls[:, 1::3, 0] = np.inf
    got = assign(boxes, cls, obj, targets)
    positive = np.asarray(got.positive)
    assert positive.any() and not positive[:, ::3].any() and not positive[:, 1::3].any()
    assert np.isfinite(got.scores).all()


def test_extreme_logits_stay_finite(lab):
    boxes, cls, obj, targets = inputs(5, "random", lab)
    got = assign(boxes, np.sign(cls) * 1e4, np.full_like(obj, 1e4), targets)
    assert np.asarray(got.positive).any() and jnp.isfinite(got.scores).all()
