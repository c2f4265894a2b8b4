"""The choice of training and validation images, and the input size that follows from them."""

import dataclasses

import numpy as np
import pytest

from yolojax.data import (
    box_sizes_on_input,
    choose_input_size,
    open_splits,
    shapes_dataset,
    split_named,
    take_fraction,
    validation_split,
)
from yolojax.errors import ConfigError, DataError


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
    train, val = open_splits("shapes:?count=3&size=64")
    assert val is not None and train.class_names == val.class_names
    assert not np.array_equal(train.records[0].pixels(), val.records[0].pixels())
    assert validation_split("shapes") == "val"


def test_one_named_part_is_trained_on_without_validation():
    train, val = open_splits("shapes:train?count=3&size=64")
    assert len(train) == 3 and val is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "shapes:val?count=2"}, ConfigError, "none of its splits .val. is clearly the one to train on"),
        ({"path": "shapes", "train_split": "val", "val_split": "val"}, ConfigError, "both be on 'val'"),
        ({"path": "shapes:train", "train_split": "test"}, DataError, "names the split 'train'"),
        ({"path": "nowhere"}, DataError, "nowhere"),
    ],
)
def test_training_on_what_measures_it_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        open_splits(**arguments)


def test_a_fraction_is_drawn_by_the_seed_and_keeps_the_order():
    whole = shapes_dataset(20, size=(64, 64))
    ids = [[r.image_id for r in take_fraction(whole, 0.3, seed).records] for seed in (0, 0, 1)]
    assert len(ids[0]) == 6 and ids[0] == ids[1] != ids[2] and ids[0] == sorted(ids[0])
    assert len(take_fraction(whole, 1e-6, 0)) == 1 and take_fraction(whole, 1.0, 0) is whole


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
    dataset = shapes_dataset(1, size=(64, 64))
    (record,) = dataset.records
    dataset = dataclasses.replace(dataset, records=tuple(dataclasses.replace(record, size=s) for s in sizes))
    assert choose_input_size(dataset, 320, rectangular=rectangular) == expected


@pytest.mark.parametrize("size", [0, 33, -32])
def test_an_input_size_that_the_strides_do_not_divide_is_refused(size):
    with pytest.raises(ConfigError, match="multiple of 32"):
        choose_input_size(shapes_dataset(1, size=(64, 64)), size)


def test_box_sizes_are_those_of_the_letterboxed_image():
    dataset = shapes_dataset(4, size=(64, 128))
    sizes = box_sizes_on_input(dataset, (64, 64))
    boxes = np.concatenate([r.boxes for r in dataset.records])
    np.testing.assert_allclose(sizes, (boxes[:, 2:] - boxes[:, :2]) / 2, rtol=1e-6)
