"""`index.html`: one file that opens from a disk, loads nothing and sends nothing.

Every text of a user (class names, file names, the command) goes through Jinja's escaping or, as JSON, through `tojson`,
which writes ``<`` as ``\\u003c``. Besides, the page's policy allows only the one script whose hash it states, and no
connection at all.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from yolojax.eval.analysis import Analysis, Comparison
from yolojax.eval.bootstrap import RESAMPLED
from yolojax.eval.inputs import GroundTruth
from yolojax.eval.report import charts
from yolojax.eval.report.facts import KIND_WORDS
from yolojax.eval.report.gallery import Gallery
from yolojax.eval.table import format_notes, format_number
from yolojax.eval.tide import KINDS

MATRIX_CLASSES = 100
"""The confusion matrix of a data set with more classes shows only those that are confused most."""

LABELS = {
    "AP": ("AP", "mean over IoU .50 to .95"),
    "AP50": ("AP50", "IoU .50"),
    "AP75": ("AP75", "IoU .75"),
    "APs": ("AP small", "up to 32 x 32 pixels"),
    "APm": ("AP medium", "32 x 32 to 96 x 96"),
    "APl": ("AP large", "beyond 96 x 96"),
    "ARs": ("AR small", "up to 32 x 32 pixels"),
    "ARm": ("AR medium", "32 x 32 to 96 x 96"),
    "ARl": ("AR large", "beyond 96 x 96"),
}


def render_page(
    analysis: Analysis,
    comparison: Comparison | None,
    gallery: Gallery,
    facts: dict[str, Any],
    title: str,
    *,
    differences: Sequence[dict[str, Any]] = (),
    history: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The whole page as text.

    Args:
      analysis, comparison, gallery, facts: what it shows.
      title: its heading.
      differences: of a comparison, the images of `build_differences`.
      history: rows of a run's ``metrics.jsonl``.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read_template),
    )
    environment.filters["number"] = format_number
    environment.filters["signed"] = lambda v: "n/a" if v is None else f"{v:+.3f}"
    environment.filters["percent"] = lambda v: "n/a" if v is None else f"{v:.1%}"
    environment.filters["grouped"] = lambda n: f"{n:,}"
    script = read_template("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("report.html").render(
        title=title,
        facts=facts,
        tiles=headline(analysis),
        comparison=facts["comparison"],
        notes=format_notes(analysis.result.counters, analysis.result.caps[-1]),
        classes=class_rows(analysis),
        matrix=matrix_rows(analysis),
        charts=page_charts(analysis),
        training=training_charts(history),
        data_charts=data_charts(analysis.truth),
        differing=len(differences),
        kinds=[(kind, KIND_WORDS[kind], facts["errors"][kind], gallery.with_errors[kind]) for kind in KINDS],
        gallery=gallery,
        data=page_data(analysis, gallery, differences),
        style=read_template("report.css"),
        script=script,
        script_hash=digest,
    )


def read_template(name: str) -> str:
    """A file of `eval/templates`, which is installed with the package."""
    return files("yolojax.eval").joinpath("templates", name).read_text(encoding="utf-8")


def headline(analysis: Analysis) -> list[dict[str, Any]]:
    """One tile per number: name, what it is, value and interval."""
    low, middle, high = analysis.result.caps
    confidence = f"IoU .50, confidence {analysis.result.at_confidence.confidence:g}"
    labels = LABELS | {
        f"AR{k}": (f"AR@{cap}", f"{cap} best boxes per image and class")
        for k, cap in ((1, low), (10, middle), (100, high))
    }
    labels |= {"precision": ("precision", confidence), "recall": ("recall", confidence), "f1": ("F1", confidence)}
    return [
        {"name": labels[n][0], "what": labels[n][1], "value": analysis.value(n), "interval": analysis.interval(n)}
        for n in RESAMPLED
    ]


def class_rows(analysis: Analysis) -> list[dict[str, Any]]:
    """The per-class table."""
    return [
        {
            "name": one.name,
            "objects": one.objects,
            "detections": one.detections,
            "AP": one.AP,
            "interval": analysis.class_interval(k),
            "AP50": one.AP50,
            "AP75": one.AP75,
            "AR": one.AR,
            "precision": one.at_confidence.precision,
            "recall": one.at_confidence.recall,
            "f1": one.at_confidence.f1,
            "best_f1": one.best_f1.f1 if one.best_f1 else None,
            "best_at": one.best_f1.confidence if one.best_f1 else None,
        }
        for k, one in enumerate(analysis.result.classes)
    ]


def matrix_rows(analysis: Analysis) -> dict[str, Any]:
    """The confusion matrix, cut to the classes confused most where there are too many to look at."""
    matrix = analysis.confusion
    counts, c = matrix.counts, len(matrix.names)
    between = counts[:c, :c] - np.diag(np.diag(counts[:c, :c]))
    shown = np.arange(c)
    if c > MATRIX_CLASSES:
        shown = np.sort(np.argsort(-(between.sum(axis=0) + between.sum(axis=1)), kind="stable")[:MATRIX_CLASSES])
    columns = [*shown.tolist(), c]

    def row(name: str, k: int) -> dict[str, Any]:
        total = int(counts[k].sum())
        cells = [(int(counts[k, j]), float(counts[k, j]) / max(total, 1), j == k) for j in columns]
        return {"name": name, "total": total, "cells": cells}

    pairs = sorted(zip(*np.nonzero(between), strict=True), key=lambda p: (-between[p], p))[:15]
    return {
        "names": [matrix.names[k] for k in shown],
        "rows": [row(matrix.names[k], int(k)) for k in shown] + [row("background", c)],
        "left_out": c - len(shown),
        "confidence": matrix.confidence,
        "pairs": [
            (matrix.names[a], matrix.names[b], int(between[a, b]), float(between[a, b] / counts[a].sum()))
            for a, b in pairs
        ],
    }


def page_charts(analysis: Analysis) -> dict[str, Any]:
    """Precision over recall, costs of errors, reliability, scores."""
    curves, scores, errors = analysis.result.curves, analysis.scores, analysis.errors
    lines = []
    for style, iou in (("first", 0.5), ("second", 0.75), ("third", 0.9)):
        of_class = curves.at_iou(iou)
        measured = ~np.isnan(of_class[0])
        if measured.any():
            lines.append((f"IoU {iou:.2f}, mean of classes", style, curves.recall, of_class[:, measured].mean(axis=1)))
    costs = [(kind, getattr(errors, kind)) for kind in KINDS]
    return {
        "precision_recall": charts.curve_chart(lines, "recall", "precision"),
        "errors": charts.bars([(kind, e.cost, f"{e.cost:.3f} AP50, {e.count:,} times") for kind, e in costs]),
        "calibration": charts.curve_chart(
            [("share of true positives", "first", scores.mean_score.clip(0, 1), scores.precision)],
            "mean score",
            "share of true positives",
            diagonal=True,
        ),
        "scores": charts.histogram(scores.edges, scores.true, scores.false),
    }


def training_charts(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Losses, learning rate and validation numbers over epochs, of the rows of ``metrics.jsonl``."""
    found = []
    names = dict.fromkeys(k for row in history for k in row if k.startswith(("train/", "val/")) or k == "learning_rate")
    for name in names:
        points = [(float(row["epoch"]), float(row[name])) for row in history if row.get(name) is not None]
        if len(points) > 1 and np.isfinite([value for _, value in points]).all():
            epochs, values = zip(*points, strict=True)
            found.append((name, charts.series(epochs, values, "epoch", name, unit=name.startswith("val/"))))
    return found


HEAT_CELLS = 20


def data_charts(truth: GroundTruth) -> dict[str, Markup]:
    """Where objects lie on their images, and how large they are, without crowd regions."""
    real = ~truth.crowd
    boxes, sizes = truth.boxes[real], truth.sizes[truth.images[real]]
    stated = (sizes > 1).all(axis=1)
    found = {}
    if stated.any():
        centres = (boxes[stated, :2] + boxes[stated, 2:] / 2) / sizes[stated, ::-1]
        found["position"] = charts.heat_map(
            _counted(centres),
            "centre, part of the width",
            "part of the height",
            charts.UNIT_TICKS,
            charts.UNIT_TICKS[::-1],
            down=True,
        )
    sides = boxes[(boxes[:, 2:] > 0).all(axis=1), 2:]
    if len(sides):
        # From 1 to 1024 pixels in octaves, smaller and larger ones in the outer cells.
        octaves = np.log2(np.maximum(sides, 1)) / 10
        ticks = [f"{4**k}" for k in range(6)]
        found["size"] = charts.heat_map(_counted(octaves), "width, pixels", "height, pixels", ticks, ticks)
    return found


def _counted(places: Float64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "R R"]:
    """How many of the ``(x, y)`` within 0..1 lie in each cell, rows by y; those outside count in the end cells."""
    cells = np.clip((places * HEAT_CELLS).astype(np.int64), 0, HEAT_CELLS - 1)
    counts = np.zeros((HEAT_CELLS, HEAT_CELLS), np.int64)
    np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
    return counts


def page_data(analysis: Analysis, gallery: Gallery, differences: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """What the page's script works on."""
    curves = analysis.result.curves

    def rounded(table: np.ndarray) -> list[list[float] | None]:
        return [None if np.isnan(row[0]) else np.round(row, 3).tolist() for row in table.T]

    return {
        "classes": list(analysis.truth.category_names),
        "kinds": list(KINDS),
        "confidence": analysis.result.at_confidence.confidence,
        "frame": [
            charts.LEFT,
            charts.TOP,
            charts.WIDTH - charts.LEFT - charts.RIGHT,
            charts.HEIGHT - charts.TOP - charts.BOTTOM,
        ],
        "curves": {"0.50": rounded(curves.at_iou(0.5)), "0.75": rounded(curves.at_iou(0.75))},
        "images": gallery.images,
        "differences": list(differences),
    }
