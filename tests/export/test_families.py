"""Every family of the zoo exports, to ONNX and to StableHLO, and both files give the detector's own detections.

The networks have random weights and biases, and the statistics of the images, so that they tell the images apart.
Photos and generated images, batch 1 and 3: the same set of detections, scores within 1e-4, boxes within .05 pixel.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests import darknet_cases
from tests.export.conftest import NAMES, open_shapes, same_set, some_images, stirred, with_statistics_of
from yolojax import zoo
from yolojax.detect import detect
from yolojax.export import ExportSettings, load_exported, to_onnx, to_stablehlo
from yolojax.export.program import candidates_of
from yolojax.export.running import Runtime
from yolojax.inference.loading import load_detector
from yolojax.weights.darknet import Header, parse_cfg, stored_arrays, write_weights

pytestmark = [
    pytest.mark.slow,  # a minute for each family, most of it XLA's compilation of whole networks
    pytest.mark.any_platform,
]

ANCHORS = {"anchors": [[[10.0, 12.0], [20.0, 16.0], [30.0, 40.0]], [[60.0, 50.0], [70.0, 60.0], [80.0, 60.0]]]}

BUILDS = {
    "compact": {},
    "deimv2-atto": {},
    "dfine-n": {},
    "fasterrcnn": {"depth": 18, "proposals": 50},
    "lesson": ANCHORS,
    "retinanet": {"depth": 18},
    "rtdetr-r18": {},
    "rtdetrv2-r18": {},
    "yolo11": {},
    "yolo12": {},
    "yolo26": {},
    "yolo26:many": {"head": "one_to_many"},
    "yolonas": {},
    "yolov1-tiny": {"width": 0.25},
    "yolov2": {},
    "yolov3-tiny": {},
    "yolov4-tiny": {},
    "yolov5": {},
    "yolov5u": {},
    "yolov8": {},
    "yolov9": {},
    "yolov10": {},
    "yolov10:many": {"head": "one_to_many"},
    "yolox-nano": {},
}
"""Architectures and options; what follows a colon is a remark."""

DARKNET = {
    "yolov2": darknet_cases.yolov2,
    "yolov3": darknet_cases.yolov3,
    "yolov4": darknet_cases.yolov4,
}

LARGEST = {"yolov1-tiny": (192, 192)}


def check(detector, variables, folder, images):
    """The two files give the detections of the detector, in batches of 3 and 1."""
    own = detector.spec.postprocess.prediction
    iou = None if detector.spec.suppression == "none" else own.iou
    fold = jax.jit(detector.fold)(variables)

    scores_of = jax.jit(lambda x: candidates_of(detector, fold)(x).scores)
    scores = np.asarray(scores_of(images))
    assert np.std(scores, axis=0).max() > 1e-3, "the three images have the same scores"
    confidence = between_scores(scores)
    settings = ExportSettings(batch=None, confidence=confidence, iou=iou, max_detections=100)
    onnx, stablehlo = folder / "x.onnx", folder / "x.stablehlo"
    with open_shapes():
        onnx.write_bytes(to_onnx(detector, variables, settings))
        stablehlo.write_bytes(to_stablehlo(detector, variables, settings))
    ours = jax.jit(lambda x: detect(detector, fold, x, confidence, iou, max_detections=100))
    want = jax.device_get(ours(images))
    # Suppression leaves few of them where boxes are large.
    assert want.valid.any(1).all()
    for path, runtime in runs(onnx, stablehlo):
        exported, nothing = load_exported(path, runtime=runtime)
        theirs = jax.jit(lambda x, e=exported, n=nothing: detect(e, n, x, confidence, max_detections=100))
        for rows in (slice(None), slice(1, 2)):
            got = jax.device_get(theirs(images[rows]))
            for row, (a, b) in enumerate(zip(_rows(want, rows), _rows(got, slice(None)), strict=True)):
                same_set(a, b, f"{path.suffix} {runtime} {row}")


def between_scores(scores):
    """A confidence that about 40 scores an image pass, in the widest gap there, so that rounding moves none across."""
    highest = np.sort(scores.ravel())[::-1].astype(np.float64)
    first = min(90, highest.size // 4)
    gaps = highest[first : 2 * first] - highest[first + 1 : 2 * first + 1]
    assert gaps.max() > 1e-5
    widest = first + int(gaps.argmax())
    return min(float(highest[widest] + highest[widest + 1]) / 2, 0.95)


def runs(onnx: Path, stablehlo: Path) -> list[tuple[Path, Runtime | None]]:
    return [(onnx, "onnxruntime"), (onnx, "openvino"), (stablehlo, None)]


def _rows(found, rows):
    for boxes, scores, classes, valid in zip(*(x[rows] for x in found[:4]), strict=True):
        yield boxes[valid], scores[valid], classes[valid]


@pytest.mark.parametrize("name", BUILDS)
def test_a_family_of_the_zoo(name, tmp_path):
    size = LARGEST.get(name, (64, 96))
    detector = zoo.build(name.partition(":")[0], NAMES, size, **BUILDS[name])
    images = some_images(3, size)
    variables = with_statistics_of(images, detector, stirred(detector.init(jax.random.key(0)), scale=0.3))
    check(detector, variables, tmp_path, images)


@pytest.mark.parametrize("name", DARKNET)
def test_files_of_darknet(name, tmp_path):
    text = DARKNET[name]((64, 96), 0.25, 3)
    cfg = parse_cfg(text)
    (tmp_path / "net.cfg").write_text(text)
    (tmp_path / "net.names").write_text("\n".join(NAMES))
    write_weights(
        tmp_path / "net.weights", cfg, darknet_cases.random_weights(stored_arrays(cfg), 4), Header(0, 2, 0, 64)
    )
    detector, variables = load_detector(tmp_path / "net.cfg", tmp_path / "net.weights", tmp_path / "net.names")
    images = some_images(3)
    check(detector, with_statistics_of(images, detector, variables), tmp_path, images)


@pytest.mark.parametrize("name", ["yolov5n", "yolov8s-fall", "yolox-nano", "yolo-fastest"])
def test_published_weights_on_photos(name, tmp_path, test_data):
    """The detections that a user sees, on three photographs."""
    weights, names = test_data / "weights", test_data / "photos" / "coco.names"
    files = {
        "yolov5n": [weights / "yolov5n-v7.0_verification-only" / "yolov5n.pt"],
        "yolov8s-fall": [weights / "yolov8s-fall_verification-only" / "best.pt"],
        "yolox-nano": [weights / "yolox-nano" / "yolox_nano_fused.npz", names],
        "yolo-fastest": [
            *(weights / "yolo-fastest-1.1_coco" / f"yolo-fastest-1.1.{kind}" for kind in ("cfg", "weights")),
            weights / "yolo-fastest-1.1_coco" / "coco.names",
        ],
    }
    from yolojax.inference.predict import Predictor

    detector, variables = load_detector(files[name])
    photos = [test_data / "photos" / f"{one}.jpg" for one in ("dog", "horses", "person")]
    want = Predictor(detector, variables, batch_size=3)(photos)
    assert sum(len(result) for result in want) > 0
    onnx, stablehlo = tmp_path / "x.onnx", tmp_path / "x.stablehlo"
    with open_shapes():
        onnx.write_bytes(to_onnx(detector, variables, ExportSettings(batch=None)))
    stablehlo.write_bytes(to_stablehlo(detector, variables, ExportSettings(batch=3)))
    for path, runtime in runs(onnx, stablehlo):
        for batch in (1, 3):
            got = Predictor(*load_exported(path, runtime=runtime), batch_size=batch)(photos)
            for a, b in zip(want, got, strict=True):
                # A photo has more pixels than the input image.
                same_set((a.boxes, a.scores, a.classes), (b.boxes, b.scores, b.classes), f"{path.name} {runtime}")
