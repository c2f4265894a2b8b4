"""Where input images are kept changes nothing about the batches, and Grain reads them in the sampler's order."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from tests.data.test_stream import same
from yolojax.data import (
    Capacity,
    build_cache,
    build_disk_cache,
    choose_storage,
    device_batches,
    measure_capacity,
    open_dataset,
    open_input_images,
    sample_indices,
    shapes_dataset,
    stream_images,
    to_devices,
    uniform_sampler,
    write_yolo,
)
from yolojax.data.grain_feed import read_ahead
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess

INPUT_SIZE = (32, 64)


@pytest.fixture
def data(tmp_path):
    write_yolo({"train": shapes_dataset(7, size=(40, 56))}, tmp_path / "set")
    return open_dataset(tmp_path / "set")


def test_the_fastest_storage_with_capacity_is_taken():
    capacity = Capacity(device=10, memory=100, disk=1000)
    assert [choose_storage(n, capacity) for n in (10, 11, 100, 101, 1000, 1001)] == [
        "device",
        "memory",
        "memory",
        "disk",
        "disk",
        "stream",
    ]
    assert choose_storage(10, capacity._replace(device=None)) == "memory"


def test_capacity_is_measured(tmp_path):
    capacity = measure_capacity(tmp_path / "not" / "there")
    on_processor = jax.default_backend() == "cpu"  # its device memory is the host's
    assert capacity.device is None if on_processor else capacity.device > 2**20
    assert capacity.memory > 2**20 and capacity.disk > 2**20


def two_devices():
    """Shardings over two devices: everything on each, and a batch divided."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))


def test_batches_are_the_same_from_every_storage(data, tmp_path):
    shardings = two_devices()
    storages = [
        open_input_images(data, INPUT_SIZE, Preprocess(), cache=name, cache_folder=tmp_path, shardings=shardings)
        for name in ("memory", "disk", "device", "stream")
    ]
    assert [type(s).__name__ for s in storages] == ["ImageCache", "DiskCache", "DeviceCache", "ImageStream"]
    sampler = uniform_sampler(7, 4)
    on_devices = [device_batches(s, sampler, 3, 4, shardings[1], first_step=5) for s in storages]
    for step in range(5, 8):
        ids, batches = zip(*(next(b) for b in on_devices), strict=True)
        assert all(leaf.sharding == shardings[1] for batch in batches for leaf in jax.tree.leaves(batch))
        for own_ids, batch in zip(ids, batches, strict=True):
            np.testing.assert_array_equal(own_ids, storages[0].image_ids[sampler(3, step)])
            assert same(jax.device_get(batches[0]), jax.device_get(batch))


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_device_cache_serves_any_number_of_rows_on_two_devices(data, rows):
    """One row once ended every run on several devices: the gather divided it over them."""
    cache = build_cache(data, INPUT_SIZE, Preprocess())
    device = to_devices(cache, *two_devices())
    indices = np.arange(rows)[::-1].copy()
    assert same(jax.device_get(device.batch(indices)), cache.batch(indices))
    assert len(device.load(indices)[0].sharding.device_set) == 2


def test_a_device_cache_without_devices_to_lie_on_is_refused(data):
    with pytest.raises(ConfigError, match="no sharding over devices"):
        open_input_images(data, INPUT_SIZE, Preprocess(), cache="device")


def test_a_disk_cache_is_made_once_and_anew_when_an_image_changes(data, tmp_path):
    calls = []
    make = lambda data, input_size=INPUT_SIZE: build_disk_cache(  # noqa: E731
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
    whole = build_disk_cache(data, INPUT_SIZE, Preprocess(), folder).batch(np.arange(7))
    (pixels,) = folder.glob("*.npy")
    (description,) = folder.glob("*.json")
    assert {p.suffix for p in folder.iterdir()} == {".npy", ".json"}
    for damage in (lambda: description.unlink(), lambda: pixels.write_bytes(b"no array"), lambda: pixels.unlink()):
        damage()
        assert same(build_disk_cache(data, INPUT_SIZE, Preprocess(), folder).batch(np.arange(7)), whole)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="another folder"):
        build_disk_cache(data, INPUT_SIZE, Preprocess(), tmp_path / "file" / "below")


def test_what_was_left_out_of_a_disk_cache_is_named_each_time(data, tmp_path):
    data = dataclasses.replace(data, skip_bad=True)
    source = data.records[2].source
    source.write_bytes(source.read_bytes()[:900])
    for _ in range(2):
        cache = build_disk_cache(data, INPUT_SIZE, Preprocess(), tmp_path / "cache")
        assert len(cache) == 6 and [f.where for f in cache.dataset.summary.of("skipped")] == [data.records[2].file_name]
        reference = build_cache(data, INPUT_SIZE, Preprocess())
        assert same(cache.batch(np.arange(6)), reference.batch(np.arange(6)))


@pytest.mark.parametrize("threads", [1, 3])
def test_grain_reads_in_the_order_it_is_given_and_resumes_at_a_step(threads):
    order = lambda step: sample_indices(1, step, 4, 11)  # noqa: E731
    steps = itertools.islice(read_ahead(order, lambda i: 10 * i, 6, threads=threads), 9)
    assert [list(s) for s in steps] == [list(10 * order(t)) for t in range(6, 15)]


def test_streamed_batches_do_not_depend_on_the_number_of_threads(data):
    cache = build_cache(data, INPUT_SIZE, Preprocess())
    sampler = uniform_sampler(7, 3)
    for threads in (1, 4):
        stream = stream_images(data, INPUT_SIZE, Preprocess(), threads=threads)
        pairs = zip(*(s.batches(lambda t: sampler(2, t), 7) for s in (cache, stream)), strict=False)
        assert all(same(a, b) for (_, a), (_, b) in itertools.islice(pairs, 4))


def test_an_image_that_cannot_be_read_raises_where_its_batch_would_have_come(data):
    data.records[5].source.write_bytes(b"\xff\xd8\xff")
    stream = stream_images(data, INPUT_SIZE, Preprocess(), threads=2)
    batches = stream.batches(lambda step: np.array([step, step + 1]))
    for step in range(4):
        assert next(batches)[0].tolist() == [step, step + 1]
    with pytest.raises(DataError, match=r"damaged|not an image"):
        next(batches)


def test_a_batch_carries_the_id_of_the_image_that_stands_in_for_a_damaged_one(data):
    data.records[5].source.write_bytes(b"\xff\xd8\xff")
    stream = stream_images(dataclasses.replace(data, skip_bad=True), INPUT_SIZE, Preprocess(), threads=2)
    cache = build_cache(data.take([0, 1, 2, 3, 4, 6]), INPUT_SIZE, Preprocess())
    ids, batch = next(device_batches(stream, lambda seed, step: np.array([5, 0]), 0, 2, two_devices()[1]))
    assert ids.tolist() == [data.records[6].image_id, data.records[0].image_id]
    assert same(jax.device_get(batch), cache.batch(np.array([5, 0])))
