"""Pictures of a run: its curves, its training batches and its predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from yolojax import draw
from yolojax.anchors import AnchorDesign
from yolojax.data import Dataset, InputImages
from yolojax.data.check import check_dataset, plot_labels
from yolojax.structures import Targets
from yolojax.training.step import AugmentStep

READABLE = 240
"""Pictures are enlarged until their shorter side has this many pixels, so that labels on them can be read."""


def save_curves(path: Path, rows: list[dict[str, Any]], select_by: str = "AP") -> None:
    """Draws losses, learning rate and validation numbers over epochs, one panel each.

    Panels of the training come first and are blue, those of the validation are orange; the epoch with the highest
    ``select_by`` is marked in all of them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    found = list(dict.fromkeys(k for row in rows for k, value in row.items() if value is not None))
    training = [*(name for name in found if name.startswith("train/")), "learning_rate"]
    validation = [name for name in found if name.startswith("val/")]
    names = [*training, *validation]
    measured = [row for row in rows if row.get(f"val/{select_by}") is not None]
    best = max(measured, key=lambda row: row[f"val/{select_by}"])["epoch"] if len(measured) > 1 else None
    last = max([row["epoch"] for row in rows], default=1)
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.4 * lines + 0.4))
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False)
    for k, (axis, name) in enumerate(zip(axes.flat, names, strict=False)):
        points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
        colour = "C1" if name in validation else "C0"
        if points:
            marker = "." if len(points) < 30 else None
            axis.plot(*zip(*points, strict=True), marker=marker, linewidth=1.2, color=colour)
        if best is not None:
            axis.axvline(best, color="0.5", linestyle=":", linewidth=1)
        axis.set_title(name, fontsize=9, parse_math=False)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.set_xlim(0, last + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if name in validation:
            axis.set_ylim(0, 1)
        if k + columns >= len(names):
            axis.set_xlabel("epoch", fontsize=8)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    title = "training blue, validation orange"
    title += f"; dotted: epoch {best}, the highest {select_by}" if best is not None else ""
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def save_batch(path: Path, images: UInt8[np.ndarray, "B H W 3"], targets: Targets, names: tuple[str, ...]) -> None:
    """Draws a training batch with its boxes as the network sees it, after augmentation."""
    pictures = []
    for i, image in enumerate(images[:16]):
        boxes, classes, valid, crowd = (np.asarray(rows[i]) for rows in targets[:4])
        objects = draw.Objects(boxes[valid], classes[valid], crowd=crowd[valid])
        pictures.append(draw.draw_boxes(*draw.enlarge(image, objects, READABLE), names))
    save_png(path, draw.contact_sheet(pictures, columns=4))


def save_inputs(
    folder: Path,
    input_images: InputImages,
    augment: AugmentStep,
    indices: Int[np.ndarray, " B"],
) -> None:
    """Draws ``labels.png`` (statistics of the labels) and the batch of these images, as the first step changes it."""
    plot_labels(input_images.dataset, check_dataset(input_images.dataset, decode=False), folder / "labels.png")
    batch = jax.device_put(input_images.batch(indices))
    seen = jax.device_get(jax.jit(augment)(batch, jnp.int32(0), jnp.int32(1)))
    save_batch(folder / "train_batch0.png", seen.images, seen.targets, input_images.dataset.class_names)


def save_predictions(
    path: Path, dataset: Dataset, detections: list[dict[str, Any]], *, count: int = 8, confidence: float = 0.25
) -> None:
    """Draws the first images of a data set: ground truth left, predictions above ``confidence`` right."""
    index_of = {category: i for i, category in enumerate(dataset.category_ids)}
    pairs = []
    for record in dataset.records[:count]:
        rows = [d for d in detections if d["image_id"] == record.image_id and d["score"] >= confidence]
        xywh = np.array([d["bbox"] for d in rows], np.float32).reshape(-1, 4)
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        classes = np.array([index_of[d["category_id"]] for d in rows], np.int32)
        scores = np.array([d["score"] for d in rows], np.float32)
        image = record.pixels()
        truth = draw.Objects(record.boxes, record.classes, crowd=record.crowd)
        predicted = draw.Objects(boxes, classes, scores)
        large, truth = draw.enlarge(image, truth, READABLE)
        pairs.append(draw.compare(large, truth, draw.enlarge(image, predicted, READABLE)[1], dataset.class_names))
    save_png(path, draw.contact_sheet(pairs, columns=2))


def save_anchors(path: Path, sizes: Float[np.ndarray, "n 2"], design: AnchorDesign) -> None:
    """Draws widths and heights of all boxes with the anchors of each level over them, in input pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    FigureCanvasAgg(figure)
    scatter, outlines = figure.subplots(1, 2)
    usable = sizes[np.isfinite(sizes).all(-1) & (sizes > 0).all(-1)]
    scatter.scatter(usable[:, 0], usable[:, 1], s=5, alpha=0.3, color="0.4", linewidths=0, label=f"{len(usable)} boxes")
    for i, level in enumerate(design.levels):
        colour = f"C{i}"
        widths, heights = zip(*level.anchors, strict=True)
        scatter.scatter(widths, heights, s=60, marker="s", color=colour, edgecolors="black", label=f"{level.stride}")
        for w, h in level.anchors:
            outlines.plot(
                [-w / 2, w / 2, w / 2, -w / 2, -w / 2], [-h / 2, -h / 2, h / 2, h / 2, -h / 2], color=colour, lw=1.5
            )
    scatter.set(xscale="log", yscale="log", xlabel="width (input pixels)", ylabel="height", title="boxes and anchors")
    scatter.legend(title="stride", fontsize=8, title_fontsize=8)
    scatter.grid(alpha=0.3, which="both")
    outlines.set(aspect="equal", xlabel="input pixels", title="anchors over a common centre")
    outlines.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def save_png(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes one picture."""
    Image.fromarray(picture).save(path)
