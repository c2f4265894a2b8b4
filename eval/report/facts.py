"""The content of a report (`metrics.json` and the pages) as plain JSON values."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from yolojax.errors import DataError
from yolojax.eval.analysis import Analysis, Comparison, found_objects
from yolojax.eval.bootstrap import RESAMPLED, Interval
from yolojax.eval.files import metrics
from yolojax.eval.inputs import GroundTruth
from yolojax.eval.matching import AREA_RANGES
from yolojax.eval.tide import KINDS, ErrorKind

SIZES = (("small", "up to 32 x 32", "s"), ("medium", "32 x 32 to 96 x 96", "m"), ("large", "beyond 96 x 96", "l"))

KIND_WORDS: dict[ErrorKind, str] = {
    "classification": "on an object of another class (IoU at least .5)",
    "localisation": "near an object of its class, but not on it (IoU .1 to .5)",
    "both": "near an object of another class (IoU .1 to .5): neither class nor place is right",
    "duplicate": "on an object that a higher score has found already",
    "background": "on nothing (IoU at most .1 with every object)",
    "missed": "an object that nothing found, and no misclassified or misplaced box points at",
}


def report_facts(
    analysis: Analysis, comparison: Comparison | None = None, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `metrics.json`: COCO's twelve first, then all that explains them."""
    resampled = analysis.resampled
    measured = metrics(analysis.result)
    for k, row in enumerate(measured["classes"]):
        row["interval"] = interval_values(analysis.class_interval(k))
    return {
        **measured,
        "f1": analysis.value("f1"),
        "diagnosis": None
        if analysis.reading is None
        else {k: getattr(analysis.reading, k) for k in ("rule", "diagnosis", "next")},
        "intervals": {name: interval_values(analysis.interval(name)) for name in RESAMPLED} if resampled else {},
        "resamples": {"count": resampled.samples, "seed": resampled.seed, "level": 0.95} if resampled else None,
        "sizes": size_rows(analysis),
        "errors": error_rows(analysis),
        "confusions": confusion_facts(analysis),
        "calibration": calibration_facts(analysis),
        "data": data_facts(analysis.truth),
        "comparison": None if comparison is None else comparison_facts(analysis, comparison),
        "provenance": dict(provenance or {}),
    }


def interval_values(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def size_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """AP and AR of small, medium and large objects; an area of exactly 32 x 32 or 96 x 96 counts in both."""
    areas = analysis.truth.areas[~analysis.truth.crowd]
    return [
        {
            "size": name,
            "pixels": pixels,
            "objects": int(np.sum((areas >= low) & (areas <= high))),
            "AP": analysis.value(f"AP{suffix}"),
            "AR": analysis.value(f"AR{suffix}"),
        }
        for (name, pixels, suffix), (low, high) in zip(SIZES, AREA_RANGES[1:], strict=True)
    ]


def error_rows(analysis: Analysis) -> dict[str, Any]:
    """The six kinds with counts and costs in AP50, and the two sums."""
    errors = analysis.errors
    names = (*KINDS, "false_positives", "false_negatives")
    return {"AP50": errors.AP50} | {
        name: {"count": getattr(errors, name).count, "cost": getattr(errors, name).cost} for name in names
    }


def confusion_facts(analysis: Analysis) -> dict[str, Any]:
    """The matrix with its rule, and the share of each class's objects that are taken for another."""
    matrix = analysis.confusion
    pairs = sorted(matrix.shares().items(), key=lambda item: (-item[1], item[0]))
    return {
        "rule": "matched within the class first, greedily by score; what is left takes free objects of other classes",
        "rows": "objects by class, then detections of background",
        "columns": "predicted class, then missed objects",
        "iou": matrix.iou,
        "confidence": matrix.confidence,
        "names": list(matrix.names),
        "counts": matrix.counts.tolist(),
        "shares": [{"object": a, "taken_for": b, "share": share} for (a, b), share in pairs],
    }


def calibration_facts(analysis: Analysis) -> dict[str, Any]:
    """Scores in bins: true and false positives, mean score, and the expected calibration error."""
    c = analysis.scores
    return {
        "expected_calibration_error": c.error,
        "edges": c.edges.tolist(),
        "true_positives": c.true.tolist(),
        "false_positives": c.false.tolist(),
        "mean_score": [None if np.isnan(v) else float(v) for v in c.mean_score],
        "precision": [None if np.isnan(v) else float(v) for v in c.precision],
    }


def data_facts(truth: GroundTruth) -> dict[str, Any]:
    """What the ground truth holds."""
    real = ~truth.crowd
    per_image = np.bincount(truth.images[real], minlength=len(truth.image_ids))
    per_class = np.bincount(truth.categories[real], minlength=len(truth.category_ids))
    sides = truth.boxes[real][:, 2:]
    return {
        "images": len(truth.image_ids),
        "classes": len(truth.category_ids),
        "classes_without_objects": int(np.sum(per_class == 0)),
        "objects": int(real.sum()),
        "crowd_regions": int(truth.crowd.sum()),
        "images_without_objects": int(np.sum(per_image == 0)),
        "objects_per_image": _quantiles(per_image),
        "box_width": _quantiles(sides[:, 0]),
        "box_height": _quantiles(sides[:, 1]),
    }


def comparison_facts(analysis: Analysis, comparison: Comparison) -> dict[str, Any]:
    """Both detectors' numbers, their difference with its interval, how often the first wins, and who finds what.

    ``objects`` counts what both, only the first, only the second and neither find at IoU .5 and their confidences.
    """

    def row(name: str, d: Any) -> dict[str, Any]:
        return {"name": name} | d._asdict() | {"interval": interval_values(d.interval)}

    real, first, second = ~analysis.truth.crowd, found_objects(analysis), found_objects(comparison.other)

    return {
        "numbers": [row(name, d) for name, d in comparison.numbers.items()],
        "classes": [row(name, d) for name, d in comparison.classes],
        "objects": {
            "both": int(np.sum(real & first & second)),
            "only_A": int(np.sum(real & first & ~second)),
            "only_B": int(np.sum(real & second & ~first)),
            "neither": int(np.sum(real & ~first & ~second)),
        },
    }


def versions() -> dict[str, str]:
    """Of Python and of the libraries that decide a number."""
    found = {"python": platform.python_version()}
    for name in ("yolojax", "pycocotools", "hotcoco", "numpy", "jax", "jaxlib"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # hotcoco is optional, and a checkout is not installed
            continue
    return found


def file_hash(path: str | PathLike[str]) -> str:
    """SHA-256 of a file.

    Raises:
      DataError: if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    least, median, greatest = np.quantile(values, [0, 0.5, 1]).tolist()
    return {"least": least, "median": median, "mean": float(np.mean(values)), "greatest": greatest}
