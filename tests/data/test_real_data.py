"""Public data sets, where a copy is at hand: their counts as published or counted by other means."""

import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from yolojax.data import build_cache, list_splits, open_dataset
from yolojax.geometry import Preprocess, batch_to_original

ROOT = os.environ.get("YOLOJAX_TEST_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="YOLOJAX_TEST_DATA names no folder with the public data sets")
DATA = Path(ROOT or ".") / "data"


def test_bccd():
    data = open_dataset(DATA / "bccd")
    assert data.class_names == ("Platelets", "RBC", "WBC") and len(data) == 364
    # 4888 boxes are in the files, two of them without extent (counted from 1).
    assert data.object_count == 4886
    dropped = data.summary.of("dropped")
    assert [Path(f.where).name for f in dropped] == ["BloodImage_00338.xml object 13", "BloodImage_00343.xml object 4"]
    assert data.summary.counts() == {"dropped": 2}
    counts = np.bincount(np.concatenate([r.classes for r in data.records]))
    np.testing.assert_array_equal(counts, [361, 4155 - 2, 372])
    assert sum(int(((r.boxes[:, 2] == 640) | (r.boxes[:, 3] == 480)).sum()) for r in data.records) == 545
    sizes = {s: len(open_dataset(DATA / "bccd", s)) for s in list_splits(DATA / "bccd")}
    assert sizes == {"train": 205, "val": 87, "trainval": 292, "test": 72}


def test_coco128_as_coco():
    data = open_dataset(DATA / "coco128_train")
    assert (data.format, len(data), data.object_count) == ("coco", 128, 939)
    assert sum(int(r.crowd.sum()) for r in data.records) == 10
    assert sum(len(r.boxes) == 0 for r in data.records) == 2
    assert len(data.class_names) == 80 and data.category_ids[0] == 1 and data.category_ids[-1] == 90
    areas = np.concatenate([r.areas for r in data.records])
    small, large = (areas < 32**2).sum(), (areas >= 96**2).sum()
    assert (small, 939 - small - large, large) == (414, 296, 229)
    pycocotools = pytest.importorskip("pycocotools.coco")
    theirs, ours = pycocotools.COCO(str(DATA / "coco128_train" / "instances_train2017.json")), pycocotools.COCO()
    ours.dataset = data.to_coco()
    ours.createIndex()
    assert ours.anns == theirs.anns and ours.imgs == theirs.imgs and ours.cats == theirs.cats


def test_coco128_as_yolo_agrees_with_coco():
    data = open_dataset(DATA / "coco128_train" / "config.yaml", "train")
    assert (data.format, len(data), data.object_count) == ("yolo", 128, 929)
    assert sum(len(r.boxes) == 0 for r in data.records) == 2
    orphans = [Path(f.where).name for f in data.summary.of("orphan")]
    assert orphans == ["000000000656.txt", "000000000659.txt"]
    coco = {Path(r.file_name).name: r for r in open_dataset(DATA / "coco128_train").records}
    for record in data.records:
        other = coco[Path(record.file_name).name]
        plain = other.boxes[~other.crowd]
        assert record.size == other.size and len(record.boxes) == len(plain)
        if len(plain):
            # Every box has its partner; the files give fractions of 640 pixels to six digits.
            apart = np.abs(record.boxes[:, None] - plain[None]).max(2)
            assert apart.min(0).max() < 2e-3 and apart.min(1).max() < 2e-3
            partner = other.classes[~other.crowd][apart.argmin(1)]
            np.testing.assert_array_equal(record.classes, partner)


@pytest.fixture
def voc100_yolo(tmp_path):
    """The layout that `data.yaml` needs, around the files of the set."""
    source = DATA / "voc100"
    (tmp_path / "images").symlink_to(source / "images")
    (tmp_path / "labels").symlink_to(source / "gts" / "yolo_format" / "obj_train_data")
    names = (source / "gts" / "yolo_format" / "obj.names").read_text().split()
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": names}))
    return tmp_path


def test_voc100_is_the_same_in_every_format(voc100_yolo):
    gts, images = DATA / "voc100" / "gts", DATA / "voc100" / "images"
    sets = [
        open_dataset(gts / "pascalvoc_format", images=images),
        open_dataset(gts / "coco_format_v1" / "instances_default.json", images=images),
        open_dataset(gts / "coco_format_v2" / "instances_v2.json", images=images),
        open_dataset(voc100_yolo),
    ]

    def objects(data):
        rows = [
            (Path(r.file_name).name, data.class_names[c], *np.round(b).astype(int).tolist())
            for r in data.records
            for c, b in zip(r.classes, r.boxes, strict=True)
        ]
        return sorted(rows)

    first = objects(sets[0])
    assert len(first) == 273 and int(sum(r.difficult.sum() for r in sets[0].records)) == 38
    for data in sets:
        assert len(data) == 100 and not data.summary.findings
        assert objects(data) == first
        boxes = np.concatenate([r.boxes for r in data.records])
        assert np.abs(boxes - np.round(boxes)).max() < 1e-3


def test_every_real_image_decodes_and_its_boxes_come_back():
    data = open_dataset(DATA / "coco128_train")
    cache = build_cache(data, (160, 160), Preprocess())
    assert len(cache) == 128 and cache.targets.dropped.sum() == 0
    for i, record in enumerate(data.records):
        back = batch_to_original(cache.targets.boxes[i : i + 1], cache.content[i : i + 1], cache.sizes[i : i + 1])[0]
        np.testing.assert_allclose(back[cache.targets.valid[i]], record.boxes, atol=2e-4)
