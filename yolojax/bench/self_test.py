"""Small computations whose answers are known: does this installation compute right?

Each check compares what the library computes on this machine's device with a second computation in NumPy's float64,
with a figure that follows by hand, or with what must hold of any training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.coding import anchor_grid, decode, flatten_levels, levels_of
from yolojax.config import OptimiserConfig, TrainConfig
from yolojax.detector import Detector, DetectorSpec, Outputs, Variables
from yolojax.eval.coco import evaluate_coco
from yolojax.losses import yolov3_loss
from yolojax.models.layers import Conv
from yolojax.nms import nms
from yolojax.processor.platform import for_platform
from yolojax.structures import Batch, Candidates, Hyper, LossTerms, Targets
from yolojax.training.state import make_state
from yolojax.training.step import make_hyper, make_train_step


class Outcome(NamedTuple):
    """How a check ended: its name, whether the answer was right, what was compared, and seconds."""

    name: str
    right: bool
    said: str
    seconds: float


def run_checks(names: tuple[str, ...] = ()) -> Iterator[Outcome]:
    """Runs the checks of `CHECKS`, or those named, one after the other; an exception counts as a wrong answer."""
    for name, check in CHECKS.items():
        if names and name not in names:
            continue
        started = time.perf_counter()
        try:
            right, said = check()
        except Exception as error:  # whatever is broken here is what the user wants to read
            right, said = False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        yield Outcome(name, right, said, time.perf_counter() - started)


def check_convolution() -> tuple[bool, str]:
    """A 3x3 convolution and its gradients against sums of products in float64."""
    images, kernel, wanted = _numbers((2, 8, 8, 3), 0), _numbers((3, 3, 3, 4), 1), _numbers((2, 8, 8, 4), 2)

    def loss(images: Array, kernel: Array) -> tuple[Array, Array]:
        maps = Conv(4, 3).apply({"params": {"kernel": kernel}}, images)
        assert isinstance(maps, jax.Array)
        return jnp.sum(maps * wanted), maps

    program = for_platform(jax.default_backend(), jax.grad(loss, (0, 1), has_aux=True))
    (of_images, of_kernel), maps = jax.device_get(jax.jit(program)(images, kernel))
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))  # [2, 8, 8, 3, 3, 3]
    expected = np.einsum("bhwcij,ijco->bhwo", windows, kernel)
    expected_kernel = np.einsum("bhwcij,bhwo->ijco", windows, wanted)
    back = np.pad(wanted.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(back, (3, 3), (1, 2))
    expected_images = np.einsum("bhwoij,ijco->bhwc", windows, kernel[::-1, ::-1])
    pairs = ((maps, expected), (of_images, expected_images), (of_kernel, expected_kernel))
    apart = max(float(np.abs(got - right).max() / np.abs(right).max()) for got, right in pairs)
    # An accelerator multiplies in bfloat16 or TF32 unless told otherwise.
    return apart < (1e-5 if jax.default_backend() == "cpu" else 3e-2), f"{apart:.1e} of the largest value apart"


def check_suppression() -> tuple[bool, str]:
    """Greedy suppression of 300 boxes against a loop in NumPy."""
    corners, sides = 80 * np.abs(_numbers((300, 2), 3)), 10 + 30 * np.abs(_numbers((300, 2), 4))
    boxes, scores = np.concatenate([corners, corners + sides], 1).astype(np.float32), np.abs(_numbers((300,), 5))
    program = for_platform(jax.default_backend(), lambda boxes, scores: nms(boxes, scores, 0.5, 300))
    kept = jax.device_get(jax.jit(program)(boxes, scores))
    found = [int(index) for index, valid in zip(kept.indices, kept.valid, strict=True) if valid]
    expected: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not _overlaps(boxes[index].astype(np.float64), boxes[expected].astype(np.float64)).any():
            expected.append(int(index))
    return found == expected, f"{len(found)} of 300 boxes kept, {len(expected)} expected"


def check_training() -> tuple[bool, str]:
    """Forty steps of a tiny detector on two images: the loss stays finite and falls by a third."""
    detector = patch_detector()
    optimiser = OptimiserConfig(learning_rate=0.005, warmup_steps=0)
    hyper = make_hyper(TrainConfig(optimiser=optimiser), detector)
    images = np.full((2, 32, 32, 3), 114, np.uint8)
    boxes = np.array([[[4, 4, 20, 20]], [[12, 8, 28, 24]]], np.float32)
    for image, ((x1, y1, x2, y2),) in zip(images, boxes.astype(int), strict=True):
        image[y1:y2, x1:x2] = 255
    none = jnp.zeros((2, 1), bool)
    targets = Targets(jnp.asarray(boxes), jnp.zeros((2, 1), jnp.int32), ~none, none, jnp.zeros(2, jnp.int32))
    step = make_train_step(detector, optimiser, lambda key, images, targets: (images, targets), jax.random.key(0))
    step = jax.jit(for_platform(jax.default_backend(), step))
    state, losses = make_state(detector, optimiser, 100, jax.random.key(0)), []
    batch = Batch(jnp.asarray(images), targets)
    for _ in range(40):
        state, report = step(state, batch, hyper)
        losses.append(float(report.loss))
    fell = bool(np.isfinite(losses).all()) and losses[-1] < losses[0] * 2 / 3
    return fell, f"loss {losses[0]:.2f} to {losses[-1]:.2f} in forty steps"


def patch_detector(size: int = 32, patch: int = 8, width: int = 32) -> Detector:
    """Two linear layers on each patch of pixels with YOLOv3's loss, the detector whose step compiles fastest."""
    anchors, strides = jnp.full((1, 1, 2), 2.0 * patch), (patch,)

    def init(key: PRNGKeyArray) -> Variables:
        inputs, outputs = 3 * patch**2, 6  # tx, ty, tw, th, objectness, one class
        # Numbers of NumPy: JAX's generator would have to be compiled.
        first, last = _numbers((inputs, width), 8), _numbers((width, outputs), 9)
        return {"params": {"first": jnp.asarray(first / inputs**0.5), "last": jnp.asarray(0.1 * last / width**0.5)}}

    def forward(variables: Variables, images: Float[Array, "B H W 3"]) -> tuple[Array, ...]:
        count, side = len(images), size // patch
        patches = images.reshape(count, side, patch, side, patch, 3).swapaxes(2, 3).reshape(count, side, side, -1)
        hidden = jax.nn.silu(patches @ variables["params"]["first"])
        return ((hidden @ variables["params"]["last"])[..., None, :],)

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[tuple[Array, ...], Variables]:
        return forward(variables, images), {}

    def loss(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        return yolov3_loss(outputs, levels_of(outputs, strides), anchors, targets, hyper)

    def decode_outputs(outputs: Outputs) -> Candidates:
        cells, steps, shapes = anchor_grid(levels_of(outputs, strides), anchors)
        raw = flatten_levels(outputs)
        boxes = decode(raw[..., :4], cells[None], steps[None], shapes[None])
        return Candidates(boxes, jax.nn.sigmoid(raw[..., 4:5]) * jax.nn.sigmoid(raw[..., 5:]))

    spec = DetectorSpec("self-test", ("square",), (size, size), strides)
    return Detector(spec, init, forward, forward_train, loss, decode_outputs)


def check_evaluation() -> tuple[bool, str]:
    """A right detection, a wrong one and a right one: AP is (51 + 50 x 2/3) / 101 by COCO's interpolation."""
    boxes = [[10, 10, 20, 20], [50, 50, 30, 30]]
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    rows = [(boxes[0], 0.9), ([80, 5, 10, 10], 0.8), (boxes[1], 0.7)]
    found = [{"image_id": 1, "category_id": 1, "bbox": box, "score": score} for box, score in rows]
    ap, expected = evaluate_coco(truth, found).AP, (51 + 50 * 2 / 3) / 101
    return ap is not None and abs(ap - expected) < 1e-9, f"AP {ap:.4f}, {expected:.4f} by hand"


def check_export() -> tuple[bool, str]:
    """A detector from pixels to boxes as StableHLO bytes and back gives what the detector gives."""
    detector = patch_detector()
    variables = detector.init(jax.random.key(1))
    images = np.abs(_numbers((2, 32, 32, 3), 6))

    def program(images: Float[Array, "B H W 3"]) -> tuple[Array, ...]:
        return tuple(detector.decode(detector.forward(variables, images)))

    compiled = jax.jit(for_platform(jax.default_backend(), program))
    stored = jax.export.export(compiled)(images).serialize()
    again = jax.device_get(jax.export.deserialize(stored).call(images))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(again, jax.device_get(compiled(images)), strict=True))
    return apart < 1e-3, f"{len(stored):,} bytes; boxes and scores {apart:.1e} apart"


CHECKS: dict[str, Callable[[], tuple[bool, str]]] = {
    "convolution": check_convolution,
    "suppression": check_suppression,
    "training": check_training,
    "evaluation": check_evaluation,
    "export": check_export,
}
"""Each returns whether the answer was right, and what was compared."""


def _numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the IoU of a box with each of the others exceeds one half."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(sides, 0), 1)
    areas = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], 1)
    return shared / (areas - shared) > 0.5
