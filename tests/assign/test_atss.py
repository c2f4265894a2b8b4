"""`atss_assign` against algorithm 1 of the paper, line by line."""

import jax
import numpy as np
import pytest

from yolojax.assign import atss_assign
from yolojax.coding import cell_centres
from yolojax.structures import Level

LEVELS = (Level(5, 6, 8), Level(3, 3, 16))
POINTS, STRIDES = (np.asarray(a, np.float64) for a in cell_centres(LEVELS))
B, M, C, K = 3, 7, 3, 5
N = len(POINTS)

assign = jax.jit(lambda targets: atss_assign(targets, LEVELS, k=K, anchor_scale=2.0))


def oracle(targets, lab):
    owner, margin = np.full((B, N), -1), np.inf
    anchors = np.concatenate([POINTS - STRIDES[:, None], POINTS + STRIDES[:, None]], -1)
    for b in range(B):
        proposals = [[] for _ in range(N)]
        for m in lab.real(targets, b):
            box = targets.boxes[b, m].astype(np.float64)
            centre = (box[:2] + box[2:]) / 2
            candidates, start = [], 0
            for rows, columns, _ in LEVELS:
                here = range(start, start + rows * columns)
                # Float32, as two points at nearly equal distance must not swap by the rounding of the last bit.
                distance = ((np.float32(centre) - np.float32(POINTS)) ** 2).sum(-1)
                candidates += sorted(here, key=lambda n: (distance[n], n))[:K]
                start += rows * columns
            overlaps = np.array([lab.iou(anchors[n], box) for n in candidates])
            threshold = overlaps.mean() + overlaps.std(ddof=1)
            for n, overlap in zip(candidates, overlaps, strict=True):
                inside = (POINTS[n] > box[:2]).all() and (POINTS[n] < box[2:]).all()
                margin = min(margin, abs(overlap - threshold))
                if overlap >= threshold and inside:
                    proposals[n].append((-overlap, lab.content(targets, b, m), m))
        for n, rivals in enumerate(proposals):
            if rivals:
                owner[b, n] = min(rivals)[-1]
    return owner, margin


@pytest.mark.parametrize("seed", range(2))
def test_equals_algorithm_1(case, seed, lab):
    targets = lab.scene(np.random.default_rng(seed), case, B, M, C, (40, 48))
    owner, margin = oracle(targets, lab)
    assert margin > 1e-6  # no candidate so near to its threshold that rounding decides
    lab.same(assign(targets), owner, owner >= 0, targets)
    assert (owner >= 0).any() or case in ("none", "smaller than a stride")


def test_order_and_padding_do_not_matter(case, lab):
    lab.unmoved_by_order(assign, lab.scene(np.random.default_rng(9), case, B, M, C, (40, 48)))


def test_fewer_points_than_candidates(lab):
    targets = lab.scene(np.random.default_rng(0), "random", B, M, C, (32, 32))
    got = jax.jit(lambda t: atss_assign(t, (Level(1, 1, 32),)))(targets)
    assert got.positive.shape == (B, 1)
