"""Streaming gives the batches of the cache, and reading ahead changes nothing but the time."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from yolojax.data import (
    build_cache,
    open_dataset,
    prefetch,
    shapes_dataset,
    stream_images,
    uniform_sampler,
    write_yolo,
)
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_yolo({"train": shapes_dataset(7, size=(40, 56))}, folder)
    return folder


def same(a, b):
    flat_a, flat_b = ([x.images, *x.targets] for x in (a, b))
    return all(np.array_equal(p, q) and p.dtype == q.dtype for p, q in zip(flat_a, flat_b, strict=True))


def training(input_images, seed, batch_size, first_step=0):
    sampler = uniform_sampler(len(input_images), batch_size)
    return (batch for _, batch in input_images.batches(lambda step: sampler(seed, step), first_step))


def test_a_stream_gives_the_batches_of_the_cache(folder):
    data = open_dataset(folder)
    cache = build_cache(data, (32, 64), Preprocess())
    stream = stream_images(data, (32, 64), Preprocess(), threads=3)
    assert len(stream) == len(cache) == 7
    assert same(cache.batch(np.arange(7)), stream.batch(np.arange(7)))
    for a, b in itertools.islice(zip(training(cache, 1, 5, 4), training(stream, 1, 5, 4), strict=False), 4):
        assert same(a, b)


def test_training_resumes_at_a_step(folder):
    cache = build_cache(open_dataset(folder), (32, 32), Preprocess())
    whole = list(itertools.islice(training(cache, 5, 4), 6))
    resumed = list(itertools.islice(training(cache, 5, 4, first_step=3), 3))
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert not same(whole[0], whole[1])


def test_damaged_images_raise_or_the_next_stands_in(folder, tmp_path):
    data = open_dataset(folder)
    broken = tmp_path / "broken.png"
    broken.write_bytes(data.records[2].source.read_bytes()[:900])
    records = list(data.records)
    records[2] = dataclasses.replace(records[2], source=broken)
    data = dataclasses.replace(data, records=tuple(records))
    with pytest.raises(DataError, match=r"broken\.png"):
        stream_images(data, (32, 32), Preprocess()).batch(np.array([2]))
    patient = stream_images(dataclasses.replace(data, skip_bad=True), (32, 32), Preprocess())
    assert same(patient.batch(np.array([2, 0])), patient.batch(np.array([3, 0])))
    hopeless = dataclasses.replace(data.take([2]), skip_bad=True)
    with pytest.raises(DataError, match="no image that can be decoded"):
        stream_images(hopeless, (32, 32), Preprocess()).batch(np.array([0]))
    with pytest.raises(DataError, match="holds no image"):
        stream_images(data.take([]), (32, 32), Preprocess())


def test_prefetching_keeps_items_and_order():
    assert list(prefetch(iter(range(50)), 3)) == list(range(50))
    assert list(prefetch(iter([]), 2)) == []
    with pytest.raises(ConfigError, match="at least 1"):
        prefetch(iter([]), 0)


def test_prefetching_reads_ahead_and_no_further():
    asked = threading.Semaphore(0)
    seen = []

    def numbers():
        for i in range(10):
            seen.append(i)
            asked.release()
            yield i

    stream = prefetch(numbers(), 3)
    assert next(stream) == 0
    for _ in range(4):  # one in use and three ahead
        assert asked.acquire(timeout=5)
    stream.close()
    assert seen == [0, 1, 2, 3]


def test_an_exception_comes_out_in_its_place():
    def failing():
        yield 1
        raise DataError("second")

    stream = prefetch(failing(), 4)
    assert next(stream) == 1
    with pytest.raises(DataError, match="second"):
        next(stream)
