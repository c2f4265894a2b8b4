"""Running sums and maxima down many lines of rows at once.

A line is what belongs to one class at one IoU threshold, falling by score; a row is a detection, with a value for each
of ``S`` weightings of the images. There are thousands of lines, most of them short, or a few very long ones. NumPy's
own `accumulate` is slow across rows, and a loop in Python over all rows as well.
"""

import itertools

import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int64

PIECE = 32
"""Rows of a line that are visited one after the other; a longer line is cut into pieces."""


class Lines:
    """Lines of given lengths, cut into pieces of up to `PIECE` rows.

    The first rows of all pieces stand together, then their second rows, and so on, the longest pieces first, so that
    one step goes down all pieces together. All arrays that are given and returned have a row for each *place* in this
    order.

    Attributes:
      rows: for each place, the row, counted through all lines.
      places: for each such row, its place.
      line: for each place, its line.
      last: the place of the last row of each line.
    """

    def __init__(self, lengths: Int64[np.ndarray, " l"]) -> None:
        """Lines of these lengths, each at least 1."""
        total, ends = int(lengths.sum()), np.cumsum(lengths)
        pieces = -(-lengths // PIECE)
        line = np.repeat(np.arange(len(lengths)), pieces)
        number = np.arange(len(line)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of each piece in its line
        start = (ends - lengths)[line] + PIECE * number
        size = np.minimum(ends[line] - start, PIECE)
        order = np.argsort(-size, kind="stable")
        widths = np.searchsorted(-size[order], -np.arange(size.max(initial=0)))  # how many pieces have a k-th row
        offsets = np.cumsum(widths) - widths
        self._steps = list(zip(offsets.tolist(), widths.tolist(), strict=True))
        piece = np.arange(total) - np.repeat(offsets, widths)
        self.rows = start[order][piece] + np.repeat(np.arange(len(widths)), widths)
        self.places = np.empty(total, np.int64)
        self.places[self.rows] = np.arange(total)
        self.last = self.places[ends - 1]
        self._first = self.places[ends - lengths]
        self.line = line[order][piece]
        self._end_of_piece = self.places[(start + size - 1)[order]]
        at = np.empty(len(order), np.int64)
        at[order] = np.arange(len(order))
        more = np.flatnonzero(number)
        self._before, self._after = at[more - 1], at[more]  # pieces of one line that follow each other
        rest = np.delete(self.places, ends - lengths)
        pointers = np.append(0, np.cumsum(lengths - 1))
        ones = np.ones(len(rest), np.float32)
        self._without_first = scipy.sparse.csr_array((ones, rest, pointers), shape=(len(lengths), total))

    def running_sum(self, values: Float32[np.ndarray, "n S"]) -> Float32[np.ndarray, "n S"]:
        """The sum of each row and those above it in its line, in place."""
        for (above, _), (start, width) in itertools.pairwise(self._steps):
            one = values[start : start + width]
            np.add(values[above : above + width], one, out=one)
        if len(self._after):
            totals = values[self._end_of_piece]
            carried = np.zeros_like(totals)
            for before, after in zip(self._before.tolist(), self._after.tolist(), strict=True):
                np.add(carried[before], totals[before], out=carried[after])
            for start, width in self._steps:
                values[start : start + width] += carried[:width]
        return values

    def greatest_below(self, values: Float32[np.ndarray, "n S"]) -> Float32[np.ndarray, "n S"]:
        """The greatest of each row and those below it in its line, in place; values are at least 0."""
        for (below, width), (start, _) in itertools.pairwise(self._steps[::-1]):
            one = values[start : start + width]
            np.maximum(one, values[below : below + width], out=one)
        if len(self._after):
            own = values[: self._steps[0][1]].copy()
            carried = np.zeros_like(own)
            for before, after in zip(self._before[::-1].tolist(), self._after[::-1].tolist(), strict=True):
                np.maximum(carried[after], own[after], out=carried[before])
            for start, width in self._steps:
                one = values[start : start + width]
                np.maximum(one, carried[:width], out=one)
        return values

    def differences(self, values: Float32[np.ndarray, "n S"]) -> Float32[np.ndarray, "n S"]:
        """Each row less the one above it in its line, or less 0, in place."""
        ends = values[self._end_of_piece[self._before]]
        for (start, width), (above, _) in itertools.pairwise(self._steps[::-1]):
            values[start : start + width] -= values[above : above + width]
        values[self._after] -= ends
        return values

    def sums(self, values: Float32[np.ndarray, "n S"]) -> Float32[np.ndarray, "l S"]:
        """The sum of each line, from its second row on, and the first row added last."""
        return values[self._first] + self._without_first @ values
