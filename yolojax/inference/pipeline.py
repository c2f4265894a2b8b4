"""Work around the network, in threads: what it needs is read ahead of it, what it found is written behind it.

Both are bounded. However many photos there are, only a few are in memory at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Generic, TypeVar

from yolojax.data.input_images import default_threads

T = TypeVar("T")
R = TypeVar("R")


def batches_ahead(
    read: Callable[[T], R], items: Iterable[T], size: int
) -> Generator[tuple[list[tuple[T, R]], Callable[[], bool]], None, None]:
    """Applies a function to items in threads, in order, and gives the results in batches.

    Args:
      read: run in a thread. An exception that it raises comes out where its batch would have.
      items: taken from the iterator in the thread of the caller, at most two batches beyond the one that is in use.
      size: items of a batch; the last one may have fewer.

    Yields:
      pairs of an item and its result, and a function that says whether the next batch could be had without waiting.
    """
    source = iter(items)
    with ThreadPoolExecutor(min(default_threads(), 2 * size), thread_name_prefix="yolojax-read") as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()

        def fill(length: int) -> None:
            waiting.extend((item, pool.submit(read, item)) for item in islice(source, max(0, length - len(waiting))))

        def is_ready() -> bool:
            following = list(islice(waiting, size))
            return bool(following) and all(future.done() for _, future in following)

        try:
            while True:
                fill(3 * size)
                batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
                if not batch:
                    return
                yield [(item, future.result()) for item, future in batch], is_ready
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class Ahead(Generic[T]):
    """Takes items from an iterable in a thread of its own, ahead of whoever iterates over this.

    At most ``most`` items wait. Then the thread waits as well, or, with ``drop_oldest``, the oldest item is dropped: a
    camera does not wait. What the iterable raises comes out behind the items that it gave.

    Attributes:
      dropped: items that were dropped.
    """

    def __init__(self, items: Iterable[T], *, most: int, drop_oldest: bool = False) -> None:
        self.dropped = 0
        self._most, self._drop_oldest = most, drop_oldest
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        # A daemon: a camera that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._take, args=(items,), name="yolojax-ahead", daemon=True)

    def __enter__(self) -> Ahead[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2)

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                # With a timeout, so that Ctrl-C arrives on every platform.
                while not (self._waiting or self._ended):
                    self._changed.wait(timeout=0.5)
                if not self._waiting:
                    break
                item = self._waiting.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def _take(self, items: Iterable[T]) -> None:
        try:
            iterator = iter(items)
            for item in iterator:
                with self._changed:
                    while len(self._waiting) >= self._most and not (self._drop_oldest or self._closed):
                        self._changed.wait()
                    if self._closed:
                        break
                    if len(self._waiting) >= self._most:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._waiting.append(item)
                    self._changed.notify_all()
            if isinstance(iterator, Generator):
                iterator.close()  # its files and cameras are released here, not when memory is
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Behind(Generic[T, R]):
    """Applies a function in threads behind the caller, and hands out results in order.

    At most ``most`` items wait or are worked on; adding another one waits for the oldest.
    """

    def __init__(self, work: Callable[[T], R], *, most: int, threads: int) -> None:
        self._work, self._most = work, most
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="yolojax-write")
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> Behind[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=kind is not None)

    def add(self, item: T) -> list[R]:
        """Takes an item, and returns the results that are finished, the oldest first; raises what the work raised."""
        self._waiting.append(self._pool.submit(self._work, item))
        finished = []
        while self._waiting and (len(self._waiting) > self._most or self._waiting[0].done()):
            finished.append(self._waiting.popleft().result())
        return finished

    def rest(self) -> Iterator[R]:
        """The results of everything that was added, as they are finished."""
        while self._waiting:
            yield self._waiting.popleft().result()
