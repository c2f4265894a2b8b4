"""Input images of data sets that do not fit into memory: they are decoded each time, ahead of their use."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from yolojax.data.dataset import Dataset
from yolojax.data.input_images import InputImages, Pixels, default_threads, input_image_fields, load_input_image
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess
from yolojax.structures import Batch

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ImageStream(InputImages):
    """Input images that are decoded each time they are needed.

    Attributes:
      pool: threads that decode; they live as long as the stream.
      threads: how many.
    """

    pool: ThreadPoolExecutor = field(repr=False)
    threads: int

    def load(self, indices: Int[np.ndarray, " B"]) -> tuple[Pixels, Int[np.ndarray, " B"]]:
        """Decodes these images. With the data set's ``skip_bad`` an image that fails is replaced by the next one.

        Raises `DataError` when an image fails to decode, or with ``skip_bad`` when all do.
        """
        futures = [self.pool.submit(self.load_one, int(i)) for i in indices]
        loaded = [f.result() for f in futures]
        return np.stack([pixels for pixels, _ in loaded]), np.array([i for _, i in loaded], np.int64)

    def load_one(self, index: int) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
        """The pixels of one image and the index of the image that was decoded; see `load`."""
        n = len(self.dataset)
        for tried in range(n if self.dataset.skip_bad else 1):
            i = (index + tried) % n
            try:
                return load_input_image(self.dataset.records[i], self.input_size, self.preprocess)[0], i
            except DataError:
                if not self.dataset.skip_bad:
                    raise
        raise DataError("the data set holds no image that can be decoded; replace the damaged files")

    def batches(
        self, order: Callable[[int], Int[np.ndarray, " B"]], first_step: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " B"], Batch]]:
        """`InputImages.batches`, decoded ahead by Grain's threads."""
        from yolojax.data.grain_feed import read_ahead  # slow to import, and only data that do not fit need it

        for elements in read_ahead(order, self.load_one, first_step, threads=self.threads):
            pixels, indices = zip(*elements, strict=True)
            loaded = np.array(indices, np.int64)
            yield loaded, self.assemble(np.stack(pixels), loaded)


def stream_images(
    dataset: Dataset,
    input_size: tuple[int, int],
    preprocess: Preprocess,
    *,
    max_objects: int | None = None,
    threads: int | None = None,
) -> ImageStream:
    """The input images of a data set without a cache; the batches equal those of `build_cache`.

    Args:
      dataset: the images.
      input_size: ``(H, W)`` in pixels.
      preprocess: how photos are resized and padded.
      max_objects: ``M``; by default `padded_objects`.
      threads: how many decode at once; by default one for each processor, at most 8.
    """
    if not len(dataset):
        raise DataError("the data set holds no image; give it at least one")
    threads = threads or default_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="yolojax-decode")
    return ImageStream(**input_image_fields(dataset, input_size, preprocess, max_objects), pool=pool, threads=threads)


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
