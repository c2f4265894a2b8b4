"""Curves and the confusion matrix as PNG files, under the names that people know from other tools.

`index.html` holds the same and more; a picture can be put into an issue, a paper or a logger.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from yolojax.errors import shortened
from yolojax.eval.analysis import Analysis
from yolojax.eval.confidence import confidence_curves
from yolojax.eval.table import format_number

if TYPE_CHECKING:
    from matplotlib.artist import Artist
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
    # One sheet serves all curves, and another both matrices: making and drawing ticks takes longest.
    sheet = _unit_square()
    axes = sheet.axes
    files = {"PR_curve.png": _precision_recall(sheet, analysis, names)}
    for file, y_label, values in (
        ("F1_curve.png", "F1", curves.f1),
        ("P_curve.png", "precision", curves.precision),
        ("R_curve.png", "recall", curves.recall),
    ):
        together, best = "all classes", analysis.result.best_f1 if file == "F1_curve.png" else None
        marks: list[Artist] = []
        if best is not None:
            together += f": best {format_number(best.f1)} at {best.confidence:.3f}"
            marks.append(axes.axvline(best.confidence, color="0.4", linestyle=":", linewidth=1))
        marks += _lines(axes, curves.confidence, values[:-1], dict(enumerate(names)), values[-1], together)
        files[file] = sheet.png(marks, f"{y_label} over confidence, IoU .50", "confidence threshold", y_label)
    counts = analysis.confusion.counts
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    sheet = _matrix_sheet(names)
    files["confusion_matrix.png"] = _matrix(sheet, analysis, counts.astype(np.float64), "counts", ".0f")
    files["confusion_matrix_normalized.png"] = _matrix(sheet, analysis, shares, "shares of each row", ".2f")
    return files


class _Sheet:
    """A figure with one pair of axes, whose ticks and grid are drawn once and serve for several pictures."""

    def __init__(self, figure: "Figure", axes: "Axes") -> None:
        self.figure, self.axes = figure, axes
        self._words: list[Artist] = [axes.title, axes.xaxis.label, axes.yaxis.label]
        self._empty: Any = None

    def png(self, drawn: "Sequence[Artist]", title: str, x_label: str, y_label: str) -> bytes:
        """The picture with what was ``drawn`` on the sheet, which is removed from it again."""
        canvas: Any = self.figure.canvas
        frame = [spine for spine in self.axes.spines.values() if spine.get_visible()]
        with warnings.catch_warnings():
            # The fonts that come with Matplotlib lack some scripts; their letters are empty boxes here.
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            if self._empty is None:
                for artist in (*drawn, *frame):
                    artist.set_visible(False)
                canvas.draw()  # finds the places of title and labels, too
                for artist in (*drawn, *frame):
                    artist.set_visible(True)
                self._empty = canvas.copy_from_bbox(self.figure.bbox)
            self.axes.set_title(title, loc="center")
            self.axes.set(xlabel=x_label, ylabel=y_label)
            above = sorted((*drawn, *frame, *self._words), key=lambda artist: artist.get_zorder())
            canvas.restore_region(self._empty)
            for artist in above:
                self.figure.draw_artist(artist)
        for artist in drawn:
            artist.remove()
        file = io.BytesIO()
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, "PNG", compress_level=3)
        return file.getvalue()


def _precision_recall(sheet: _Sheet, analysis: Analysis, names: list[str]) -> bytes:
    curves, result = analysis.result.curves, analysis.result
    of_class = curves.at_iou(0.5).T
    measured = ~np.isnan(of_class[:, 0])
    mean = of_class[measured].mean(axis=0) if measured.any() else np.full(len(curves.recall), np.nan)
    labels = {k: f"{name} {format_number(result.classes[k].AP50)}" for k, name in enumerate(names) if measured[k]}
    words = f"mean of classes: AP50 {format_number(result.AP50)}"
    drawn = _lines(sheet.axes, curves.recall, of_class, labels, mean, words)
    return sheet.png(drawn, "precision over recall, IoU .50", "recall", "precision")


def _lines(
    axes: "Axes",
    x: Float64[np.ndarray, " T"],
    of_class: Float64[np.ndarray, "K T"],
    labels: Mapping[int, str],
    together: Float64[np.ndarray, " T"],
    label: str,
) -> "list[Artist]":
    """A thin line for each class that has a label, a thick one for all, and their legend; only a few classes are told
    apart."""
    drawn: list[Artist] = []
    if len(labels) <= NAMED_CLASSES:
        for k, name in labels.items():
            # Matplotlib leaves labels that begin with an underscore out of the legend.
            name = f" {name}" if name[:1] == "_" else name
            drawn += axes.plot(x, of_class[k], linewidth=1, color=f"C{k % 10}", label=name)
    else:
        from matplotlib.collections import LineCollection

        rows = [np.column_stack([x, of_class[k]]) for k in labels]
        style = {"colors": "0.75", "linewidths": 1, "capstyle": "projecting", "joinstyle": "round", "zorder": 2}
        drawn.append(axes.add_collection(LineCollection(rows, label="each class", **style), autolim=False))
    drawn += axes.plot(x, together, linewidth=2.5, color="black", label=label)
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return [*drawn, legend]


def _unit_square() -> _Sheet:
    """The right third is for the legend."""
    figure = _figure(9.0, 5.0)
    axes = figure.add_axes((0.07, 0.11, 0.6, 0.8))
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return _Sheet(figure, axes)


_MARGIN = 2.3
"""Inches beside a confusion matrix; a name of 24 letters has room there."""


def _matrix_sheet(names: list[str]) -> _Sheet:
    """Axes of a confusion matrix of these classes, with their names where there is room for them."""
    lines = len(names) + 1
    side = float(np.clip(0.45 * lines, 2.5, 14.0))
    width, height = _MARGIN + side + 1.2, _MARGIN + side + 0.8
    figure = _figure(width, height)
    axes = figure.add_axes((_MARGIN / width, _MARGIN / height, side / width, side / height))
    if lines <= MATRIX_NAMES:
        axes.set_xticks(range(lines), [*names, "missed"], rotation=90)
        axes.set_yticks(range(lines), [*names, "background"])
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
            text.set_fontsize(9 if lines <= MATRIX_NUMBERS else 6)
    axes.set(xlim=(-0.5, lines - 0.5), ylim=(lines - 0.5, -0.5))
    return _Sheet(figure, axes)


def _matrix(sheet: _Sheet, analysis: Analysis, values: Float64[np.ndarray, "L L"], what: str, form: str) -> bytes:
    """Darker cells hold more; cells of nothing are white and have no number."""
    figure, axes = sheet.figure, sheet.axes
    matrix, most = analysis.confusion, max(values.max(), 1.0)
    image = axes.imshow(np.ma.masked_equal(values, 0), cmap="Blues", vmin=0, vmax=most)
    place, inch = axes.get_position(original=True), 1 / figure.get_figwidth()
    bar = figure.add_axes((place.x1 + 0.2 * inch, place.y0, 0.2 * inch, place.height))
    figure.colorbar(image, cax=bar)
    numbers = []
    if len(values) <= MATRIX_NUMBERS:
        for row, column in np.argwhere(values > 0):
            style = {"color": "white" if values[row, column] > most / 2 else "black", "fontsize": 8}
            numbers.append(axes.text(column, row, f"{values[row, column]:{form}}", ha="center", va="center", **style))
    title = f"confusion matrix, {what}\nIoU {matrix.iou:.2f}, confidence {matrix.confidence:g}"
    return sheet.png([bar, image, *numbers], title, "predicted class", "class of the object")


def _figure(width: float, height: float) -> "Figure":
    # Without pyplot, which would choose a window system and keep every figure in memory.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure
