"""`least_cost_matching` against SciPy's solver, which is another program of the same kind."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from yolojax.assign import least_cost_matching

B = 6

match = jax.jit(least_cost_matching)


def costs_of(kind: str, rng: np.random.Generator, m: int, n: int) -> np.ndarray:
    cost = {
        "independent": lambda: rng.normal(size=(B, m, n)),
        "few values": lambda: rng.integers(0, 4, (B, m, n)),
        "all want the same": lambda: rng.normal(size=(B, 1, n)) + 0.01 * rng.normal(size=(B, m, n)),
        "distances": lambda: np.abs(rng.normal(size=(B, m, 1)) - rng.normal(size=(B, 1, n))),
        "equal": lambda: np.zeros((B, m, n)),
        "huge": lambda: rng.normal(size=(B, m, n)) * 1e30,
    }[kind]
    return cost().astype(np.float32)


@pytest.mark.parametrize("kind", ["independent", "few values", "all want the same", "distances", "equal", "huge"])
@pytest.mark.parametrize(("m", "n"), [(12, 40), (9, 9), (1, 1)])
def test_the_total_is_the_least(kind, m, n):
    """Rows from ``count`` on are not read: they hold NaN."""
    rng = np.random.default_rng(m)
    cost, count = costs_of(kind, rng, m, n), np.array([0, m, *rng.integers(0, m + 1, B - 2)], np.int32)
    for b in range(B):
        cost[b, count[b] :] = np.nan
    owners = np.asarray(match(cost, count))
    for b, owner in enumerate(owners):
        columns = np.flatnonzero(owner >= 0)
        assert sorted(owner[columns]) == list(range(count[b]))
        row, column = linear_sum_assignment(cost[b, : count[b]].astype(np.float64))
        least = cost[b][row, column].astype(np.float64).sum()
        found = cost[b][owner[columns], columns].astype(np.float64).sum()
        np.testing.assert_allclose(found, least, rtol=1e-6, atol=1e-6)


def test_an_image_is_matched_alike_in_every_batch():
    rng = np.random.default_rng(0)
    cost, count = costs_of("few values", rng, 12, 40), np.array([3, 12, 0, 7, 12, 1], np.int32)
    whole = np.asarray(match(cost, count))
    for b in range(B):
        np.testing.assert_array_equal(np.asarray(match(cost[b : b + 1], count[b : b + 1]))[0], whole[b])
