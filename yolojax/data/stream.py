"""Batches from data sets that do not fit into memory: images are decoded on demand, and ahead of their use."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from yolojax.data.dataset import Dataset
from yolojax.data.feed import Canvases, default_threads, lay_out, load_canvas
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CanvasStream(Canvases):
    """Canvases that are decoded each time they are asked for, by a pool of threads that live as long as the stream."""

    pool: ThreadPoolExecutor = field(repr=False)

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[UInt8[np.ndarray, "B H W 3"], Int[np.ndarray, " B"]]:
        """These canvases. With the data set's ``skip_bad`` the next image stands in for one that fails to decode.

        Raises `DataError` when an image fails to decode, or with ``skip_bad`` when all do.
        """
        futures = [self.pool.submit(self._load_one, int(i)) for i in indices]
        loaded = [f.result() for f in futures]
        return np.stack([pixels for pixels, _ in loaded]), np.array([i for _, i in loaded], np.int64)

    def _load_one(self, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
        n = len(self.dataset)
        for tried in range(n if self.dataset.skip_bad else 1):
            i = (index + tried) % n
            try:
                return load_canvas(self.dataset.records[i], self.canvas, self.preprocess)[0], i
            except DataError:
                if not self.dataset.skip_bad:
                    raise
        raise DataError("the data set holds no image that can be decoded; replace the damaged files")


def stream_canvases(
    dataset: Dataset,
    canvas: tuple[int, int],
    preprocess: Preprocess,
    *,
    max_objects: int | None = None,
    threads: int | None = None,
) -> CanvasStream:
    """The canvases of a data set without a cache: batches equal those of `yolojax.data.feed.build_cache`.

    Args:
      dataset: the images.
      canvas: ``(H, W)`` in pixels.
      preprocess: how images are laid on the canvas.
      max_objects: ``M``; by default as `yolojax.data.feed.padded_objects` has it.
      threads: how many decode at once; by default one per processor, at most 8.
    """
    if not len(dataset):
        raise DataError("the data set holds no image; give it at least one")
    pool = ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="yolojax-decode")
    return CanvasStream(**lay_out(dataset, canvas, preprocess, max_objects), pool=pool)


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """The same items in the same order, each computed in a thread while up to ``depth`` earlier ones are in use.

    An exception comes out where its item would have.
    """
    if depth < 1:
        raise ConfigError(f"prefetch depth {depth}: it must be at least 1")
    return _prefetched(items, depth)


def _prefetched(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="yolojax-prefetch") as pool:
        ahead = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := ahead.popleft().result()) is not end:
            ahead.append(pool.submit(next, items, end))
            yield item  # pyright: ignore[reportReturnType]
