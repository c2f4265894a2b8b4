"""Orders equal those of NumPy's stable sorts, ties included."""

import numpy as np
import pytest

from yolojax.eval.ordering import by_key_and_score, falling_order, places, positions_of, stable_order


@pytest.mark.parametrize("most", [1, 7, 2**16, 2**16 + 1, 2**40])
@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_orders_are_those_of_stable_sorts(most: int, count: int) -> None:
    rng = np.random.default_rng(count)
    keys = rng.integers(0, most, count)
    np.testing.assert_array_equal(stable_order(keys), np.argsort(keys, kind="stable"))
    for scores in (rng.random(count), rng.integers(-2, 3, count) / 4, np.zeros(count) * rng.choice([-1, 1], count)):
        np.testing.assert_array_equal(falling_order(scores), np.argsort(-scores, kind="stable"))
        np.testing.assert_array_equal(by_key_and_score(keys, scores), np.lexsort((-scores, keys)))


def test_places_and_positions() -> None:
    keys = np.random.default_rng(0).integers(0, 5, 40)
    np.testing.assert_array_equal(places(keys), [np.sum(keys[:k] == key) for k, key in enumerate(keys)])
    positions = positions_of(keys)
    for key in range(6):
        np.testing.assert_array_equal(positions(key), np.flatnonzero(keys == key))
