"""Makes the pictures of ``docs/from_scratch.md``: runs the page's own blocks and draws what they computed.

``python docs/from_scratch/make_pictures.py``; a minute on two cores, 300 further training steps included.
"""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from yolojax.draw import Objects, caption, contact_sheet, draw_boxes, enlarge

FOLDER = Path(__file__).parent
LATER = 300


def run_page() -> SimpleNamespace:
    """The names that the blocks of the page define."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", FOLDER.with_suffix(".md").read_text(), re.DOTALL | re.MULTILINE):
        exec(block, names)
    return SimpleNamespace(**names)


def axes_over(images: list[np.ndarray], width: float) -> tuple[Figure, list[Any]]:
    """A figure with one panel an image, in pixel coordinates."""
    figure = Figure(figsize=(width * len(images), width + 0.35), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, len(images), squeeze=False)[0])
    for axes, image in zip(panels, images, strict=True):
        h, w = image.shape[:2]
        axes.imshow(image, extent=(0, w, h, 0))
        axes.set(xlim=(0, w), ylim=(h, 0))
        axes.set_xticks([])
        axes.set_yticks([])
    return figure, panels


def outline(axes: Any, box: Any, **style: Any) -> None:
    x1, y1, x2, y2 = (float(v) for v in box)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **{"fill": False, "linewidth": 1.6, **style}))


def grid(axes: Any, stride: int, side: int) -> None:
    for place in range(stride, side, stride):
        axes.axhline(place, color="white", linewidth=0.6, alpha=0.7)
        axes.axvline(place, color="white", linewidth=0.6, alpha=0.7)


def images(page: SimpleNamespace) -> None:
    large = [
        draw_boxes(*enlarge(r.pixels(), Objects(r.boxes, r.classes, None), 280), page.names)
        for r in sorted(page.dataset.records, key=lambda r: -len(r.boxes))[:4]
    ]
    save(contact_sheet(large, 4), "images")


def suppression(page: SimpleNamespace) -> None:
    picture = page.record.pixels()
    figure, (before, after) = axes_over([picture, picture], 3.2)
    for box, score in zip(np.asarray(page.noisy), np.asarray(page.scores), strict=True):
        outline(before, box, edgecolor="white", linewidth=0.8, alpha=float(score))
    for box in page.survivors:
        outline(after, box, edgecolor="white")
    before.set_title("60 boxes", fontsize=10)
    after.set_title(f"{len(page.survivors)} kept for {len(page.record.boxes)} objects", fontsize=10)
    figure.savefig(FOLDER / "suppression.png", dpi=110)


def coding(page: SimpleNamespace) -> None:
    figure, (axes,) = axes_over([np.full((80, 80, 3), 235, np.uint8)], 3.6)
    for place in range(16, 80, 16):
        axes.axhline(place, color="grey", linewidth=0.6)
        axes.axvline(place, color="grey", linewidth=0.6)
    outline(axes, (32, 32, 48, 48), facecolor="#ffd54f", edgecolor="none", fill=True, alpha=0.7)
    middle, half = np.array([42.0, 46.0]), np.asarray(page.anchor) / 2
    outline(axes, (*(middle - half), *(middle + half)), edgecolor="C0", linestyle="--", label="anchor 20 x 24")
    outline(axes, page.box, edgecolor="C3", label="box 24 x 18, decoded")
    outline(axes, page.misplaced, edgecolor="grey", linestyle=":", label="offset taken for t")
    axes.plot(*middle, "o", color="C3", markersize=4)
    axes.set_title("stride 16, cell (2, 2)", fontsize=10)
    axes.legend(fontsize=8, loc="upper right")
    figure.savefig(FOLDER / "coding.png", dpi=110)


def assignment(page: SimpleNamespace) -> None:
    i = page.dataset.records.index(page.record)
    picture = page.record.pixels()
    figure, panels = axes_over([picture, picture], 3.2)
    for axes, level, boxes, positive in zip(
        panels, page.levels, page.assigned.boxes, page.assigned.positive, strict=True
    ):
        grid(axes, level.stride, 96)
        for row, column, anchor in np.argwhere(np.asarray(positive[i])):
            x, y, s = column * level.stride, row * level.stride, level.stride
            outline(axes, (x, y, x + s, y + s), facecolor="#ffd54f", edgecolor="black", fill=True, alpha=0.55)
            outline(axes, boxes[i, row, column, anchor], edgecolor="white")
        axes.set_title(f"stride {level.stride}: {int(positive[i].sum())} objects", fontsize=10)
    figure.savefig(FOLDER / "assignment.png", dpi=110)


def loss(values: list[float]) -> None:
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(range(1, len(values) + 1), values)
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(FOLDER / "loss.png", dpi=110)


def train_on(page: SimpleNamespace) -> Any:
    """The variables after `LATER` steps from the start, with a schedule of that length."""
    import optax

    plain = page.train_step.__wrapped__
    plain.__globals__["optimiser"] = optax.adam(optax.cosine_decay_schedule(1e-2, LATER))
    step = page.jax.jit(lambda *of: plain(*of))  # jit of the same function would reuse what it traced before
    variables = page.jax.jit(page.detector.init)(page.jax.random.key(0))
    state = page.optimiser.init(variables["params"])
    for _ in range(LATER):
        variables, state, _ = step(variables, state)
    return variables


def detections(page: SimpleNamespace, later: Any) -> None:
    chosen = sorted(range(8), key=lambda i: -len(page.dataset.records[i].boxes))[1:4]
    rows = []
    for title, variables in (("truth", None), ("30 steps", page.variables), (f"{LATER} steps", later)):
        found = page.detect(variables, jnp.asarray(page.pixels)) if variables is not None else None
        for i in chosen:
            record = page.dataset.records[i]
            objects = Objects(record.boxes, record.classes, None)
            if found is not None:
                keep = np.asarray(found.valid[i] & (found.scores[i] > 0.25))
                objects = Objects(*(np.asarray(x[i])[keep] for x in (found.boxes, found.classes, found.scores)))
            large = draw_boxes(*enlarge(record.pixels(), objects, 280), page.names)
            rows.append(caption(large, f"{title}: {len(objects.boxes)}"))
    save(contact_sheet(rows, 3), "detections")


def save(picture: np.ndarray, name: str) -> None:
    from PIL import Image

    Image.fromarray(picture).save(FOLDER / f"{name}.png", optimize=True)


def main() -> None:
    page = run_page()
    images(page)
    suppression(page)
    coding(page)
    assignment(page)
    loss(page.losses)
    detections(page, train_on(page))


if __name__ == "__main__":
    main()
