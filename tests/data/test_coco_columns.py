"""Large COCO files are read piece by piece: to the same columns and findings as entry by entry."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from yolojax.data import coco, coco_columns
from yolojax.data.coco_columns import read_plain
from yolojax.data.opening import read_dataset
from yolojax.errors import DataError

RLE = {"size": [30, 40], "counts": [5, 20, 5]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for i in range(4):
        Image.fromarray(np.full((30, 40, 3), i, np.uint8)).save(folder / f"p{i}.jpg")
    return folder


def content(annotations: int = 12) -> dict:
    """Images in an order that is not that of the annotations; some boxes are clipped and one has no extent."""
    random = np.random.default_rng(3)
    boxes = random.uniform(0, 25, (annotations, 4)).round(2).tolist()
    boxes[0][2] = 0
    return {
        "info": {"description": 'a "}, {" within', "year": 2020},
        "annotations": [
            {
                "id": 100 - i,
                "image_id": 30 + i % 3,
                "category_id": (7, 3)[i % 2],
                "bbox": box,
                "area": box[2] * box[3] if i % 4 else None,
                "iscrowd": int(i % 5 == 0),
                "segmentation": RLE if i % 5 == 0 else [[1, 2, 3, 4.5]],
                "note": "}, {",
            }
            for i, box in enumerate(boxes)
        ],
        "images": [{"id": 33 - i, "file_name": f"p{i}.jpg", "height": 30, "width": 40} for i in range(4)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }


def both(path, monkeypatch, **settings):
    """What is read of a file as columns and entry by entry: data sets or errors."""
    found = []
    for is_columns in (True, False):
        with monkeypatch.context() as patch:
            if not is_columns:
                patch.setattr(coco, "read_plain", lambda _: None)
            try:
                found.append(read_dataset(path, **settings))
            except DataError as error:
                found.append(str(error))
    return found


def assert_same(a, b) -> None:
    if isinstance(a, str) or isinstance(b, str):
        assert a == b
        return
    assert a.fingerprint() == b.fingerprint() and a.summary == b.summary
    for name in ("areas", "annotation_ids", "difficult", "upright", "sizes"):
        np.testing.assert_array_equal(getattr(a.columns, name), getattr(b.columns, name))
    assert a.to_coco() == b.to_coco() and a.coco.with_dropped == b.coco.with_dropped


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("piece", [40, 300, 2**20])
@pytest.mark.parametrize("has_orjson", [True, False])
def test_columns_are_what_the_entries_are(has_orjson, piece, indent, root, monkeypatch):
    """Pieces that end anywhere, also within texts that look like the gap between two entries."""
    monkeypatch.setattr(coco_columns, "_PIECE", piece)
    if not has_orjson:
        monkeypatch.setattr(coco_columns, "_orjson", None)
    path = root / "instances_x.json"
    path.write_text(json.dumps(content(60), indent=indent), encoding="utf-8-sig")
    assert read_plain(path) is not None
    first, second = both(path, monkeypatch)
    assert {"clipped", "dropped"} <= set(first.summary.counts())
    assert_same(first, second)


def change(*path, to=None, remove=False):
    def apply(made):
        place = made
        for step in path[:-1]:
            place = place[step]
        if remove:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return made

    return apply


ODD = {
    "id of 0": change("annotations", 4, "id", to=0),
    "id used twice": change("annotations", 4, "id", to=99),
    "id missing": change("annotations", 4, "id", remove=True),
    "text id": change("annotations", 4, "id", to="9"),
    "id beyond 64 bits": change("annotations", 4, "id", to=2**70),
    "unknown image": change("annotations", 4, "image_id", to=5),
    "unknown category": change("annotations", 4, "category_id", to=5),
    "fractional image id": change("annotations", 4, "image_id", to=30.5),
    "whole float image id": change("annotations", 4, "image_id", to=31.0),
    "bbox of three": change("annotations", 4, "bbox", to=[1, 2, 3]),
    "bbox missing": change("annotations", 4, "bbox", remove=True),
    "bbox of texts": change("annotations", 4, "bbox", to=["1", 2, 3, 4]),
    "negative width": change("annotations", 4, "bbox", to=[1, 2, -3, 4]),
    "bbox of NaN": change("annotations", 4, "bbox", to=[1, 2, float("nan"), 4]),
    "infinite bbox": change("annotations", 4, "bbox", to=[1, 2, float("inf"), 4]),
    "huge bbox": change("annotations", 4, "bbox", to=[1, 2, 3, 10**400]),
    "area of NaN": change("annotations", 4, "area", to=float("nan")),
    "negative area": change("annotations", 4, "area", to=-3),
    "text area": change("annotations", 4, "area", to="3"),
    "crowd of 2": change("annotations", 4, "iscrowd", to=2),
    "crowd of a list": change("annotations", 4, "iscrowd", to=[1]),
    "entry is a number": change("annotations", 4, to=3),
    "image id used twice": change("images", 1, "id", to=33),
    "file name used twice": change("images", 1, "file_name", to="p0.jpg"),
    "file name missing": change("images", 1, "file_name", remove=True),
    "missing file": change("images", 1, "file_name", to="p9.jpg"),
    "file above": change("images", 1, "file_name", to="../p1.jpg"),
    "swapped size": change("images", 1, to={"id": 32, "file_name": "p1.jpg", "height": 40, "width": 30}),
    "negative size": change("images", 1, "height", to=-30),
    "category without a name": change("categories", 1, "name", remove=True),
    "name used twice": change("categories", 1, "name", to="cat"),
    "list missing": change("categories", remove=True),
    "no images": change("images", to=[]),
    "list is a mapping": change("annotations", to={}),
}


@pytest.mark.parametrize("skip_bad", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_odd_files_say_what_they_said(odd, skip_bad, root, monkeypatch):
    path = root / "instances_x.json"
    path.write_text(json.dumps(ODD[odd](copy.deepcopy(content()))))
    assert_same(*both(path, monkeypatch, skip_bad=skip_bad))


ACCEPTED = {
    "crowd missing": change("annotations", 4, "iscrowd", remove=True),
    "crowd null": change("annotations", 4, "iscrowd", to=None),
    "ignore": change("annotations", 4, "ignore", to=1),
    "area missing": change("annotations", 4, "area", remove=True),
    "no size": change("images", 1, to={"id": 32, "file_name": "p1.jpg"}),
    "size of 0": change("images", 1, "height", to=0),
    "only a URL": change("images", 1, to={"id": 32, "coco_url": "http://x.org/p1.jpg"}),
    "no annotations": change("annotations", to=[]),
    "header of lists": change("info", to=[{"a": [1, {"b": 2}]}]),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_files_may_leave_out(name, root, monkeypatch):
    path = root / "instances_x.json"
    path.write_text(json.dumps(ACCEPTED[name](copy.deepcopy(content()))))
    assert read_plain(path) is not None
    assert_same(*both(path, monkeypatch, skip_bad=True))


def test_classes_of_the_caller(root, monkeypatch):
    path = root / "instances_x.json"
    path.write_text(json.dumps(content()))
    for names in (("cat", "dog"), ("bird", "dog", "cat"), ("dog",)):
        assert_same(*both(path, monkeypatch, class_names=names, skip_bad=True))


@pytest.mark.parametrize(
    "twice",
    ['{"id": 1, "id": 2}', '{"id" : 1, "id" : 2}', '{"id": 1, "a": ":\\":", "id": 2}', '{"s": {"id": 1, "id": 1}}'],
)
def test_a_key_given_twice_is_refused(twice, root):
    path = root / "instances_x.json"
    made = json.dumps(content())
    path.write_text(made.replace('"annotations": [', f'"annotations": [{twice}, ', 1))
    assert read_plain(path) is None
    with pytest.raises(DataError, match="stands twice"):
        read_dataset(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_text_is_never_plain_and_read_otherwise(data, tmp_path_factory):
    """A piece cut out, or a character put in: what `json` refuses is refused, and what it reads is read alike."""
    text = json.dumps(content(6))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 4)))
    text = text[:start] + data.draw(st.sampled_from(["", ",", "}", "{", "]", '"', " ", "\\", "0"])) + text[end:]
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_text(text)
    plain = read_plain(path)
    if plain is None:
        return
    read = json.loads(text)
    assert plain.image_ids == [entry["id"] for entry in read["images"]]
    assert plain.file_names == [entry["file_name"] for entry in read["images"]]
    assert plain.ids.tolist() == [entry["id"] for entry in read["annotations"]]
    assert plain.boxes.tolist() == [entry["bbox"] for entry in read["annotations"]]
    assert plain.categories == read["categories"]
    assert plain.header == {k: v for k, v in read.items() if k not in coco_columns.LISTS}
