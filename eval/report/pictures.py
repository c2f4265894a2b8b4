"""Curves and the confusion matrix as PNG files, under the names that people know from other tools.

`index.html` holds the same and more; a picture can be put into an issue, a paper or a logger.
"""

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from yolojax.errors import shortened
from yolojax.eval.analysis import Analysis
from yolojax.eval.confidence import confidence_curves
from yolojax.eval.table import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_FILES = (
    "PR_curve.png",
    "F1_curve.png",
    "P_curve.png",
    "R_curve.png",
    "confusion_matrix.png",
    "confusion_matrix_normalized.png",
)

NAMED_CLASSES = 12
"""With more classes their lines are grey and have no legend: nobody can tell more colours apart."""

MATRIX_NUMBERS = 30
"""The cells of larger confusion matrices hold no numbers, which could not be read."""

MATRIX_NAMES = 100
"""The axes of larger confusion matrices hold no names."""


def report_pictures(analysis: Analysis) -> dict[str, bytes]:
    """The PNG files of `PICTURE_FILES`, by name.

    - ``PR_curve.png``: precision over recall at IoU .5 with COCO's interpolation, of each class and their mean.
    - ``F1_curve.png``, ``P_curve.png``, ``R_curve.png``: F1, precision and recall at IoU .5 over the confidence, of
      each class and of all detections together (micro-averaged); the first marks the best confidence.
    - ``confusion_matrix.png``: counts, a row for each class of objects and a column for each predicted class;
      ``confusion_matrix_normalized.png``: shares of each row.
    """
    names = [shortened(name, 24) for name in analysis.truth.category_names]
    curves = confidence_curves(analysis.truth, analysis.found, analysis.matches)
    best = analysis.result.best_f1
    files = {"PR_curve.png": _precision_recall(analysis, names)}
    for file, y_label, values in (
        ("F1_curve.png", "F1", curves.f1),
        ("P_curve.png", "precision", curves.precision),
        ("R_curve.png", "recall", curves.recall),
    ):
        figure, axes = _unit_square("confidence threshold", y_label)
        together = "all classes"
        if file == "F1_curve.png" and best is not None:
            together += f": best {format_number(best.f1)} at {best.confidence:.3f}"
            axes.axvline(best.confidence, color="0.4", linestyle=":", linewidth=1)
        _lines(axes, curves.confidence, values[:-1], dict(enumerate(names)), values[-1], together)
        axes.set_title(f"{y_label} over confidence, IoU .50")
        files[file] = _png(figure)
    counts = analysis.confusion.counts
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    files["confusion_matrix.png"] = _matrix(analysis, names, counts.astype(np.float64), "counts", ".0f")
    files["confusion_matrix_normalized.png"] = _matrix(analysis, names, shares, "shares of each row", ".2f")
    return files


def _precision_recall(analysis: Analysis, names: list[str]) -> bytes:
    curves, result = analysis.result.curves, analysis.result
    of_class = curves.at_iou(0.5).T
    measured = ~np.isnan(of_class[:, 0])
    mean = of_class[measured].mean(axis=0) if measured.any() else np.full(len(curves.recall), np.nan)
    labels = {k: f"{name} {format_number(result.classes[k].AP50)}" for k, name in enumerate(names) if measured[k]}
    figure, axes = _unit_square("recall", "precision")
    _lines(axes, curves.recall, of_class, labels, mean, f"mean of classes: AP50 {format_number(result.AP50)}")
    axes.set_title("precision over recall, IoU .50")
    return _png(figure)


def _lines(
    axes: "Axes",
    x: Float64[np.ndarray, " T"],
    of_class: Float64[np.ndarray, "K T"],
    labels: Mapping[int, str],
    together: Float64[np.ndarray, " T"],
    label: str,
) -> None:
    """A thin line for each class that has a label, a thick one for all; only a few classes are told apart."""
    if len(labels) <= NAMED_CLASSES:
        for k, name in labels.items():
            # Matplotlib leaves labels that begin with an underscore out of the legend.
            axes.plot(x, of_class[k], linewidth=1, color=f"C{k % 10}", label=f" {name}" if name[:1] == "_" else name)
    else:
        from matplotlib.collections import LineCollection

        drawn = [np.column_stack([x, of_class[k]]) for k in labels]
        style = {"colors": "0.75", "linewidths": 1, "capstyle": "projecting", "joinstyle": "round", "zorder": 2}
        axes.add_collection(LineCollection(drawn, label="each class", **style), autolim=False)
    axes.plot(x, together, linewidth=2.5, color="black", label=label)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _unit_square(x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    """The right third is for the legend."""
    figure = _figure(9.0, 5.0)
    axes = figure.add_axes((0.07, 0.11, 0.6, 0.8))
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _matrix(analysis: Analysis, names: list[str], values: Float64[np.ndarray, "L L"], what: str, form: str) -> bytes:
    """Darker cells hold more; cells of nothing are white and have no number."""
    lines, most, matrix = len(names) + 1, max(values.max(), 1.0), analysis.confusion
    side, margin = float(np.clip(0.45 * lines, 2.5, 14.0)), 2.3  # inches; the margin holds a name of 24 letters
    width, height = margin + side + 1.2, margin + side + 0.8
    figure = _figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    image = axes.imshow(np.ma.masked_equal(values, 0), cmap="Blues", vmin=0, vmax=most)
    bar = figure.add_axes(((margin + side + 0.2) / width, margin / height, 0.2 / width, side / height))
    figure.colorbar(image, cax=bar)
    if lines <= MATRIX_NAMES:
        axes.set_xticks(range(lines), [*names, "missed"], rotation=90)
        axes.set_yticks(range(lines), [*names, "background"])
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
            text.set_fontsize(9 if lines <= MATRIX_NUMBERS else 6)
    if lines <= MATRIX_NUMBERS:
        for row, column in np.argwhere(values > 0):
            colour = "white" if values[row, column] > most / 2 else "black"
            axes.text(column, row, f"{values[row, column]:{form}}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="class of the object")
    axes.set_title(f"confusion matrix, {what}\nIoU {matrix.iou:.2f}, confidence {matrix.confidence:g}")
    return _png(figure)


def _figure(width: float, height: float) -> "Figure":
    # Without pyplot, which would choose a window system and keep every figure in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The fonts that come with Matplotlib lack some scripts; their letters are empty boxes here.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
