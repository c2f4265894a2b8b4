"""What an evaluation reads and leaves on disk: COCO result lists and `metrics.json`, written whole or not at all."""

import dataclasses
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from yolojax.errors import ResultError
from yolojax.eval.coco import METRICS, CocoResult
from yolojax.eval.confidence import OperatingPoint
from yolojax.files import write_whole


def detections_to_coco(
    image_id: int | str,
    boxes: Float[np.ndarray, "K 4"],
    scores: Float[np.ndarray, " K"],
    classes: Int[np.ndarray, " K"],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """The detections of one image as a COCO result list, in their order; nothing is rounded.

    Args:
      image_id: of the data set.
      boxes: xyxy in pixels of the original image; only rows that are meant (no padding).
      scores, classes: per box; a class indexes ``category_ids``.
      category_ids: the data set's ids, in the order of the detector's classes.

    Raises:
      ResultError: if a class has no category id, or a box or score is not finite.
    """
    if len(classes) and not (int(classes.min()) >= 0 and int(classes.max()) < len(category_ids)):
        wrong = int(classes.min()) if classes.min() < 0 else int(classes.max())
        raise ResultError(f"image {image_id}: class {wrong} has no category id among {len(category_ids)}")
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        row = int(np.argmin(finite))
        raise ResultError(f"image {image_id}, row {row}: box {boxes[row].tolist()}, score {scores[row]} is not finite")
    corners = np.asarray(boxes, np.float64)
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {"image_id": image_id, "category_id": category_ids[c], "bbox": box, "score": score}
        for box, score, c in zip(xywh.tolist(), np.asarray(scores, np.float64).tolist(), classes.tolist(), strict=True)
    ]


def write_json(path: str | PathLike[str], value: Any, *, indent: int | None = None) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      ValueError: on NaN and infinities, which are not JSON; ``None`` stands for "not measured".
      WriteError: the file cannot be written.
    """
    write_whole(Path(path), json_text(value, indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as the text of a JSON file; raises `ValueError` on NaN and infinities."""
    if indent is None:
        return json.dumps(value, allow_nan=False) + "\n"
    parts: list[str] = []
    _write_indented(value, indent, 0, parts)
    return "".join(parts) + "\n"


def _write_indented(value: Any, indent: int, level: int, parts: list[str]) -> None:
    """Appends the text that ``json.dumps`` gives with an indent.

    That writes value by value in Python; here a list or an object without others in it is written at once by the
    encoder in C, which is ten times as fast for a table of a million numbers.
    """
    outer, inner = "\n" + " " * (indent * level), "\n" + " " * (indent * (level + 1))
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    if not values:
        parts.append(json.dumps(value, allow_nan=False))
    elif not any(issubclass(kind, (dict, list, tuple)) for kind in set(map(type, values))):
        text = json.dumps(value, allow_nan=False, separators=("," + inner, ": "))
        parts.append(text[0] + inner + text[1:-1] + outer + text[-1])
    else:
        names = [json.dumps({key: 0})[1:-2] for key in value] if isinstance(value, dict) else [""] * len(value)
        start = "{" if isinstance(value, dict) else "["
        for name, one in zip(names, values, strict=True):
            parts.append(start + inner + name)
            _write_indented(one, indent, level + 1, parts)
            start = ","
        parts.append(outer + ("}" if isinstance(value, dict) else "]"))


def metrics(result: CocoResult) -> dict[str, Any]:
    """The content of `metrics.json`: COCO's twelve, precision and recall, then what explains them; JSON values only."""
    return {
        **{name: getattr(result, name) for name in METRICS},
        "precision": result.precision,
        "recall": result.recall,
        "mistakes": [dataclasses.asdict(mistake) for mistake in result.mistakes],
        "at_confidence": _point(result.at_confidence),
        "best_f1": _point(result.best_f1),
        "classes": [
            {**dataclasses.asdict(c), "at_confidence": _point(c.at_confidence), "best_f1": _point(c.best_f1)}
            for c in result.classes
        ],
        "counters": dataclasses.asdict(result.counters),
        "caps": list(result.caps),
        "backend": result.backend,
    }


def _point(point: OperatingPoint | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {**dataclasses.asdict(point), "precision": point.precision, "recall": point.recall, "f1": point.f1}
