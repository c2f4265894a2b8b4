"""Data sets from arrays and records are those that the file readers would give, and what is wrong is named."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from tests.data.test_stream import same
from yolojax.data import (
    Dataset,
    device_batches,
    open_dataset,
    open_input_images,
    shapes_dataset,
    take_fraction,
    uniform_sampler,
    write_coco,
)
from yolojax.data.check import check_dataset, label_sheet
from yolojax.errors import DataError
from yolojax.geometry import Preprocess

GREY = np.full((20, 30, 3), 9, np.uint8)


@pytest.fixture(scope="module")
def shapes():
    return shapes_dataset(6, size=(40, 56))


def arrays_of(dataset):
    return [r.source for r in dataset.records], [r.boxes for r in dataset.records], [r.classes for r in dataset.records]


def test_arrays_give_the_data_set_that_files_would(shapes, tmp_path):
    write_coco({"train": shapes}, tmp_path)
    read = open_dataset(tmp_path, "train")
    names = [r.file_name for r in read.records]
    made = Dataset.from_arrays(*arrays_of(shapes), shapes.class_names, names=names)
    assert made.class_names == read.class_names and made.category_ids == read.category_ids
    for a, b in zip(made.records, read.records, strict=True):
        np.testing.assert_array_equal(a.pixels(), b.pixels())
        assert (a.image_id, a.file_name, a.size) == (b.image_id, b.file_name, b.size)
        for field in ("classes", "crowd", "difficult", "annotation_ids"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
    assert not made.summary.findings
    stacked = Dataset.from_arrays(np.stack(arrays_of(shapes)[0]), *arrays_of(shapes)[1:], shapes.class_names)
    assert stacked.records[5].file_name == "000006" and stacked.object_count == shapes.object_count


def test_classes_by_name_crowds_and_ids():
    data = Dataset.from_arrays(
        [GREY, GREY],
        [[[0, 0, 5, 5], [1, 1, 9, 9]], []],
        [["b", "a"], []],
        ("a", "b"),
        crowd=[[False, True], []],
        image_ids=[7, 3],
    )
    assert data.records[0].classes.tolist() == [1, 0] and data.records[0].crowd.tolist() == [False, True]
    assert [r.image_id for r in data.records] == [7, 3]
    truth = data.to_coco()
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1]
    assert truth["annotations"][1]["bbox"] == [1, 1, 8, 8] and truth["annotations"][0]["category_id"] == 2


def test_boxes_are_clipped_dropped_and_counted_as_by_the_file_readers(tmp_path):
    boxes = [[-4, 2, 8, 9], [3, 3, 3, 9], [40, 0, 50, 9], [1, 1, 30.02, 20]]
    data = Dataset.from_arrays([GREY], [boxes], [[0] * 4], ("a",))
    assert data.summary.counts() == {"clipped": 1, "dropped": 2}
    for first in (0, np.int64(0)):
        np.testing.assert_array_equal(data.records[first].boxes, [[0, 2, 8, 9], [1, 1, 30, 20]])
    (tmp_path / "images").mkdir()
    Image.fromarray(GREY).save(tmp_path / "images" / "a.png")
    rows = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, (x1, y1, x2, y2) in enumerate(boxes, 1)
    ]
    file = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "a"}], "annotations": rows}
    (tmp_path / "instances_train.json").write_text(json.dumps(file))
    read = open_dataset(tmp_path / "instances_train.json")
    assert read.summary.counts() == data.summary.counts()
    np.testing.assert_array_equal(read.records[0].boxes, data.records[0].boxes)


@pytest.mark.parametrize("image", [GREY[..., 0], GREY[..., :1], np.concatenate([GREY, GREY[..., :1]], 2)])
def test_grey_images_become_rgb_and_alpha_is_dropped(image):
    data = Dataset.from_arrays([image], [[]], [[]], ("a",))
    np.testing.assert_array_equal(data.records[0].pixels(), GREY)


WRONG = [
    ({"boxes": [[]]}, "2 images, but boxes has 1 entries"),
    ({"names": ["x"]}, "names has 1 entries"),
    ({"image_ids": [1, 1]}, "images 0 and 1 have the same image_id 1"),
    ({"image_ids": [1, -1]}, "image 1: image_id is -1"),
    ({"names": ["x", "x"]}, "images 0 and 1 have the same file_name 'x'"),
    ({"images": [GREY, GREY / 255]}, "image 1: the image holds float64, not uint8 pixels; multiply by 255"),
    ({"images": [GREY, GREY.astype(np.int32)]}, "image 1: the image holds int32, not uint8 pixels; convert"),
    (
        {"images": [GREY, GREY.transpose(2, 0, 1)]},
        r"image 1: the image has shape \(3, 20, 30\), not \[height, width, 3\]",
    ),
    ({"images": [GREY, GREY[:0]]}, "image 1: an image of 30 x 0 pixels"),
    ({"boxes": [[], [[1, 2, 3]]]}, r"image 1: boxes have shape \(1, 3\), not \[k, 4\]"),
    ({"boxes": [[], [[1, 2, 3, 4], [1, 2, 3]]]}, "image 1: boxes: must be an array of numbers"),
    ({"boxes": [[], [[1, 2, np.nan, 4]]]}, "image 1, object 0: box .* is not finite"),
    ({"boxes": [[], [[10, 12, 4, 15]]]}, r"image 1, object 0: box .* is inverted; .* not \(x, y, width, height\)"),
    ({"classes": [[], []]}, "image 1: 1 boxes, but 0 classes"),
    ({"classes": [[], [2]]}, "image 1, object 0: class 2 is out of range; the classes are 0 cat, 1 dog"),
    ({"classes": [[], [-1]]}, "class -1 is out of range"),
    ({"classes": [[], [0.5]]}, "class 0.5 is neither an integer nor the name"),
    ({"classes": [[], ["cow"]]}, "image 1, object 0: unknown class 'cow'; the classes are cat, dog"),
    ({"crowd": [[], [2]]}, "crowd must hold True or False for each of the 1 boxes"),
    ({"class_names": ("cat", "cat")}, "classes listed more than once: cat"),
    ({"images": [], "boxes": [], "classes": []}, "no image was given"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_is_wrong_is_named(change, said):
    arguments = {
        "images": [GREY, GREY],
        "boxes": [[], [[1, 2, 3, 4]]],
        "classes": [[], [1]],
        "class_names": ("cat", "dog"),
        **change,
    }
    with pytest.raises(DataError, match=said):
        Dataset.from_arrays(**arguments)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"image": GREY, "boxes": []}, "image 0: has no 'classes'"),
        (
            {"image": GREY, "boxes": [], "classes": [], "label": 1},
            "unknown key 'label'; a record may have image",
        ),
        ({"image": GREY, "boxes": [], "classes": [], "size": (20, 31)}, r"size is \(20, 31\), but the image has"),
        ({"image": lambda: GREY, "boxes": [], "classes": [], "size": (20, 30)}, "needs a name"),
        ({"image": lambda: GREY, "boxes": [], "classes": [], "file_name": "x"}, r"image 0 \(x\): .* needs its size"),
        ({"image": "none.png", "boxes": [], "classes": []}, "none.png: image file is missing"),
    ],
)
def test_records_that_are_wrong_are_named(record, said):
    with pytest.raises(DataError, match=said):
        Dataset.from_records([record], ("a",))


def lazy(shapes, calls=None):
    def load(record):
        if calls is not None:
            calls.append(record.file_name)
        return record.source

    return [
        {
            "image": lambda r=r: load(r),
            "boxes": r.boxes,
            "classes": [shapes.class_names[c] for c in r.classes],
            "file_name": r.file_name,
            "size": r.size,
        }
        for r in shapes.records
    ]


def test_lazy_images_are_loaded_when_they_are_needed(shapes, tmp_path):
    calls = []
    data = Dataset.from_records(lazy(shapes, calls), shapes.class_names)
    assert not calls and len(data) == 6
    np.testing.assert_array_equal(data.records[2].pixels(), shapes.records[2].source)
    assert len(calls) == 1
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    of_file = Dataset.from_records(iter([{"image": path, "boxes": [[1, 1, 5, 5]], "classes": [0]}]), ("a",))
    np.testing.assert_array_equal(of_file.records[0].pixels(), GREY)
    assert of_file.records[0].size == (20, 30) and of_file.records[0].file_name == str(path)


def test_what_a_data_set_holds_is_seen_where_it_is_printed():
    data = Dataset.from_arrays([GREY, GREY], [[], [[1, 2, 3, 4]]], [[], [1]], ("cat", "dog"))
    assert "records=<2 images with 1 objects>" in repr(data)


def test_a_function_that_fails_or_gives_another_size_is_named():
    def broken():
        raise KeyError("gone")

    bad = {"boxes": [], "classes": [], "size": (20, 30)}
    records = [{**bad, "image": broken, "file_name": "x"}, {**bad, "image": lambda: GREY[:9], "file_name": "y"}]
    data = Dataset.from_records([*records, {"image": GREY, "boxes": [], "classes": []}], ("a",))
    with pytest.raises(DataError, match=r"x: the function that gives this image raised KeyError\('gone'\)"):
        data.records[0].pixels()
    with pytest.raises(DataError, match=r"y: .* gave \(height, width\) = \(9, 30\), but .* size = \(20, 30\)"):
        data.records[1].pixels()
    patient = open_input_images(dataclasses.replace(data, skip_bad=True), (32, 32), Preprocess(), cache="memory")
    assert [f.where for f in patient.dataset.summary.of("skipped")] == ["x", "y"] and len(patient) == 1


def test_the_fingerprint_covers_labels_and_pixels_or_names(shapes):
    images, boxes, classes = arrays_of(shapes)
    make = lambda images=images, boxes=boxes, **more: Dataset.from_arrays(  # noqa: E731
        images, boxes, classes, shapes.class_names, **more
    ).fingerprint()
    prints = [
        make(),
        make([images[0] ^ 1, *images[1:]]),
        make(boxes=[boxes[0] + 1, *boxes[1:]]),
        make(names=list("abcdef")),
    ]
    assert len(set(prints)) == 4 and make() == prints[0]
    named = [Dataset.from_records(lazy(shapes), shapes.class_names).fingerprint() for _ in range(2)]
    renamed = [{**r, "file_name": f"new-{r['file_name']}"} for r in lazy(shapes)]
    assert named[0] == named[1] != Dataset.from_records(renamed, shapes.class_names).fingerprint()


def test_arrays_and_lazy_images_work_with_every_storage_and_with_fractions(shapes, tmp_path):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    shardings = jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))
    made = (
        Dataset.from_arrays(*arrays_of(shapes), shapes.class_names, names=[r.file_name for r in shapes.records]),
        Dataset.from_records(lazy(shapes), shapes.class_names),
    )
    sampler = uniform_sampler(4, 2)
    results = []
    for data in made:
        part = take_fraction(data, 0.6, 1)
        assert len(part) == 4
        for name in ("memory", "disk", "disk", "device", "stream"):
            images = open_input_images(
                part, (32, 64), Preprocess(), cache=name, cache_folder=tmp_path, shardings=shardings
            )
            results.append(next(device_batches(images, sampler, 0, 2, shardings[1])))
    for ids, batch in results[1:]:
        np.testing.assert_array_equal(ids, results[0][0])
        assert same(jax.device_get(batch), jax.device_get(results[0][1]))


def test_they_are_checked_and_drawn_like_files(shapes):
    data = Dataset.from_records(lazy(shapes), shapes.class_names)
    assert check_dataset(data).text() == check_dataset(shapes).text()
    np.testing.assert_array_equal(label_sheet(data), label_sheet(shapes))
