"""StableHLO files: the same detections as the detector, from a file for three platforms that needs JAX alone."""

import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export

from tests.export.conftest import NAMES, SETTINGS, SIZE, SMALL, open_shapes, some_images
from yolojax import zoo
from yolojax.data.input_images import make_input_image
from yolojax.errors import CheckpointError, ConfigError
from yolojax.export import ExportSettings, load_exported, to_stablehlo
from yolojax.export.network_type import network_type
from yolojax.export.program import content_box, resize_photos
from yolojax.geometry import Preprocess, place_on_input
from yolojax.inference.predict import Predictor
from yolojax.postprocess import postprocess
from yolojax.processor.platform import traced_for
from yolojax.structures import Candidates

pytest.importorskip("flatbuffers")
pytestmark = pytest.mark.any_platform

GUIDE = Path(__file__).parents[2] / "docs" / "export.md"


def program_of_the_guide() -> str:
    """The program that the documentation shows, on images of a file, with what it found written to another."""
    (shown,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "zipfile" in block)
    assert len(shown.strip().splitlines()) <= 11
    shown = shown.replace('"mine.stablehlo"', "sys.argv[1]")
    shown = re.sub(r"^images = .*$", "images = np.load(sys.argv[2])", shown, flags=re.M)
    return f"""import sys
{shown}
np.savez(sys.argv[3], **{{name: np.asarray(value) for name, value in found.items()}})
assert not [name for name in sys.modules if name.startswith(("yolojax", "flax"))]
print(description["class_names"], program.platforms)
"""


@pytest.fixture(scope="module")
def file(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("stablehlo") / "small.stablehlo"
    with open_shapes():
        path.write_bytes(to_stablehlo(small[0], small[1], SETTINGS))
    return path


def test_it_runs_with_jax_alone(file, expected, tmp_path):
    images, found = expected
    assert found.valid.sum() > 10
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", program_of_the_guide(), file, tmp_path / "images.npy", tmp_path / "found.npz"]
    ended = subprocess.run([str(x) for x in command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 0, ended.stderr
    *shown, last = ended.stdout.splitlines()
    assert last == "['circle', 'square', 'star'] ('cpu', 'cuda', 'tpu')"
    assert len(shown) == found.valid[0].sum() and shown[0].split()[0] in NAMES
    got = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(got["count"], found.valid.sum(-1))
    np.testing.assert_array_equal(got["classes"], found.classes)
    np.testing.assert_allclose(got["scores"], found.scores, atol=1e-5)
    np.testing.assert_allclose(got["boxes"], found.boxes, atol=1e-2)


def test_each_platform_has_its_own_lowering(file, small):
    """The processor's forms are in the program for processors alone, wherever the file is made.

    By itself, a program for one platform is the one that is traced for it with the forms of the others out of sight.
    """
    from yolojax.export.stablehlo import read_stablehlo

    text = read_stablehlo(file).program.mlir_module()
    # One module whose cases are chosen by the platform's index when it is compiled.
    assert "stablehlo.case" in text and "_platform_index" in text

    boxes, scores = jax.ShapeDtypeStruct((2, 40, 4), np.float32), jax.ShapeDtypeStruct((2, 40, 3), np.float32)

    def run(boxes, scores):
        kept = postprocess(Candidates(boxes, scores), 0.2, 0.5, suppress="nms", max_detections=20, multi_label=False)
        return kept.boxes, kept.classes

    def module(platform, traced):
        with traced_for(traced):
            return str(export.export(jax.jit(lambda *x: run(*x)), platforms=(platform,))(boxes, scores).mlir_module())

    def operations(text):
        """How often each occurs, but for those that make the choice: a case of a constant, and what ends its parts."""
        found = Counter(re.findall(r"stablehlo\.\w+", text))
        return {name: n for name, n in found.items() if name.split(".")[1] not in ("case", "return", "constant")}

    for platform, own in (("cpu", "cpu"), ("cuda", "other"), ("tpu", "other")):
        left_open, known = (operations(module(platform, traced)) for traced in (None, own))
        assert left_open == known, platform
    assert operations(module("cpu", None)) != operations(module("tpu", None))


def test_thresholds_of_the_file_hold(file):
    photo = some_images(1, (50, 120), 4)[0]
    with pytest.raises(ConfigError, match=r"from 0\.2 on"):
        Predictor(*load_exported(file))(photo, confidence=0.1)
    with pytest.raises(ConfigError, match="suppresses by itself"):
        Predictor(*load_exported(file))(photo, iou=0.6)


@pytest.mark.slow  # half a minute of compilation; the tests of the command run both formats through the same predictor
def test_the_same_predictor(file, small):
    detector, variables = small
    photos = [some_images(1, (50, 120), 4)[0], some_images(1, (90, 60), 5)[0], some_images(1, SIZE, 6)[0]]
    ours = Predictor(detector, variables, max_detections=20, batch_size=2)(photos, confidence=0.25, iou=0.5)
    theirs = Predictor(*load_exported(file), batch_size=2)(photos, confidence=0.25)
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) and len(a) == len(b)
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-2)


@pytest.mark.slow  # exports once more
def test_the_same_detector_gives_the_same_bytes(file, small):
    with open_shapes():
        assert to_stablehlo(small[0], small[1], SETTINGS) == file.read_bytes()


def test_the_file_says_what_it_is(file):
    assert b"/yolojax/" not in file.read_bytes(), "a path of this machine"
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("description.json"))
    assert told["input_size"] == list(SIZE) and told["batch"] is None and told["outputs"][0] == "boxes"
    assert told["thresholds"] == {"confidence": 0.2, "iou": 0.5, "max_detections": 20}
    assert len(told["facts"]["weights_sha256"]) == 64 and told["facts"]["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.slow  # two compilations of whole detectors
def test_photos_of_any_size(small, tmp_path):
    """Resized inside: the pixels are Pillow's but for one level, and boxes lie in the photo."""
    detector, variables = small
    settings = ExportSettings(confidence=0.2, iou=0.5, max_detections=20, letterbox=True)
    with open_shapes():
        content = to_stablehlo(small[0], small[1], settings, platforms=("cpu",))
    path = tmp_path / "photos.stablehlo"
    path.write_bytes(content)
    from yolojax.export.stablehlo import read_stablehlo

    program = read_stablehlo(path).program
    predictor = Predictor(detector, variables, max_detections=20)
    for seed, size in enumerate([(50, 120), (200, 150)]):
        photo = some_images(1, size, seed + 7)[0]
        found = {name: np.asarray(value)[0] for name, value in program.call(photo[None]).items()}
        want = predictor(photo, confidence=0.2, iou=0.5)
        count = int(found["count"])
        assert abs(count - len(want)) <= 1 and count > 2
        np.testing.assert_allclose(found["scores"][:3], want.scores[:3], atol=0.01)
        np.testing.assert_allclose(found["boxes"][:3], want.boxes[:3], atol=0.5)


@pytest.mark.parametrize(
    "preprocess", [Preprocess(), Preprocess(align="topleft", border=3), Preprocess(resize="stretch")]
)
def test_a_photo_lies_where_it_lies_outside(preprocess):
    box = jax.jit(lambda h, w: content_box(h, w, SIZE, preprocess))
    resize = jax.jit(lambda photos, box: resize_photos(photos, box, SIZE, preprocess.pad))
    for number, size in enumerate([(50, 120), (131, 77), (64, 96), (9, 5), (301, 452)]):
        found = box(*(np.float32(side) for side in size))
        assert tuple(found.tolist()) == place_on_input(size, SIZE, preprocess).content
        if number < 2:
            photo = some_images(1, size)[0]
            want, _ = make_input_image(photo, SIZE, preprocess)
            got = np.asarray(resize(photo[None], found))[0]
            difference = np.abs(got.astype(int) - want.astype(int))
            # Pillow stretches some tall photos down first and across then, which rounds other values in between.
            few = 0.3 if preprocess.resize == "stretch" else 0.05
            assert difference.max() <= 1 and (difference > 0).mean() < few


def test_what_is_wrong_with_a_file_is_said(file, tmp_path):
    content = file.read_bytes()
    for name, damaged, said in (
        ("short", content[:1000], "damaged"),
        ("other", b"no archive at all", "no StableHLO file"),
        ("flipped", content.replace(b'"confidence": 0.2', b'"confidence": 0.3'), "damaged"),
        ("newer", content.replace(b'"format": 1', b'"format": 9'), "damaged"),
    ):
        path = tmp_path / f"{name}.stablehlo"
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=said):
            load_exported(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_exported(tmp_path / "none.stablehlo")
    with pytest.raises(ConfigError, match="leave runtime out"):
        load_exported(file, runtime="openvino")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ExportSettings(raw=True, confidence=0.3), "raw candidates come before"),
        (ExportSettings(raw=True, letterbox=True), "choose one of both"),
        (ExportSettings(confidence=1.0), "0 to below 1"),
        (ExportSettings(iou=0.0), "above 0"),
        (ExportSettings(max_detections=0), "give 1 to"),
        (ExportSettings(batch=0), "at least 1"),
        (ExportSettings(half=True), "half: the network computes in float32"),
    ],
)
def test_settings_that_a_file_cannot_honour(small, settings, said):
    with pytest.raises(ConfigError, match=said):
        to_stablehlo(small[0], small[1], settings)


@pytest.mark.parametrize("platforms", [(), ("gpu",), "cpu"])
def test_platforms_go_by_the_names_of_jax(small, platforms):
    with pytest.raises(ConfigError, match=r"^platforms = .*: give a list of some of cpu, cuda, tpu, rocm$"):
        to_stablehlo(small[0], small[1], platforms=platforms)


def test_a_type_that_no_network_computes_in_is_refused(small):
    with pytest.raises(ConfigError, match="dtype = 'float64': give one of"):
        to_stablehlo(small[0], small[1], dtype="float64")


def test_the_type_in_which_a_network_computes_is_found_and_no_other_is_stated(small):
    detector, variables = small
    narrow = zoo.build("compact", detector.spec.class_names, detector.spec.input_size, dtype="bfloat16", **SMALL)
    assert network_type(detector, variables) == "float32" and network_type(narrow, variables) == "bfloat16"
    with pytest.raises(ConfigError, match="computes in float32; build or load it with dtype='bfloat16'"):
        to_stablehlo(detector, variables, dtype="bfloat16")


REFUSED = """
from yolojax import zoo
from yolojax.errors import ConfigError
from yolojax.export import ExportSettings, to_stablehlo

detector = zoo.build("compact", ("a",), (64, 64), widths=(8, 8, 16), depths=(0, 0, 1), head_width=8)
for options in ({"batch": "dynamic"}, {"batch": 1.5}, {"confidence": "low"}, {"max_detections": True}):
    try:
        to_stablehlo(detector, {}, ExportSettings(**options))
    except ConfigError as error:
        print(error)
"""


def test_settings_of_wrong_types_are_refused_by_name():
    """In a process of its own, since the tests' own check of types would be first."""
    told = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=300)
    assert told.stdout.splitlines() == [
        "batch = 'dynamic': give a whole number",
        "batch = 1.5: give a whole number",
        "confidence = 'low': give a number",
        "max_detections = True: give a whole number",
    ], told.stderr
