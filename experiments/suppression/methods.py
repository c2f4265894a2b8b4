"""The kinds of suppression as compiled functions of one image, the thresholds that are tried, and what was recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.shared.candidate_rows import Rows, ap_of, real_rows, resampled_ap, shapes_rows
from experiments.shared.small_runs import Scale
from yolojax import nms
from yolojax.nms import Rescored

K = 100
Record = dict[str, Any]


def fusion(boxes: Any, scores: Any, classes: Any, k: int, *, iou_threshold: Any, valid: Any) -> Any:
    return nms.weighted_box_fusion(boxes[None], scores[None], classes[None], iou_threshold, k, valid=valid[None])


IOUS = (0.4, 0.5, 0.6, 0.7)
KINDS: dict[str, tuple[Callable[..., Any], str | None, tuple[float, ...]]] = {
    "greedy": (nms.greedy_nms, "iou_threshold", IOUS),
    "DIoU": (nms.diou_nms, "diou_threshold", IOUS),
    "soft, linear": (nms.soft_nms_linear, "iou_threshold", (0.3, 0.4, 0.5, 0.6)),
    "soft, Gaussian": (nms.soft_nms_gaussian, "sigma", (0.1, 0.3, 0.5)),
    "matrix, linear": (nms.matrix_nms_linear, None, (0.0,)),
    "matrix, Gaussian": (nms.matrix_nms_gaussian, "sigma", (0.1, 0.3, 0.5)),
    "fast": (nms.fast_nms, "iou_threshold", IOUS),
    "cluster": (nms.cluster_nms, "iou_threshold", IOUS),
    "weighted box fusion": (fusion, "iou_threshold", IOUS),
}


def program(kind: str) -> Callable[..., Any]:
    """``(boxes, scores, classes, valid, threshold)`` of one image to boxes, scores, classes and mask of K rows."""
    rule, name, _ = KINDS[kind]

    def run(boxes: Any, scores: Any, classes: Any, valid: Any, threshold: Any) -> Any:
        found = rule(boxes, scores, classes, K, valid=valid, **({name: threshold} if name else {}))
        if isinstance(found, Rescored):
            return boxes[found.indices], found.scores, classes[found.indices], found.valid
        return tuple(found)

    return jax.jit(run)


def suppress(run: Callable[..., Any], rows: Rows, threshold: float) -> list[Any]:
    return [jax.device_get(run(*image, np.float32(threshold))) for image in rows.images]


def milliseconds(run: Callable[..., Any], rows: Rows, threshold: float) -> float:
    def once(image: Any) -> float:
        clock = time.perf_counter()
        jax.block_until_ready(run(*image, np.float32(threshold)))
        return time.perf_counter() - clock

    images = [jax.device_put(image) for image in rows.images[:32]]
    once(images[0])
    return 1e3 * float(np.median([min(once(image) for _ in range(3)) for image in images]))


def crowded_run(scale: Scale, seed: int, run: Any, grid: tuple[float, ...]) -> dict[str, Any]:
    """What a member of ``scale`` reaches on test images, at the threshold that is best on its validation images."""
    val, test = (shapes_rows(scale, seed, split) for split in ("val", "test"))
    best = max(grid, key=lambda t: ap_of(val, suppress(run, val, t))["AP"])
    return {"threshold": best, **ap_of(test, suppress(run, test, best))}


def timed(data: str, model: str, run: Any, grid: tuple[float, ...]) -> dict[str, Any]:
    """The time at the middle threshold."""
    return {"ms": milliseconds(run, real_rows(data, model), grid[len(grid) // 2])}


def halves(data: str, model: str, run: Any, grid: tuple[float, ...]) -> dict[str, Any]:
    """Each half of the images by the threshold that is best on the other half."""
    rows = real_rows(data, model)
    which = np.arange(len(rows.images)) % 2
    found = {t: suppress(run, rows, t) for t in grid}
    best = [max(grid, key=lambda t: ap_of(rows, found[t], which != half)["AP"]) for half in (0, 1)]
    mixed = [found[best[half]][i] for i, half in enumerate(which)]
    return {"thresholds": best, **ap_of(rows, mixed), "resampled": resampled_ap(rows, mixed, 300)}


def of(record: Record, part: str, kind: str, model: str | None = None) -> list[Record]:
    return [r for r in record["runs"] if (r["part"], r["kind"], r.get("model")) == (part, kind, model)]


def crowded(record: Record, kind: str, name: str = "AP") -> list[float]:
    """The number on test images of every seed."""
    return [r[name] for r in sorted(of(record, "crowded", kind), key=lambda r: r["seed"])]


def kinds(record: Record) -> list[str]:
    return [kind for kind in KINDS if of(record, "crowded", kind)]


def models(record: Record) -> list[str]:
    return list(dict.fromkeys(r["model"] for r in record["runs"] if r["part"] == "coco"))
