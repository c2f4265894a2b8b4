"""Running sums and maxima down many lines are those of NumPy, line by line."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given, settings

from yolojax.eval.running import PIECE, Lines


@given(
    lengths=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 3 * PIECE + 1)), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
@example(lengths=[1], seed=0)
@example(lengths=[PIECE, 2 * PIECE, PIECE + 1, PIECE - 1], seed=0)
@settings(max_examples=60, deadline=None)
def test_lines_are_those_of_numpy(lengths: list[int], seed: int) -> None:
    lines = Lines(np.array(lengths))
    rows = np.random.default_rng(seed).integers(0, 50, (sum(lengths), 3)).astype(np.float32)
    given_rows = rows[lines.rows]
    cuts = np.cumsum(lengths)[:-1]
    parts = np.split(rows, cuts)

    def in_places(expected: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(expected)[lines.rows]

    assert (lines.rows[lines.places] == np.arange(len(rows))).all()
    assert (lines.line == np.repeat(np.arange(len(lengths)), lengths)[lines.rows]).all()
    assert (given_rows[lines.last] == [part[-1] for part in parts]).all()
    summed = lines.running_sum(given_rows.copy())
    np.testing.assert_array_equal(summed, in_places([np.cumsum(part, axis=0) for part in parts]))
    greatest = [np.maximum.accumulate(part[::-1], axis=0)[::-1] for part in parts]
    np.testing.assert_array_equal(lines.greatest_below(given_rows.copy()), in_places(greatest))
    less = [np.diff(part, axis=0, prepend=np.float32(0)) for part in parts]
    np.testing.assert_array_equal(lines.differences(given_rows.copy()), in_places(less))
    np.testing.assert_array_equal(lines.sums(given_rows), [part.sum(axis=0) for part in parts])
