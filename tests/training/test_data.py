"""What a run takes from its data: splits, input image, room for objects, and what it says about both."""

import dataclasses

import numpy as np
import pytest

from yolojax.config import DataConfig
from yolojax.data import box_sizes_on_input, choose_input_size, shapes_dataset, split_named
from yolojax.errors import ConfigError, DataError
from yolojax.processor.memory import devices_for
from yolojax.progress import Quiet
from yolojax.training.data import open_data


@pytest.mark.parametrize(
    ("name", "available", "expected"),
    [
        ("val", ("train", "val", "test"), "val"),
        ("val", ("train2017", "val2017"), "val2017"),
        ("train", ("train1", "train2", "val"), None),
        ("train", ("val",), None),
        ("train", (), None),
    ],
)
def test_a_split_is_taken_only_where_it_is_clear(name, available, expected):
    assert split_named(name, available) == expected


def test_generated_images_come_in_two_different_parts():
    train, val = open_data(DataConfig(path="shapes:?count=3&size=64"), 0, None, Quiet())
    assert val is not None
    assert train.class_names == val.class_names
    assert not np.array_equal(train.records[0].pixels(), val.records[0].pixels())


def test_one_named_part_is_trained_on_without_validation():
    train, val = open_data(DataConfig(path="shapes:train?count=3&size=64"), 0, None, Quiet())
    assert len(train) == 3 and val is None


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (DataConfig(path="shapes:val?count=2"), ConfigError, "none of its splits .val. is clearly the one to train on"),
        (DataConfig(path="shapes", train_split="val", val_split="val"), ConfigError, "both be on 'val'"),
        (DataConfig(path="shapes:train", train_split="test"), DataError, "names the split 'train'"),
        (DataConfig(path="nowhere"), DataError, "nowhere"),
    ],
)
def test_training_on_what_measures_it_is_refused(config, error, message):
    with pytest.raises(error, match=message):
        open_data(config, 0, None, Quiet())


@pytest.mark.parametrize(
    ("sizes", "rectangular", "expected"),
    [
        (((480, 640), (240, 320)), True, (256, 320)),
        (((640, 480),), True, (320, 256)),
        (((480, 640), (640, 480)), True, (320, 320)),
        (((480, 640),), False, (320, 320)),
        (((10, 3000),), True, (32, 320)),
        (((64, 64),), True, (320, 320)),
    ],
)
def test_the_input_follows_the_shape_that_all_images_share(sizes, rectangular, expected):
    record = shapes_dataset(1, size=(64, 64)).records[0]
    dataset = shapes_dataset(1, size=(64, 64))
    dataset = dataclasses.replace(dataset, records=tuple(dataclasses.replace(record, size=s) for s in sizes))
    assert choose_input_size(dataset, 320, rectangular=rectangular) == expected


def test_box_sizes_are_those_of_the_letterboxed_image():
    dataset = shapes_dataset(4, size=(64, 128))
    sizes = box_sizes_on_input(dataset, (64, 64))
    boxes = np.concatenate([r.boxes for r in dataset.records])
    np.testing.assert_allclose(sizes, (boxes[:, 2:] - boxes[:, :2]) / 2, rtol=1e-6)


def test_devices_share_a_batch_equally():
    for batch in (1, 3, 16, 17):
        assert batch % devices_for(batch) == 0
    assert devices_for(1) == 1
