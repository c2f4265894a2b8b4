"""Orders of columns: by image, class and score, where what is equal keeps its order.

These give what `numpy.lexsort` and stable sorts of 64-bit numbers give, in a third of the time or less: whole numbers
are sorted by 16 bits at a time, for which NumPy has a radix sort, and scores by NumPy's fastest sort, after which the
few equal ones are put in order.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

_BITS = 16


def stable_order(keys: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Positions of whole numbers of at least 0 in rising order; equal ones keep their order."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")  # the lowest bits
    for shift in range(_BITS, int(keys.max(initial=0)).bit_length(), _BITS):
        order = order[np.argsort((keys >> shift).astype(np.uint16)[order], kind="stable")]
    return order


def falling_order(scores: Float64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Positions of the scores, none of them NaN, from the highest to the lowest; equal ones keep their order."""
    order = np.argsort(-scores)
    ordered = scores[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same)) if len(scores) else order
    order[tied] = order[tied][np.lexsort((order[tied], -ordered[tied]))]
    return order


def by_key_and_score(
    keys: Int64[np.ndarray, " N"], scores: Float64[np.ndarray, " N"], falling: Int64[np.ndarray, " N"] | None = None
) -> Int64[np.ndarray, " N"]:
    """Positions by rising key (an image or a class) and falling score; equal ones keep their order.

    ``falling`` is the `falling_order` of the scores, where it is at hand.
    """
    falling = falling_order(scores) if falling is None else falling
    return falling[stable_order(keys[falling])]


def positions_of(keys: Int64[np.ndarray, " N"]) -> Callable[[int], Int64[np.ndarray, " n"]]:
    """A function that gives the positions of a key, in their order."""
    order = stable_order(keys)
    ordered = keys[order]
    return lambda key: order[slice(*np.searchsorted(ordered, [key, key + 1]).tolist())]


def places(keys: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """How many earlier rows have the same key, for each row."""
    order = stable_order(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(keys) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(keys)))
    result = np.empty(len(keys), np.int64)
    result[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return result
