"""Reading ahead with Grain; the only file that imports it.

Grain only executes: the order of the images is a function of the step that is passed in. The batches therefore do not
depend on the number of threads, and a run is resumed exactly by starting at its step. Threads are used because decoding
releases the interpreter's lock, while worker processes would outlive a killed run.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from jaxtyping import Int

AHEAD = 2
"""Batches that are read before they are asked for."""


class _Places:
    """The endless stream of images as the random-access source that Grain needs; position ``step * size + row``."""

    def __init__(
        self, order: Callable[[int], Int[np.ndarray, " B"]], load: Callable[[int], Any], first_step: int, size: int
    ) -> None:
        self._order, self._load, self._first, self._size = order, load, first_step, size

    def __len__(self) -> int:
        return 2**40  # practically without end, and Grain's arithmetic still holds

    def __getitem__(self, place: Any) -> Any:
        step, row = divmod(int(place), self._size)
        return self._load(int(self._order(self._first + step)[row]))

    def __repr__(self) -> str:
        return f"places from step {self._first} on"


def read_ahead(
    order: Callable[[int], Int[np.ndarray, " B"]], load: Callable[[int], Any], first_step: int, *, threads: int
) -> Iterator[list[Any]]:
    """For every step from ``first_step`` on the list of ``load(i) for i in order(step)``, endlessly.

    Args:
      order: the images of a step, as many for every step.
      load: reads one image; called in threads. An exception comes out where its batch would have.
      first_step: where to begin.
      threads: how many read at once.
    """
    size = len(order(first_step))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(AHEAD * size, threads))
    places: Any = _Places(order, load, first_step, size)
    elements = grain.MapDataset.source(places).to_iter_dataset(options)
    iterator = iter(elements)
    try:
        while True:
            yield [next(iterator) for _ in range(size)]
    finally:
        if (close := getattr(iterator, "close", None)) is not None:
            close()
