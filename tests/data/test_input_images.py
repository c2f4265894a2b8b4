"""Batches: what images they hold, what lies on the input image, and what of the objects fits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolojax.data import (
    Dataset,
    ImageRecord,
    build_cache,
    load_input_image,
    padded_objects,
    sample_indices,
)
from yolojax.errors import ConfigError, DataError
from yolojax.geometry import Preprocess, batch_to_original


def record(image_id, source, boxes, size=None, classes=None, crowd=None):
    n = len(boxes)
    boxes = np.array(boxes, np.float32).reshape(n, 4)
    return ImageRecord(
        image_id=image_id,
        file_name=f"{image_id}.png",
        source=source,
        size=size or source.shape[:2],
        boxes=boxes,
        classes=np.array(classes if classes is not None else [0] * n, np.int32),
        crowd=np.array(crowd if crowd is not None else [False] * n, bool),
        difficult=np.zeros(n, bool),
        areas=((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float64),
        annotation_ids=np.arange(1, n + 1),
    )


def dataset(records, **fields):
    return Dataset(class_names=("a", "b"), category_ids=(1, 2), records=tuple(records), **fields)


@pytest.fixture
def three():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((48, 64), (64, 32), (64, 64))]
    return dataset(
        [
            record(5, pictures[0], [[0, 0, 32, 24], [16, 8, 64, 48]], classes=[1, 0], crowd=[False, True]),
            record(6, pictures[1], []),
            record(2**40, pictures[2], [[1, 2, 3, 4]]),
        ]
    )


@pytest.mark.parametrize(("seed", "batch_size", "n"), [(0, 4, 10), (3, 16, 5), (1, 7, 7), (2, 1, 1)])
def test_the_stream_is_one_permutation_after_the_other(seed, batch_size, n):
    steps = -(-3 * n // batch_size) + 1
    stream = np.concatenate([sample_indices(seed, t, batch_size, n) for t in range(steps)])
    assert len(stream) == steps * batch_size
    epochs = [stream[e * n : (e + 1) * n] for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    if n >= 5:
        assert not np.array_equal(epochs[0], epochs[1])
        assert not np.array_equal(epochs[0], sample_indices(seed + 1, 0, n, n))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 20))
def test_a_batch_depends_on_seed_and_step_alone(seed, step, batch_size, n):
    first = sample_indices(seed, step, batch_size, n)
    sample_indices(seed + 1, step + 5, batch_size, n)
    np.testing.assert_array_equal(first, sample_indices(seed, step, batch_size, n))


def test_the_stream_stays_the_same_across_versions():
    # Recorded once: a change here would break the resuming of runs that were started before it.
    np.testing.assert_array_equal(sample_indices(0, 3, 8, 20), [11, 15, 12, 5, 17, 19, 1, 16])


@pytest.mark.parametrize("arguments", [(-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)])
def test_senseless_samples_are_refused(arguments):
    with pytest.raises(ConfigError, match="at least"):
        sample_indices(*arguments)


def test_a_photo_lies_where_its_placement_says_and_the_rest_is_padding(three):
    image, placement = load_input_image(three.records[0], (64, 64), Preprocess(pad=7))
    np.testing.assert_array_equal(image[8:56], three.records[0].source)
    assert (image[:8] == 7).all() and (image[56:] == 7).all()
    assert placement.content == (0, 8, 64, 56)


def test_shrinking_is_antialiased():
    """A one-pixel checkerboard has the mean 127.5; picking pixels would give 0 or 255."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    picture = np.repeat(board[:, :, None], 3, 2).astype(np.uint8)
    image, _ = load_input_image(record(1, picture, []), (32, 32), Preprocess())
    assert np.abs(image.astype(int) - 127.5).max() <= 3


def test_enlarging_is_bilinear_between_pixel_centres():
    ramp = np.repeat(np.arange(0, 256, 32, dtype=np.uint8)[None, :, None], 8, 0).repeat(3, 2)
    image, _ = load_input_image(record(1, ramp, []), (16, 16), Preprocess())
    centres = (np.arange(16) + 0.5) / 2 - 0.5
    expected = np.interp(centres, np.arange(8), ramp[0, :, 0])
    assert np.abs(image[3, :, 0] - expected).max() <= 1


@pytest.mark.parametrize("input_size", [(64, 64), (40, 72), (200, 160)])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_pixels_and_boxes_go_to_the_same_place(input_size, resize):
    """The moments of a white box on black, measured on the resized pixels, are those of its mapped coordinates.

    A wrong pixel-centre convention would move them by up to half a pixel; sampling the filter moves them by hundredths.
    """
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[21:54, 37:91] = 255
    data = dataset([record(1, picture, [[37, 21, 91, 54]])])
    cache = build_cache(data, input_size, Preprocess(resize=resize, pad=0))
    x1, y1, x2, y2 = cache.targets.boxes[0, 0]
    light = cache.images[0, :, :, 0].astype(float) / 255
    across, down = light.max(0), light.max(1)
    assert across.sum() == pytest.approx(x2 - x1, abs=0.1) and down.sum() == pytest.approx(y2 - y1, abs=0.1)
    assert across @ (np.arange(input_size[1]) + 0.5) / across.sum() == pytest.approx((x1 + x2) / 2, abs=0.1)
    assert down @ (np.arange(input_size[0]) + 0.5) / down.sum() == pytest.approx((y1 + y2) / 2, abs=0.1)


def test_targets_and_batches_hold_what_the_records_hold(three):
    calls = []
    cache = build_cache(three, (64, 64), Preprocess(), progress=lambda *a: calls.append(a))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert cache.targets.boxes.shape == (3, 32, 4)
    np.testing.assert_array_equal(cache.targets.valid.sum(1), [2, 0, 1])
    np.testing.assert_array_equal(cache.targets.classes[0, :2], [1, 0])
    np.testing.assert_array_equal(cache.targets.crowd[0, :2], [False, True])
    np.testing.assert_array_equal(cache.targets.boxes[0, :2], [[0, 8, 32, 32], [16, 16, 64, 56]])
    batch = cache.batch(np.array([2, 0, 2]))
    for row, i in enumerate((2, 0, 2)):
        np.testing.assert_array_equal(batch.images[row], load_input_image(three.records[i], (64, 64), Preprocess())[0])
        np.testing.assert_array_equal(batch.targets.boxes[row], cache.targets.boxes[i])
    np.testing.assert_array_equal(cache.image_ids, [5, 6, 2**40])
    np.testing.assert_array_equal(cache.sizes, [[48, 64], [64, 32], [64, 64]])
    np.testing.assert_array_equal(cache.content[:2], [[0, 8, 64, 56], [16, 0, 48, 64]])


def test_boxes_come_back_from_the_input(three):
    cache = build_cache(three, (96, 160), Preprocess())
    for i, source in enumerate(three.records):
        back = batch_to_original(cache.targets.boxes[i : i + 1], cache.content[i : i + 1], cache.sizes[i : i + 1])[0]
        np.testing.assert_allclose(back[cache.targets.valid[i]], source.boxes, atol=1e-4)


def test_padding_rows_hold_a_box_with_extent(three):
    boxes = build_cache(three, (64, 64), Preprocess()).targets.boxes
    assert (boxes[..., 2:] > boxes[..., :2]).all()


@pytest.mark.parametrize(("most", "expected"), [(0, 32), (32, 32), (33, 64), (200, 256)])
def test_the_padding_is_the_smallest_power_that_holds_all(most, expected):
    data = dataset([record(1, np.zeros((8, 8, 3), np.uint8), [[0, 0, 1, 1]] * most)])
    assert padded_objects(data) == expected
    assert padded_objects(data, cap=40) == min(expected, 40)


def test_beyond_the_cap_crowds_go_first_then_the_smallest_whatever_the_order():
    picture = np.zeros((64, 64, 3), np.uint8)
    boxes = [[0, 0, 60, 60], [0, 0, 5, 5], [0, 0, 9, 9], [0, 0, 7, 7], [0, 0, 8, 8]]
    crowd = [True, False, False, False, False]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [3, 1, 4, 0, 2]):
        data = dataset([record(1, picture, [boxes[i] for i in order], crowd=[crowd[i] for i in order])])
        targets = build_cache(data, (64, 64), Preprocess(), max_objects=3).targets
        assert targets.dropped[0] == 2 and targets.valid.all() and not targets.crowd.any()
        np.testing.assert_array_equal(np.sort(targets.boxes[0, :, 2]), [7, 8, 9])


def test_an_image_that_fails_to_decode_is_an_error_or_left_out_by_name(tmp_path: Path):
    good = tmp_path / "good.png"
    Image.fromarray(np.full((16, 16, 3), 9, np.uint8)).save(good)
    broken = tmp_path / "broken.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(broken)
    broken.write_bytes(broken.read_bytes()[:2000])
    data = dataset([record(1, good, [], (16, 16)), record(2, broken, [], (64, 64))])
    with pytest.raises(DataError, match=r"broken\.png.*damaged"):
        build_cache(data, (32, 32), Preprocess())
    cache = build_cache(dataclasses.replace(data, skip_bad=True), (32, 32), Preprocess())
    assert len(cache) == 1 and cache.image_ids.dtype == np.int32 and list(cache.image_ids) == [1]
    assert len(cache.dataset) == 1 and [f.where for f in cache.dataset.summary.of("skipped")] == ["2.png"]
    assert (cache.images == 9).all()
    only_bad = dataclasses.replace(data, skip_bad=True, records=data.records[1:])
    with pytest.raises(DataError, match="no image that can be decoded"):
        build_cache(only_bad, (32, 32), Preprocess())


def test_an_image_that_changed_its_size_since_opening_is_refused(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    with pytest.raises(DataError, match="open the data set again"):
        load_input_image(record(1, path, [], (16, 17)), (32, 32), Preprocess())


def test_a_box_whose_sides_are_crossed_has_no_extent():
    """It is a detection all the same, and evaluation takes it; unclipped it comes back as it is."""
    boxes = np.array([[[30.0, 10, 20, 40], [5, 60, 25, 8], [-9, -9, 90, 50]]], np.float32)
    content, size = np.array([[0.0, 0, 64, 64]], np.float32), np.array([[32, 64]])
    back = batch_to_original(boxes, content, size)
    np.testing.assert_array_equal(back, [[[30, 5, 30, 20], [5, 30, 25, 30], [0, 0, 64, 25]]])
    unclipped = batch_to_original(boxes, content, size, clip=False)
    np.testing.assert_array_equal(unclipped, [[[30, 5, 20, 20], [5, 30, 25, 4], [-9, -4.5, 90, 25]]])
