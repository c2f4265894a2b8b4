"""`hungarian_assign` against every possible matching of a small problem."""

import itertools

import jax
import numpy as np
import pytest

from yolojax.assign import hungarian_assign, matching_cost
from yolojax.structures import Targets

B, M, C = 3, 4, 3

assign = jax.jit(hungarian_assign)


def best_matching(cost, rows):
    """Least total cost by brute force, and the columns of the rows (or -1), for as many rows as there are columns."""
    n = cost.shape[1]
    count = min(len(rows), n)
    options = (
        (sum(cost[r, c] for r, c in zip(chosen, columns, strict=True)), chosen, columns)
        for chosen in itertools.combinations(rows, count)
        for columns in itertools.permutations(range(n), count)
    )
    total, chosen, columns = min(options)
    return total, dict(zip(chosen, columns, strict=True))


@pytest.mark.parametrize("n", [6, 2])
@pytest.mark.parametrize("seed", range(2))
def test_least_total_cost(case, n, seed, lab):
    rng = np.random.default_rng(seed)
    targets = lab.scene(rng, case, B, M, C, (40, 48))
    cost = rng.normal(0, 3, (B, M, n)).astype(np.float32)
    got = assign(cost, targets)
    for b in range(B):
        total, matching = best_matching(cost[b].astype(np.float64), lab.real(targets, b))
        owner = np.full(n, -1)
        owner[list(matching.values())] = list(matching)
        np.testing.assert_array_equal(got.positive[b], owner >= 0)
        np.testing.assert_array_equal(np.where(got.positive[b], got.objects[b], -1), owner)
        np.testing.assert_array_equal(got.scores[b], owner >= 0)
        assert total == pytest.approx(sum(cost[b, m, c] for m, c in matching.items()))


def test_order_and_padding_do_not_matter(lab):
    """Whole-number costs with many ties: content decides, never the row."""
    rng = np.random.default_rng(1)
    targets = lab.scene(rng, "random", B, M, C, (40, 48))
    cost = rng.integers(0, 3, (B, M, 6)).astype(np.float32)
    mixed, order = lab.shuffled(rng, targets)
    moved = cost[:, order].copy()
    moved[~mixed.valid] = np.nan
    first, second = assign(cost, targets), assign(moved, mixed)
    np.testing.assert_array_equal(first.positive, second.positive)
    np.testing.assert_array_equal(
        np.where(first.positive, first.objects, -1), np.where(second.positive, order[np.asarray(second.objects)], -1)
    )


def test_costs_that_are_not_finite_are_avoided():
    cost = np.array([[[np.nan, 5.0, np.inf], [1.0, 2.0, np.nan]]], np.float32)
    boxes = np.array([[[0, 0, 4, 4], [0, 0, 8, 8]]], np.float32)
    no = np.zeros((1, 2), bool)
    got = assign(cost, Targets(boxes, np.zeros((1, 2), np.int32), ~no, no, np.zeros(1, np.int32)))
    np.testing.assert_array_equal(np.where(got.positive[0], got.objects[0], -1), [1, 0, -1])


def test_matching_cost_equals_its_formula(lab):
    rng = np.random.default_rng(0)
    targets = lab.scene(rng, "random", B, M, C, (40, 48))
    low = rng.uniform(0, 20, (B, 5, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 20, (B, 5, 2))], -1).astype(np.float32)
    scores = rng.dirichlet(np.ones(C), (B, 5)).astype(np.float32)
    got = np.asarray(jax.jit(lambda *a: matching_cost(*a, input_size=(40, 48)))(boxes, scores, targets))
    for b, m, n in np.ndindex(B, M, 5):
        if targets.valid[b, m]:
            p, g = boxes[b, n].astype(np.float64), targets.boxes[b, m].astype(np.float64)
            hull = (max(p[2], g[2]) - min(p[0], g[0])) * (max(p[3], g[3]) - min(p[1], g[1]))
            overlap = lab.iou(p, g)
            area = lambda x: (x[2] - x[0]) * (x[3] - x[1])  # noqa: E731
            union = (area(p) + area(g)) / (1 + overlap)
            to = lambda x: np.array([(x[0] + x[2]) / 96, (x[1] + x[3]) / 80, (x[2] - x[0]) / 48, (x[3] - x[1]) / 40])  # noqa: E731
            expected = 5 * np.abs(to(p) - to(g)).sum() - scores[b, n, targets.classes[b, m]]
            expected -= 2 * (overlap - (hull - union) / hull)
            np.testing.assert_allclose(got[b, m, n], expected, rtol=1e-5, atol=1e-5)
