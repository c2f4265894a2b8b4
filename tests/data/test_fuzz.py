"""Damaged bytes anywhere in a data set end in a `DataError`, never in another exception, and never in a wrong box."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yolojax.data import build_cache, open_dataset, shapes_dataset, write_coco, write_voc, write_yolo
from yolojax.errors import DataError
from yolojax.geometry import Preprocess

FILES = {
    "voc": (write_voc, "Annotations/train_000000.xml"),
    "voc list": (write_voc, "ImageSets/Main/train.txt"),
    "coco": (write_coco, "annotations/instances_train.json"),
    "yolo": (write_yolo, "labels/train/train_000000.txt"),
    "yaml": (write_yolo, "data.yaml"),
    "image": (write_yolo, "images/train/train_000000.png"),
}

MUTATION = st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, (write, _) in FILES.items():
        made[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
        write({"train": shapes_dataset(2, size=(32, 32))}, made[name])
    return made


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=st.lists(MUTATION, min_size=1, max_size=3))
def test_damaged_bytes(name, folders, mutations):
    """Bytes replaced, inserted and removed at random places of one file."""
    path = folders[name] / FILES[name][1]
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for place, new, removed in mutations:
        start = round(place * len(damaged))
        damaged[start : start + removed] = new
    path.write_bytes(damaged)
    try:
        for skip_bad in (False, True):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow warns of odd metadata before it raises
                    data = open_dataset(folders[name], "train", skip_bad=skip_bad)
                    build_cache(data, (32, 32), Preprocess(), threads=1)
            except DataError as error:
                assert str(error)
                continue
            for record in data.records:
                h, w = record.size
                assert np.isfinite(record.boxes).all()
                assert (record.boxes >= 0).all() and (record.boxes <= [w, h, w, h]).all()
                assert (record.boxes[:, 2:] > record.boxes[:, :2]).all()
                assert ((record.classes >= 0) & (record.classes < len(data.class_names))).all()
            annotations = data.to_coco()["annotations"]
            assert len({a["id"] for a in annotations}) == len(annotations) >= data.object_count
    finally:
        path.write_bytes(whole)
