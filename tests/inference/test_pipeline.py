"""Work around the network: order, bounds, and what fails among it."""

import threading
import time
from contextlib import closing

import pytest

from yolojax.inference.pipeline import Behind, batches_ahead


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 1), (7, 3), (9, 3), (2, 8)])
def test_everything_is_read_once_in_order(count, size):
    def read(item):
        time.sleep(0.002 * (item % 3))  # not in the order in which they begin
        return item * item

    batches = [batch for batch, _ in batches_ahead(read, range(count), size)]
    assert [pair for batch in batches for pair in batch] == [(i, i * i) for i in range(count)]
    assert all(len(batch) == size for batch in batches[:-1]) and len(batches) == -(-count // size)


def test_at_most_two_batches_are_read_ahead():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    with closing(batches_ahead(lambda item: item, endless(), 4)) as batches:
        for number, (batch, _) in zip(range(3), batches, strict=False):
            assert [item for item, _ in batch] == list(range(4 * number, 4 * number + 4))
            assert len(taken) == 4 * (number + 3)


def test_the_next_batch_is_ready_when_it_is_read():
    held = threading.Event()

    def read(item):
        if item >= 2:
            held.wait(10)
        return item

    with closing(batches_ahead(read, range(4), 2)) as batches:
        _, is_ready = next(batches)
        assert not is_ready()
        held.set()
        deadline = time.monotonic() + 10
        while not is_ready() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert is_ready()
        _, is_ready = next(batches)
        assert not is_ready()  # there is none


def test_what_reading_raises_comes_out_in_its_batch_and_ends_the_threads():
    def read(item):
        if item == 4:
            raise ValueError("four")
        return item

    batches = batches_ahead(read, range(100), 2)
    assert [next(batches)[0], next(batches)[0]] == [[(0, 0), (1, 1)], [(2, 2), (3, 3)]]
    with pytest.raises(ValueError, match="four"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("yolojax-read")]


def test_results_come_back_in_order_and_few_wait():
    running, most = 0, 0
    lock = threading.Lock()

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (item % 2))
        with lock:
            running -= 1
        return -item

    added, results = 0, []
    with Behind(work, most=3, threads=2) as behind:
        for item in range(20):
            results += behind.add(item)
            added += 1
            assert added - len(results) <= 3
        results += behind.rest()
    assert results == [-item for item in range(20)] and most == 2


def test_what_work_raises_comes_out_and_the_rest_is_given_up():
    done = []

    def work(item):
        if item == 1:
            raise ValueError("one")
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(ValueError, match="one"), Behind(work, most=50, threads=1) as behind:
        for item in range(50):
            behind.add(item)
        list(behind.rest())
    assert len(done) < 49
