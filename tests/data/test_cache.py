"""Where input images are kept changes nothing about the batches, and Grain reads them in the sampler's order."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from tests.data.test_stream import same
from yolojax.data import (
    Room,
    build_cache,
    build_disk_cache,
    choose_storage,
    measure_room,
    open_dataset,
    sample_indices,
    shapes_dataset,
    stream_images,
    to_devices,
    training_batches,
    write_yolo,
)
from yolojax.data.grain_feed import read_ahead
from yolojax.errors import DataError
from yolojax.geometry import Preprocess

CANVAS = (32, 64)


@pytest.fixture
def data(tmp_path):
    write_yolo({"train": shapes_dataset(7, size=(40, 56))}, tmp_path / "set")
    return open_dataset(tmp_path / "set")


def test_the_fastest_place_with_room_is_taken():
    room = Room(device=10, memory=100, disk=1000)
    assert [choose_storage(n, room) for n in (10, 11, 100, 101, 1000, 1001)] == [
        "device",
        "memory",
        "memory",
        "disk",
        "disk",
        "stream",
    ]
    assert choose_storage(10, room._replace(device=None)) == "memory"


def test_room_is_measured(tmp_path):
    room = measure_room(tmp_path / "not" / "there")
    on_processor = jax.default_backend() == "cpu"  # its device memory is the host's
    assert room.device is None if on_processor else room.device > 2**20
    assert room.memory > 2**20 and room.disk > 2**20


def test_batches_are_the_same_from_memory_disk_and_devices(data, tmp_path):
    cache = build_cache(data, CANVAS, Preprocess())
    disk = build_disk_cache(data, CANVAS, Preprocess(), tmp_path / "cache")
    mesh = jax.make_mesh((min(2, len(jax.devices())),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    device = to_devices(cache, jax.NamedSharding(mesh, jax.P()), split)
    for _ in range(2):
        for first, *others in itertools.islice(
            zip(*(training_batches(c, 3, 4, first_step=5) for c in (cache, disk, device)), strict=True), 3
        ):
            assert others[1].images.sharding == split
            assert all(same(first, jax.device_get(other)) for other in others)


def test_a_disk_cache_is_made_once_and_anew_when_an_image_changes(data, tmp_path):
    calls = []
    make = lambda data, input_size=CANVAS: build_disk_cache(  # noqa: E731
        data, input_size, Preprocess(), tmp_path / "cache", progress=lambda *a: calls.append(a)
    )
    first = make(data)
    assert len(calls) == 7
    assert same(make(data).batch(np.arange(7)), first.batch(np.arange(7))) and len(calls) == 7
    make(data, (32, 32))
    assert len(calls) == 14
    # The same name and objects, another picture.
    source = data.records[0].source
    changed = source.with_suffix(".tmp")
    changed.write_bytes(data.records[1].source.read_bytes())
    changed.rename(source)
    again = make(open_dataset(source.parents[2] if source.parents[1].name == "images" else source.parents[1]))
    assert len(calls) == 21
    np.testing.assert_array_equal(again.images[0], first.images[1])


def test_an_unfinished_or_foreign_disk_cache_is_made_again(data, tmp_path):
    folder = tmp_path / "cache"
    whole = build_disk_cache(data, CANVAS, Preprocess(), folder).batch(np.arange(7))
    (pixels,) = folder.glob("*.npy")
    (description,) = folder.glob("*.json")
    assert {p.suffix for p in folder.iterdir()} == {".npy", ".json"}
    for damage in (lambda: description.unlink(), lambda: pixels.write_bytes(b"no array"), lambda: pixels.unlink()):
        damage()
        assert same(build_disk_cache(data, CANVAS, Preprocess(), folder).batch(np.arange(7)), whole)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another folder"):
        build_disk_cache(data, CANVAS, Preprocess(), tmp_path / "file" / "below")


def test_what_was_left_out_of_a_disk_cache_is_named_each_time(data, tmp_path):
    data = dataclasses.replace(data, skip_bad=True)
    source = data.records[2].source
    source.write_bytes(source.read_bytes()[:900])
    for _ in range(2):
        cache = build_disk_cache(data, CANVAS, Preprocess(), tmp_path / "cache")
        assert len(cache) == 6 and [f.where for f in cache.dataset.summary.of("skipped")] == [data.records[2].file_name]
        reference = build_cache(data, CANVAS, Preprocess())
        assert same(cache.batch(np.arange(6)), reference.batch(np.arange(6)))


@pytest.mark.parametrize("threads", [1, 3])
def test_grain_reads_in_the_order_it_is_given_and_resumes_at_a_step(threads):
    order = lambda step: sample_indices(1, step, 4, 11)  # noqa: E731
    steps = itertools.islice(read_ahead(order, lambda i: 10 * i, 6, threads=threads), 9)
    assert [list(s) for s in steps] == [list(10 * order(t)) for t in range(6, 15)]


def test_streamed_batches_do_not_depend_on_the_number_of_threads(data):
    cache = build_cache(data, CANVAS, Preprocess())
    for threads in (1, 4):
        stream = stream_images(data, CANVAS, Preprocess(), threads=threads)
        pairs = zip(training_batches(cache, 2, 3, 7), training_batches(stream, 2, 3, 7), strict=False)
        assert all(same(a, b) for a, b in itertools.islice(pairs, 4))


def test_an_image_that_cannot_be_read_raises_where_its_batch_would_have_come(data):
    data.records[5].source.write_bytes(b"\xff\xd8\xff")
    stream = stream_images(data, CANVAS, Preprocess(), threads=2)
    batches = stream.batches(lambda step: np.array([step, step + 1]))
    for step in range(4):
        assert next(batches).image_id.tolist() == stream.image_ids[[step, step + 1]].tolist()
    with pytest.raises(DataError, match=r"damaged|not an image"):
        next(batches)
