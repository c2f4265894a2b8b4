"""`yolov5_loss` against its definition in float64 NumPy, one image, cell and anchor after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.anchored_scene import ANCHORS, LEVELS, B, C, M, bce, ciou, scene, sides, sigmoid
from yolojax.assign import ratio_assign
from yolojax.losses import yolov5_loss
from yolojax.structures import Hyper, Targets, hyper_as_arrays

BALANCE = (4.0, 1.0)
HYPER = hyper_as_arrays(Hyper(lambda_coord=0.05, lambda_obj=0.7, lambda_cls=0.5))


# Has its own oracle, beside its own tests.
@functools.cache
def assign():
    return jax.jit(lambda targets: ratio_assign(targets, LEVELS, jnp.asarray(ANCHORS)))


def oracle(maps, targets, constants=None, hyper=HYPER):
    """The parts, each a mean over the batch, and the number of positives and of ignored predictions of each image."""
    constants = {} if constants is None else constants
    assigned = jax.tree.map(np.asarray, assign()(targets))
    parts, ignored, positives, flat = {"obj": 0.0}, np.zeros(B), np.zeros(B), 0
    for level, (rows, columns, stride) in enumerate(LEVELS):
        objectness, boxes, classes = 0.0, [], []
        for b in range(B):
            for place, (y, x, a) in enumerate(np.ndindex(rows, columns, 2)):
                t = np.asarray(maps[level], np.float64)[b, y, x, a]
                cx, cy = ((2 * sigmoid(t[i]) - 0.5 + cell) * stride for i, cell in enumerate((x, y)))
                w, h = (ANCHORS[level, a].astype(np.float64)[i] * (2 * sigmoid(t[2 + i])) ** 2 for i in range(2))
                box, quality = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 0.0
                if assigned.positive[b, flat + place]:
                    owner = assigned.objects[b, flat + place]
                    truth = targets.boxes[b, owner].astype(np.float64)
                    fit = ciou(box, truth, constants, ("trade-off", level, b, place))
                    boxes.append(1 - fit)
                    classes.append(bce(t[5:], np.arange(C) == targets.classes[b, owner]).mean())
                    quality = constants.setdefault(("quality", level, b, place), max(fit, 0.0))
                    positives[b] += 1
                elif any(
                    targets.valid[b, m] and targets.crowd[b, m] and inter >= own / 2
                    for m in range(M)
                    for inter, own, _ in [sides(box, targets.boxes[b, m])]
                ):
                    ignored[b] += 1
                    continue
                objectness += bce(t[4], quality)
        flat += rows * columns * 2
        parts["obj"] += float(hyper.lambda_obj) * BALANCE[level] * objectness / (B * rows * columns * 2)
        parts[f"box_{level}"] = float(hyper.lambda_coord) * (np.mean(boxes) if boxes else 0.0)
        parts[f"cls_{level}"] = float(hyper.lambda_cls) * (np.mean(classes) if classes else 0.0)
    return parts, positives, ignored


@functools.cache
def compiled(wants="loss"):
    def loss(maps, targets, hyper):
        return yolov5_loss(maps, LEVELS, jnp.asarray(ANCHORS), targets, hyper, balance=BALANCE)

    if wants == "gradient":
        return jax.jit(jax.grad(lambda *a: loss(*a).reduce()[0]))
    return jax.jit(loss)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_its_definition(seed):
    maps, targets = scene(seed)
    terms = compiled()(maps, targets, HYPER)
    parts, positives, ignored = oracle(maps, targets)
    total, found = terms.reduce()
    assert found.keys() == parts.keys()
    for name, expected in parts.items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-7, err_msg=name)
    np.testing.assert_allclose(total, sum(parts.values()), rtol=2e-5)
    np.testing.assert_array_equal(terms.counts["positives"], positives)
    np.testing.assert_array_equal(terms.counts["ignored"], ignored)
    assert positives[0] > 0 and ignored[0] > 0


def test_gradient_equals_finite_differences():
    maps, targets = scene(1)
    slope = [np.asarray(g) for g in compiled("gradient")(maps, targets, HYPER)]
    constants = {}
    oracle(maps, targets, constants)
    positive, rng = np.asarray(assign()(targets).positive), np.random.default_rng(2)
    checked, flat = 0, 0
    for level, (rows, columns, _) in enumerate(LEVELS):
        here = positive[:, flat : flat + rows * columns * 2].reshape(B, rows, columns, 2)
        flat += rows * columns * 2
        for place in [*np.argwhere(here)[:2], *np.argwhere(~here)[:1]]:
            for channel in rng.choice(5 + C, 4, replace=False):
                values = []
                for step in (1e-5, -1e-5):
                    moved = [np.asarray(m, np.float64) for m in maps]
                    moved[level][(*place, channel)] += step
                    values.append(sum(oracle(moved, targets, constants)[0].values()))
                numeric = (values[0] - values[1]) / 2e-5
                np.testing.assert_allclose(slope[level][(*place, channel)], numeric, rtol=1e-4, atol=1e-6)
                checked += abs(numeric) > 1e-5
    assert checked > 5


def test_order_and_padding_of_objects_change_nothing():
    maps, targets = scene()
    order = np.array([3, 1, 4, 0, 2])
    mixed = Targets(*(a[:, order] for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = -7
    for wants in ("loss", "gradient"):
        f = compiled(wants)
        for a, b in zip(jax.tree.leaves(f(maps, targets, HYPER)), jax.tree.leaves(f(maps, mixed, HYPER)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [30, 30, 10, 10], [-1e9, -1e9, 1e9, 1e9], None], ids=str)
def test_finite_whatever_the_objects(box):
    maps, targets = scene()
    if box is None:
        targets = targets._replace(valid=np.zeros((B, M), bool))
    else:
        boxes = targets.boxes.copy()
        boxes[:, 0] = box
        targets = targets._replace(boxes=boxes)
    terms, slope = compiled()(maps, targets, HYPER), compiled("gradient")(maps, targets, HYPER)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((terms, slope)))
