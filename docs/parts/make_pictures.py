"""Draws the pictures of docs/parts.md, on generated images. Run from a checkout: python docs/parts/make_pictures.py"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from yolojax import assign, coding, losses, nms
from yolojax.data import shapes_dataset
from yolojax.draw import draw_assignment
from yolojax.structures import Level, Targets

HERE = Path(__file__).parent
SIDE = 256
ANCHORS = np.array([[[24.0, 24.0], [40.0, 32.0]], [[56.0, 56.0], [80.0, 64.0]], [[104.0, 104.0], [140.0, 120.0]]])


def new_figure(width, height):
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def outline(axes, box, colour, strength, width=2.0):
    x1, y1, x2, y2 = box
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=colour, alpha=float(strength), linewidth=width)


def draw_suppression():
    """Detections around two squares that overlap: what each kind leaves, the darker the higher its score."""
    rng = np.random.default_rng(3)
    truth = np.array([[30.0, 40, 110, 120], [55, 50, 135, 130], [190, 30, 240, 170]])  # the first two: IoU .43
    of = np.repeat(np.arange(3), 7)
    spread = rng.normal(0, 1, (21, 4)) * 5
    spread[::7] = 0
    boxes = jnp.asarray(truth[of] + spread, jnp.float32)
    scores = jnp.asarray(np.clip(0.95 - 0.025 * np.abs(spread).sum(1), 0.1, 1), jnp.float32)
    kinds = {
        "detections": None,
        "greedy, IoU > .4": partial(nms.greedy_nms, iou_threshold=0.4),
        "DIoU > .4": partial(nms.diou_nms, diou_threshold=0.4),
        "fast NMS, IoU > .4": partial(nms.fast_nms, iou_threshold=0.4),
        "soft, linear": nms.soft_nms_linear,
        "soft, Gaussian": nms.soft_nms_gaussian,
        "matrix, Gaussian": nms.matrix_nms_gaussian,
        "fusion of three sets": None,
    }
    figure = new_figure(12, 6)
    for axes, (name, f) in zip(figure.subplots(2, 4).flat, kinds.items(), strict=True):
        shown, strength = boxes, scores
        if f is not None:
            found = f(boxes, scores, None, 21)
            shown, strength = boxes[found.indices], jnp.where(found.valid, found.scores, 0.0)
        if name.startswith("fusion"):
            thirds = boxes.reshape(3, 7, 4)[:, :3], scores.reshape(3, 7)[:, :3]
            thirds = tuple(jnp.swapaxes(x, 0, 1) for x in thirds)
            fused = nms.weighted_box_fusion(*thirds, jnp.zeros((3, 3), jnp.int32), 0.4, 9)
            shown, strength = fused.boxes, fused.scores
        count = int((np.asarray(strength) > 0).sum())
        for box, score in sorted(zip(np.asarray(shown), np.asarray(strength), strict=True), key=lambda row: row[1]):
            if score > 0:
                outline(axes, box, "C0", np.clip(score, 0.12, 1.0))
        for box in truth:
            outline(axes, box, "C3", 0.8, 0.8)
        axes.set(title=f"{name}: {count}", xlim=(0, 260), ylim=(200, 0), aspect="equal", xticks=[], yticks=[])
    figure.savefig(HERE / "suppression.png", dpi=80)


def draw_assignments():
    """One generated image, six rules. Predictions are the objects' own boxes, moved the more the farther the cell."""
    record = shapes_dataset(1, seed=4, size=(SIDE, SIDE)).records[0]
    count = len(record.boxes)
    yes = np.ones((1, count), bool)
    targets = Targets(record.boxes[None], record.classes[None], yes, ~yes, np.zeros(1, np.int32))
    levels = tuple(Level(SIDE // s, SIDE // s, s) for s in (8, 16, 32))
    points, strides = (np.asarray(a) for a in coding.cell_centres(levels))
    centres = (record.boxes[:, :2] + record.boxes[:, 2:]) / 2
    distance = np.linalg.norm(points[:, None] - centres[None], axis=-1)
    nearest = distance.argmin(1)
    rng = np.random.default_rng(0)
    off = rng.normal(0, 1, (len(points), 4)) * 0.25 * distance.min(1)[:, None]
    boxes = (record.boxes[nearest] + off).astype(np.float32)
    classes = int(record.classes.max()) + 1
    scores = np.full((len(points), classes), 0.02, np.float32)
    scores[np.arange(len(points)), record.classes[nearest]] = np.exp(-distance.min(1) / 40)
    logits = jnp.log(scores) - jnp.log1p(-scores)
    predictions = assign.Predictions(jnp.asarray(boxes[None]), logits[None])
    anchors = jnp.asarray(ANCHORS, jnp.float32)
    rules = {name: (f, anchors) for name, f in assign.ANCHORED_ASSIGNERS.items()}
    rules |= {name: (f, predictions) for name, f in assign.ANCHOR_FREE_ASSIGNERS.items()}
    figure = new_figure(12, 8.4)
    for axes, (rule, (assigner, given)) in zip(figure.subplots(2, 3).flat, rules.items(), strict=True):
        got = jax.jit(lambda t, x, f=assigner: f(t, levels, x))(targets, given)
        mine = np.flatnonzero(got.positive[0])
        cell = mine // (got.positive.shape[1] // len(points))  # anchor-based rules have several predictions in a cell
        pixels = record.pixels().repeat(2, 0).repeat(2, 1)
        owners = np.asarray(got.objects)[0, mine]
        axes.imshow(draw_assignment(pixels, record.boxes * 2, points[cell] * 2, owners, strides[cell] * 2))
        axes.set(title=f"{rule}: {len(mine)} of {got.positive.shape[1]} predictions", xticks=[], yticks=[])
    figure.savefig(HERE / "assignment.png", dpi=70)


def draw_box_losses():
    """A box of 40 x 20 that slides over one of 20 x 40: the losses, and what gradient moves it."""
    x = jnp.linspace(-80, 80, 321)
    target = jnp.array([-10.0, -20.0, 10.0, 20.0])
    figure = new_figure(11, 3.6)
    value, slope = figure.subplots(1, 2)
    for name in ("box", "generalized_box", "distance_box", "complete_box", "scylla_box"):
        f = getattr(losses, f"{name}_iou_loss")

        def at(x, f=f):
            return f(jnp.stack([x - 20, -10.0 + 0 * x, x + 20, 10.0 + 0 * x]), target)

        value.plot(x, jax.vmap(at)(x), label=f"{name}_iou_loss")
        slope.plot(x, jax.vmap(jax.grad(at))(x))
    value.set(xlabel="distance of the centres", title="loss")
    slope.set(xlabel="distance of the centres", title="its derivative")
    value.legend(fontsize=8)
    for axes in (value, slope):
        axes.grid(alpha=0.3)
    figure.savefig(HERE / "box_losses.png", dpi=80)


def draw_class_losses():
    """Losses of one logit: against a hard and a soft positive and a negative."""
    x = jnp.linspace(-5, 5, 201)
    figure = new_figure(11, 3.4)
    for axes, y in zip(figure.subplots(1, 3, sharey=True), (0.0, 0.6, 1.0), strict=True):
        for name in ("binary_cross_entropy", "focal_loss", "quality_focal_loss", "varifocal_loss"):
            axes.plot(x, getattr(losses, name)(x, jnp.full(x.shape, y)), label=name)
        axes.set(xlabel="logit", title=f"target {y:g}", ylim=(-0.1, 4))
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(HERE / "class_losses.png", dpi=80)


def draw_coders():
    """Where a raw prediction puts the centre, in cells, and what side it gives, in anchors or strides."""
    t = jnp.linspace(-4, 4, 161)
    raw = jnp.stack([t, t, t, t], -1)
    nothing, one = jnp.zeros((161, 2)), jnp.ones((161, 2))
    kinds = {
        "YOLOv2, v3": coding.decode(raw, nothing, 1.0, one),
        "YOLOv4, scale 1.2": coding.decode(raw, nothing, 1.0, one, scale_x_y=1.2),
        "YOLOv5, v7": coding.decode_yolov5(raw, nothing, 1.0, one),
        "YOLOX": coding.decode_yolox(raw, nothing, 1.0),
    }
    figure = new_figure(9, 3.4)
    centre, side = figure.subplots(1, 2)
    for name, boxes in kinds.items():
        centre.plot(t, (boxes[:, 0] + boxes[:, 2]) / 2, label=name)
        side.plot(t, boxes[:, 2] - boxes[:, 0])
    centre.axhspan(0, 1, color="0.9")
    centre.set(xlabel="t", title="centre, in cells (grey: its own cell)", ylim=(-1.5, 2.5))
    side.set(xlabel="t", title="side, in anchors or strides", ylim=(0, 8))
    centre.legend(fontsize=8)
    for axes in (centre, side):
        axes.grid(alpha=0.3)
    figure.savefig(HERE / "coders.png", dpi=80)


if __name__ == "__main__":
    for draw in (draw_suppression, draw_assignments, draw_box_losses, draw_class_losses, draw_coders):
        draw()
