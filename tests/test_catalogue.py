"""The table of architectures says what the builders build, and every name leads somewhere."""

import inspect
import sys

import jax
import pytest

from tests.zoo.make_catalogue import count
from yolojax import zoo
from yolojax.catalogue import CATALOGUE, architecture, known_names, nearest, rows, split_scale
from yolojax.detector import variable_shapes
from yolojax.errors import ConfigError

ORDERS, GRIDS = (getattr(sys.modules["yolojax.zoo.darknet"], name) for name in ("ORDERS", "GRIDS"))

ROWS = {row.model: row for row in rows()}
MEND = "add it to yolojax/catalogue.py, then run: python -m tests.zoo.make_catalogue NAME"


def test_every_architecture_and_scale_is_listed():
    assert {entry.name for entry in CATALOGUE} == set(zoo.ARCHITECTURES), MEND
    for entry in CATALOGUE:
        parameters = inspect.signature(zoo.ARCHITECTURES[entry.name]).parameters
        assert ("scale" in parameters) == any(entry.variants), MEND
        if any(entry.variants):
            assert next(iter(entry.variants)) == parameters["scale"].default
            with pytest.raises(ConfigError, match=", ".join(entry.variants) + "$"):
                zoo.build(entry.name, ("a",), (64, 64), scale="none such")


def test_every_family_of_published_files_is_said_to_load():
    for name in zoo.FAMILIES:
        assert all(".pt" in row.loads for row in ROWS.values() if row.architecture == name)
    for name in (*ORDERS, *GRIDS):
        assert ROWS[name].loads == ".cfg + .weights"


@pytest.mark.parametrize("name", ["lesson", "yolov3-tiny"])
def test_counts_are_those_of_the_builders(name):
    entry = next(entry for entry in CATALOGUE if entry.name == name)
    parameters, flops = count(entry, "")
    assert (ROWS[name].parameters, ROWS[name].gflops) == (parameters, flops / 1e9), MEND


@pytest.mark.slow  # every network is traced, some minutes in all
@pytest.mark.parametrize("name", [row.model for row in ROWS.values() if row.parameters])
def test_all_counts_are_those_of_the_builders(name):
    row = ROWS[name]
    entry = next(entry for entry in CATALOGUE if entry.name == row.architecture)
    parameters, flops = count(entry, row.scale)
    assert (row.parameters, row.gflops) == (parameters, flops / 1e9), MEND
    detector = zoo.build(row.model, ("a",), (64, 64), **entry.options)
    assert detector.spec.suppression == row.suppression


def test_published_counts_of_yolov8():
    """Ultralytics' table: 3.2, 11.2, 25.9, 43.7, 68.2 M; 8.7, 28.6, 78.9, 165.2, 257.8 GFLOPs."""
    published = {"n": (3.2, 8.7), "s": (11.2, 28.6), "m": (25.9, 78.9), "l": (43.7, 165.2), "x": (68.2, 257.8)}
    for scale, (parameters, gflops) in published.items():
        row = ROWS[f"yolov8{scale}"]
        assert row.parameters == pytest.approx(1e6 * parameters, rel=0.02)
        assert row.gflops == pytest.approx(gflops, rel=0.01)


def test_a_name_with_its_scale_builds_that_scale():
    by_name, by_option = (
        variable_shapes(d)
        for d in (
            zoo.build("yolov8n", ("a",), (64, 64)),
            zoo.build("yolov8", ("a",), (64, 64), scale="n"),
        )
    )
    assert jax.tree.structure(by_name) == jax.tree.structure(by_option) and by_name == by_option
    with pytest.raises(ConfigError, match=r"yolov8n is the scale n of yolov8, and the options give 's'"):
        zoo.build("yolov8n", ("a",), (64, 64), scale="s")
    assert architecture("yolov5su", {}) == ("yolov5u", {"scale": "s"}) and split_scale("yolov5s") == ("yolov5", "s")
    for name in known_names():
        assert split_scale(name)[0] in zoo.ARCHITECTURES


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("yolo8s", "yolov8s"),
        ("YOLOv8n", "yolov8n"),
        ("yolo_nas_s", "yolonass"),
        ("yoloxs", "yolox-s"),
        ("yolov11", "yolo11"),
        ("compct", "compact"),
        ("detr", "rtdetr"),
        ("vgg", None),
    ],
)
def test_the_nearest_name(typed, meant):
    assert nearest(typed, known_names()) == meant


def test_a_near_name_is_proposed_where_one_builds():
    with pytest.raises(ConfigError, match=r"unknown architecture 'yolo8s': did you mean yolov8s\?"):
        zoo.build("yolo8s", ("a",), (64, 64))
