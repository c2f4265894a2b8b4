"""YOLOX against PyTorch, the published sizes, and, where they are, the published weights and onnxruntime's results."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.zoo.yolox_arrays import GOLDEN, golden, write_arrays
from yolojax import zoo
from yolojax.data.images import read_image
from yolojax.detector import prepare_images, variable_shapes
from yolojax.errors import ConfigError
from yolojax.inference.predict import Predictor
from yolojax.structures import Targets
from yolojax.zoo.coco import COCO_CLASSES
from yolojax.zoo.yolox import SCALES

NAMES = ("circle", "square", "star")
INPUT_SIZE = (64, 96)


def as_published(outputs) -> np.ndarray:
    """Per-level maps as the rows ``[B, N, 5 + C]`` of a published export: raw box, then probabilities."""
    rows = []
    for box, objectness, cls in outputs:
        row = np.concatenate([box, jax.nn.sigmoid(objectness), jax.nn.sigmoid(cls)], -1)
        rows.append(row.reshape(len(row), -1, row.shape[-1]))
    return np.concatenate(rows, 1)


@pytest.fixture(scope="module", params=["plain", "depthwise"])
def read(request, tmp_path_factory):
    """A small YOLOX read from arrays as trained (``plain``) or folded (``depthwise``), with its name."""
    path = write_arrays(tmp_path_factory.mktemp("yolox") / "weights.npz", golden(request.param))
    return request.param, *zoo.from_yolox(path, class_names=NAMES, input_size=INPUT_SIZE)


def test_equals_pytorch(read):
    name, detector, variables = read
    images = prepare_images(jnp.asarray(GOLDEN["input"])[..., ::-1], detector.spec.preprocess)
    outputs = jax.jit(detector.forward)(variables, images)
    np.testing.assert_allclose(as_published(outputs), GOLDEN[f"{name}_output"], rtol=1e-3, atol=1e-3)


def test_folding_gives_the_files_arrays_back(read):
    name, detector, variables = read
    assert detector.spec.options["depthwise"] == (name == "depthwise")
    if name == "plain":
        return  # the file's arrays are not folded; that folding changes nothing is tested with all detectors
    folded = jax.jit(detector.fold)(variables)["params"]
    kernel = folded["backbone"]["stage3"]["bottleneck1"]["conv2"]["depthwise"]["conv"]["kernel"]
    arrays = golden(name)
    theirs = "backbone.backbone.dark3.1.m.1.conv2.dconv"
    np.testing.assert_array_equal(kernel, arrays[f"{theirs}.weight"].transpose(2, 3, 1, 0))
    stem = folded["backbone"]["stem"]["conv"]
    np.testing.assert_array_equal(stem["bias"], arrays["backbone.backbone.stem.conv.bias"])
    assert sum(x.size for x in jax.tree.leaves(folded)) == sum(x.size for x in arrays.values())


@pytest.mark.slow
def test_measured_statistics_let_training_start_from_what_is_known(read):
    """Inference stays, and in training mode the network computes the same on those images."""
    name, detector, variables = read
    if name == "plain":
        return  # has statistics
    images = jnp.asarray(GOLDEN["input"])[..., ::-1]
    measured = zoo.measure_statistics(detector, variables, [images])
    prepared = prepare_images(images, detector.spec.preprocess)
    none = jnp.zeros((2, 1), bool)
    targets = Targets(jnp.zeros((2, 1, 4)), jnp.zeros((2, 1), jnp.int32), none, none, jnp.zeros(2, jnp.int32))
    outputs, _ = jax.jit(detector.forward_train)(measured, prepared, targets, jax.random.key(0))
    np.testing.assert_allclose(as_published(outputs), GOLDEN["depthwise_output"], rtol=1e-3, atol=1e-3)
    folded = jax.jit(detector.fold)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), folded(measured), folded(variables)
    )


@pytest.mark.parametrize(
    ("scale", "side", "parameters", "gflops"),
    # Megvii's README: parameters in millions, and GFLOPs at the side trained for (theirs count a few additions too).
    [
        ("nano", 416, 0.91, 1.08),
        pytest.param("tiny", 416, 5.06, 6.45, marks=pytest.mark.slow),  # the network of S, and narrower
        ("s", 640, 9.0, 26.8),
        pytest.param("m", 640, 25.3, 73.8, marks=pytest.mark.slow),
        pytest.param("l", 640, 54.2, 155.6, marks=pytest.mark.slow),
        pytest.param("x", 640, 99.1, 281.9, marks=pytest.mark.slow),
    ],
)
def test_sizes_are_the_published_ones(scale, side, parameters, gflops):
    detector = zoo.build(f"yolox-{scale}", COCO_CLASSES, (side, side))
    assert detector.spec.name == "yolox"
    shapes = variable_shapes(detector)
    assert zoo.parameter_count(shapes) / 1e6 == pytest.approx(parameters, abs=0.006 if scale == "nano" else 0.06)
    kernel = shapes["params"]["backbone"]["stem"]["conv"]["kernel"].shape
    blocks = sum(name.startswith("bottleneck") for name in shapes["params"]["backbone"]["stage2"])
    assert SCALES[blocks, kernel[-1], scale == "nano"] == scale
    assert zoo.forward_flops(detector) / 1e9 == pytest.approx(gflops, rel=0.04)


def test_class_names_are_asked_for_unless_they_are_cocos(tmp_path):
    path = write_arrays(tmp_path / "weights.npz", golden("depthwise"))
    with pytest.raises(ConfigError, match="has 3 classes, and none are given"):
        zoo.from_yolox(path, input_size=INPUT_SIZE)
    with pytest.raises(ConfigError, match="has 3 classes, and 2 are given"):
        zoo.from_yolox(path, class_names=("a", "b"), input_size=INPUT_SIZE)
    with pytest.raises(ConfigError, match="multiples of the largest stride"):
        zoo.from_yolox(path, class_names=NAMES, input_size=(64, 100))


@pytest.mark.parametrize("options", [{"width": 0.0}, {"depth": -1.0}])
def test_sizes_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="positive depth"):
        zoo.build("yolox", NAMES, INPUT_SIZE, **options)


@pytest.fixture(scope="module")
def nano(test_data):
    return zoo.from_yolox(test_data / "weights" / "yolox-nano" / "yolox_nano_fused.npz")


def test_raw_output_of_the_published_nano(nano, test_data):
    """onnxruntime's, on its own input."""
    detector, variables = nano
    assert len(jax.tree.leaves(variables["params"])) == 226 + 113 - 9  # a scale for each that is normalised
    with np.load(test_data / "peers" / "yolox-nano_dog.npz") as peer:
        pixels, raw = peer["input_bgr_u8"], peer["raw"]
    outputs = jax.jit(detector.forward)(jax.jit(detector.fold)(variables), jnp.asarray(pixels[None], jnp.float32))
    np.testing.assert_allclose(as_published(outputs)[0], raw, atol=1e-3)


def opencv_letterbox(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The peer's input image: top left, sides rounded down, pad 114, bilinear without antialiasing as OpenCV computes
    it.

    That is, columns first, in integers, with weights in units of 1/2048. Rounding once instead moves scores by .0014.
    """
    ratio = min(side / image.shape[0], side / image.shape[1])

    def neighbours(axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        old, new = image.shape[axis], int(image.shape[axis] * ratio)
        at = ((np.arange(new) + 0.5) * old / new - 0.5).astype(np.float32)
        low = np.floor(at).astype(int)
        share = np.where((low < 0) | (low >= old - 1), 0, at - low).astype(np.float32)
        low = low.clip(0, old - 1)
        first, second = (np.rint(w * 2048).astype(int) for w in (1 - share, share))
        return low, np.minimum(low + 1, old - 1), first, second

    left, right, a, b = neighbours(1)
    wide = image.astype(int)
    wide = wide[:, left] * a[None, :, None] + wide[:, right] * b[None, :, None]
    above, below, a, b = neighbours(0)
    a, b = a[:, None, None], b[:, None, None]
    pixels = (((a * (wide[above] >> 4)) >> 16) + ((b * (wide[below] >> 4)) >> 16) + 2) >> 2
    inputs = np.full((side, side, 3), 114, np.uint8)
    inputs[: pixels.shape[0], : pixels.shape[1]] = pixels
    return inputs, ratio


def test_detections_of_the_published_nano(nano, test_data):
    """onnxruntime's list: classes in order, scores within 1e-3, boxes within a pixel, on the peer's input image."""
    listed = json.loads((test_data / "peers" / "onnxruntime_yolox_nano_photos.json").read_text())["detections"]
    with np.load(test_data / "peers" / "yolox-nano_dog.npz") as peer:
        dog = peer["input_bgr_u8"][..., ::-1]
    predictor = Predictor(*nano)
    for photo, theirs in listed.items():
        pixels = read_image(test_data / "photos" / photo)
        input_size, ratio = opencv_letterbox(pixels, 416)
        if photo == "dog.jpg":
            np.testing.assert_array_equal(input_size, dog)
        result = predictor(input_size, confidence=0.3, iou=0.45)
        boxes = np.array([d["xywh"] for d in theirs])
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clip(0, [pixels.shape[1], pixels.shape[0]] * 2)
        assert list(result.classes) == [d["cls"] for d in theirs], photo
        np.testing.assert_allclose(result.scores, [d["score"] for d in theirs], atol=1e-3)
        found = (result.boxes / ratio).clip(0, [pixels.shape[1], pixels.shape[0]] * 2)
        np.testing.assert_allclose(found, boxes, atol=1.0)


@pytest.mark.slow
def test_average_precision_of_the_published_nano(nano, test_data):
    """By the peer's protocol on the same 128 images, within .010 of the peer's AP."""
    from yolojax.config import ValidationConfig
    from yolojax.inference.evaluate import evaluate

    peer = json.loads((test_data / "peers" / "ap_train128.json").read_text())["yolox-nano_train128"]
    data = test_data / "data" / "coco128_train"
    validation = ValidationConfig(confidence=0.001, iou=0.65, max_detections=100)
    found = evaluate(nano, data / "instances_train2017.json", validation=validation)
    assert pytest.approx(peer["stats"]["train128"][0], abs=0.010) == found.result.AP
    assert pytest.approx(peer["stats"]["train128"][1], abs=0.010) == found.result.AP50
