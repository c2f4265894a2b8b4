"""Detectors from runs, released folders and published files; what does not make one is said."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.zoo.yolox_arrays import golden, write_arrays
from yolojax import zoo
from yolojax.data import shapes_dataset
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.inference.evaluate import evaluate
from yolojax.inference.loading import load_detector, load_origin, with_input_size
from yolojax.weights.released import save_released


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Published files of a small YOLOX, and a run in which it was released."""
    folder = tmp_path_factory.mktemp("files")
    path = write_arrays(folder / "small.npz", golden("depthwise"))
    (folder / "small.names").write_text("circle\nsquare\nstar\n\n")
    detector, variables = load_detector(path, folder / "small.names")
    save_released(folder / "runs" / "mine" / "best", jax.device_get(variables), {"detector": zoo.describe(detector)})
    return folder


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_by_its_path_its_best_and_its_name(folder, monkeypatch):
    detector, variables = load_detector(folder / "small.npz", folder / "small.names")
    assert detector.spec.class_names == ("circle", "square", "star") and detector.spec.input_size == (416, 416)
    monkeypatch.chdir(folder)
    for given in (folder / "runs" / "mine", folder / "runs" / "mine" / "best", "mine"):
        again, loaded = load_detector(given)
        assert again.spec == detector.spec
        same(loaded, variables)


@pytest.mark.slow  # tens of seconds of tracing
def test_every_form_of_a_path(folder, monkeypatch):
    """A list of files is one detector, and ``~`` is the home directory."""
    monkeypatch.setenv("HOME", str(folder))
    expected = load_detector(folder / "small.npz", folder / "small.names")
    files = "~/small.npz", Path("~/small.names")
    for given in (files, [files], [list(files)]):
        detector, variables = load_detector(*given)
        assert detector.spec == expected[0].spec
        same(variables, expected[1])
    assert load_origin(files) == load_origin(*files) == {}
    assert load_origin("~/runs/mine")["detector"]["name"] == "yolox"
    for given in (files, list(files), "~/runs/mine"):
        with pytest.raises(ConfigError, match="classes the detector does not know"):
            evaluate(given, shapes_dataset(1, size=(64, 64)))


def test_a_record_has_a_type_of_its_own(folder):
    with pytest.raises(ConfigError, match="build the detector with dtype"):
        evaluate(load_detector(folder / "runs" / "mine"), shapes_dataset(1, size=(64, 64)), dtype="bfloat16")


def test_another_input_keeps_ratio_and_parameters(folder):
    detector, variables = load_detector(folder / "runs" / "mine", size=96)
    assert detector.spec.input_size == (96, 96)
    wanted = variable_shapes(detector)
    assert jax.tree.map(lambda x: x.shape, variables) == jax.tree.map(lambda x: x.shape, wanted)
    wide = with_input_size(detector, (64, 128))
    assert wide.spec.input_size == (64, 128)
    assert with_input_size(wide, 320).spec.input_size == (160, 320)
    assert with_input_size(wide, 32).spec.input_size == (32, 32)
    for size in (100, 0, (64, 100)):
        with pytest.raises(ConfigError, match="give a multiple of 32"):
            with_input_size(wide, size)


@pytest.mark.parametrize(
    ("names", "error", "said"),
    [
        ((), ConfigError, "which detector"),
        (("nowhere",), CheckpointError, "no such folder"),
        (
            ("small.npz",),
            ConfigError,
            "has 3 classes, and none are given; give class_names, .* or a text file of names",
        ),
        (("small.npz", "a.cfg"), ConfigError, "is a detector by itself"),
        (("small.npz", "small.npz"), ConfigError, "do not make one detector"),
        (("a.cfg",), CheckpointError, r"a\.weights is not beside it"),
        (("runs", "other"), ConfigError, "do not make one detector"),
        (("best.pt",), CheckpointError, "cannot be read"),
        (("small.npz", "missing.names"), CheckpointError, "class names cannot be read"),
    ],
)
def test_what_makes_no_detector_is_said(names, error, said, folder):
    with pytest.raises(error, match=said):
        load_detector(*(folder / name for name in names))


def test_darknet_files_are_found_beside_each_other(test_data):
    folder = test_data / "weights" / "yolo-fastest-1.1_coco"
    detector, _ = load_detector(folder / "yolo-fastest-1.1.weights", folder / "coco.names", size=96)
    assert detector.spec.class_names[:2] == ("person", "bicycle") and detector.spec.input_size == (96, 96)
