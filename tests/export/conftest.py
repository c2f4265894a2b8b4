"""A small detector with biases that make it find something, and its images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from yolojax import zoo
from yolojax.detect import detect
from yolojax.detector import Detector, prepare_images
from yolojax.export import ExportSettings
from yolojax.structures import Detections, Targets

# OpenVINO would send statistics, see yolojax.export.onnx_running.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]

NAMES = ("circle", "square", "star")
SIZE = (64, 96)
SETTINGS = ExportSettings(batch=None, confidence=0.2, iou=0.5, max_detections=20)
SMALL: dict[str, Any] = {"widths": (8, 8, 16), "depths": (0, 0, 1), "head_width": 8, "reg_max": 8}


@contextmanager
def open_shapes() -> Iterator[None]:
    """Without checks of shapes: jaxtyping cannot compare the symbol of an open batch with anything."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def stirred(variables: dict[str, Any], seed: int = 0, scale: float = 0.5) -> dict[str, Any]:
    """Variables with random normalisation and biases, so that no output is constant and many scores are high."""
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    rng = np.random.default_rng(seed)
    out = []
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        value = np.asarray(leaf)
        if "var" in name:
            value = rng.uniform(0.5, 1.5, value.shape)
        elif value.ndim == 1:
            # Biases of scores begin so low that nothing is found.
            value = np.maximum(value, -1.0) + rng.normal(0, scale, value.shape)
        out.append(jnp.asarray(value, leaf.dtype))
    return jax.tree.unflatten(tree, out)


def with_statistics_of(images: np.ndarray, detector: Detector, variables: dict[str, Any]) -> dict[str, Any]:
    """The variables with batch normalisation by the statistics that these images have in training.

    A deep network with random weights and other statistics gives nearly the same numbers for every image, which is no
    test of anything. The running statistics after one step are ``momentum * old + (1 - momentum) * batch``, so that two
    steps, from zeros and from ones, tell those of the batch. Variances are a quarter larger: with exactly those of the
    images, YOLOv9 changes its scores by 2e-3 where its parameters change by 1e-7, and no two programs agree.
    """
    if not variables.get("batch_stats"):
        return variables
    boxes = jnp.tile(jnp.array([[[8.0, 8.0, 40.0, 40.0]]]), (len(images), 1, 1))
    no = jnp.zeros(boxes.shape[:2], bool)
    targets = Targets(boxes, jnp.zeros(boxes.shape[:2], jnp.int32), ~no, no, jnp.zeros(len(images), jnp.int32))
    pixels = prepare_images(jnp.asarray(images), detector.spec.preprocess)

    @jax.jit
    def statistics(variables: dict[str, Any], pixels: Any, start: float) -> Any:
        stats = jax.tree.map(lambda x: jnp.full_like(x, start), variables["batch_stats"])
        _, state = detector.forward_train({**variables, "batch_stats": stats}, pixels, targets, jax.random.key(0))
        return state["batch_stats"]

    zeros, ones = (statistics(variables, pixels, start) for start in (0.0, 1.0))
    stats = jax.tree.map(lambda a, b: a / (1 - (b - a)), zeros, ones)
    stats = jax.tree_util.tree_map_with_path(
        lambda path, x: 1.25 * x if "var" in jax.tree_util.keystr(path) else x, stats
    )
    return {**variables, "batch_stats": stats}


def some_images(batch: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Random rectangles on noise, uint8."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (batch, *size, 3))
    for image in images:
        for _ in range(6):
            y, x = (rng.integers(0, side - 8) for side in size)
            image[y : y + rng.integers(8, 40), x : x + rng.integers(8, 40)] = rng.integers(0, 256, 3)
    return images.astype(np.uint8)


def same_set(a: tuple[Any, Any, Any], b: tuple[Any, Any, Any], where: str = "") -> None:
    """Boxes, scores and classes of two images: every detection has its counterpart, in whatever order.

    Rows whose scores differ by rounding alone may come in another order.
    """
    assert len(a[1]) == len(b[1]), where
    left = list(range(len(b[1])))
    for box, score, label in zip(*a, strict=True):
        near = [
            i for i in left if b[2][i] == label and abs(b[1][i] - score) <= 1e-4 and np.abs(b[0][i] - box).max() <= 0.05
        ]
        assert near, f"{where}: {label} {score} {box}"
        left.remove(near[0])


@pytest.fixture(scope="session")
def small() -> tuple[Detector, dict[str, Any]]:
    """A YOLOX of 26 layers with three classes."""
    detector = zoo.build("compact", NAMES, SIZE, **SMALL)
    return detector, stirred(detector.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def expected(small: tuple[Detector, dict[str, Any]]) -> tuple[np.ndarray, Detections]:
    """Three images, and what the small detector itself finds on them with the thresholds of `SETTINGS`."""
    detector, variables = small
    images = some_images(3)

    def found(variables: dict[str, Any], images: Any) -> Detections:
        return detect(detector, detector.fold(variables), images, 0.2, 0.5, max_detections=20)

    return images, jax.device_get(jax.jit(found)(variables, images))
