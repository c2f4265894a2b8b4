"""The loss of two heads against its definition in float64 NumPy, assignment included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.distance_scene import BINS, LEVELS, POINTS, STRIDES, B, iou, oracle, scene
from yolojax.assign import Assigned
from yolojax.losses import yolov8_loss, yolov10_loss
from yolojax.structures import Hyper, hyper_as_arrays

HYPER = hyper_as_arrays(Hyper(lambda_coord=7.5, lambda_cls=0.5, lambda_dfl=1.5))
PARTS = ("box", "cls", "dfl")


def total(maps, targets):
    terms = yolov10_loss(*maps[0], *maps[1], LEVELS, targets, HYPER)
    return terms.reduce()[0], terms


# One program: what it takes to compile the terms alone would come on top.
gradient_and_terms = jax.jit(jax.grad(total, has_aux=True))


def loss(many, one, targets):
    return gradient_and_terms((many, one), targets)[1]


def gradient(maps, targets):
    return gradient_and_terms(maps, targets)[0]


def flat(maps):
    return np.concatenate([np.asarray(m, np.float64).reshape(B, -1, m.shape[-1]) for m in maps], 1)


def assignment(maps, targets, k):
    """Task-aligned assignment of ``k`` points with alpha .5 and beta 6, one image, object and point after another."""
    sides, logits = flat(maps[0]).reshape(B, -1, 4, BINS), flat(maps[1])
    far = (np.exp(sides) / np.exp(sides).sum(-1, keepdims=True) * np.arange(BINS)).sum(-1) * STRIDES[None, :, None]
    boxes = np.concatenate([POINTS - far[..., :2], POINTS + far[..., 2:]], -1)
    n = len(POINTS)
    rows, positive, scores = np.zeros((B, n), int), np.zeros((B, n), bool), np.zeros((B, n))
    for b in range(B):
        wanted, metric, overlap = {}, {}, {}
        objects = np.flatnonzero(targets.valid[b] & ~targets.crowd[b])
        for m in objects:
            x1, y1, x2, y2 = truth = targets.boxes[b, m].astype(np.float64)
            for i, (x, y) in enumerate(POINTS):
                if x1 < x < x2 and y1 < y < y2:
                    overlap[m, i] = iou(truth, boxes[b, i])
                    p = 1 / (1 + np.exp(-logits[b, i, targets.classes[b, m]]))
                    metric[m, i] = np.sqrt(p) * overlap[m, i] ** 6
            mine = [i for i in range(n) if metric.get((m, i), 0) > 0]
            for i in sorted(mine, key=lambda i, m=m: (-metric[m, i], i))[:k]:
                wanted.setdefault(i, []).append(m)
        for i, wanting in wanted.items():
            rows[b, i] = max(wanting, key=lambda m, i=i: overlap[m, i])
            positive[b, i] = True
        for m in objects:
            own = np.flatnonzero(positive[b] & (rows[b] == m))
            for i in own:
                scores[b, i] = metric[m, i] / max(metric[m, j] for j in own) * max(overlap[m, j] for j in own)
    return Assigned(rows.astype(np.int32), positive, scores)


def same_best_place():
    """Two objects in one cell of a coarse grid, and one place that predicts both better than any other does."""
    maps, targets = scene(3)
    boxes, classes = targets.boxes.copy(), targets.classes.copy()
    boxes[:, 0], boxes[:, 1] = [4, 4, 28, 28], [5, 4, 28, 28]
    classes[:, :2] = 1
    crowd, valid = targets.crowd.copy(), targets.valid.copy()
    crowd[:], valid[:, :2] = False, True
    sharp = np.array(maps[0][1])
    sharp[:, 0, 0] = np.where(np.arange(4 * BINS) % BINS == 1, 12.0, -12.0)  # the point (8, 8): 16 pixels to each side
    return ((maps[0][0], jnp.asarray(sharp)), maps[1]), targets._replace(
        boxes=boxes, classes=classes, crowd=crowd, valid=valid
    )


def changed(change):
    maps, targets = scene(5)
    boxes, valid, crowd = targets.boxes.copy(), targets.valid.copy(), targets.crowd.copy()
    if change == "holds no point":
        boxes[:, 0] = [4.5, 4.5, 7.5, 7.5]
    if change == "nothing":
        valid[:] = False
    if change == "all crowd":
        crowd[:] = True
    if change == "one object twice":
        boxes[:, 1] = boxes[:, 0]
        targets.classes[:, 1] = targets.classes[:, 0]
    if change == "sure of itself":
        maps = (maps[0], tuple(m * 8 for m in maps[1]))
    return maps, targets._replace(boxes=boxes, valid=valid, crowd=crowd)


CASES = {
    "random": lambda: scene(0),
    "another": lambda: scene(1),
    "same best place": same_best_place,
    **{
        name: (lambda name=name: changed(name))
        for name in ("holds no point", "nothing", "all crowd", "one object twice", "sure of itself")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_equals_its_definition(case):
    many, targets = CASES[case]()
    one = jax.tree.map(lambda m: jnp.roll(m, 1, axis=0) if case == "random" else m, many)
    terms = loss(many, one, targets)
    for maps, k, prefix in ((many, 10, ""), (one, 1, "one_")):
        assigned = assignment(maps, targets, k)
        sums, normaliser, ignored = oracle(maps, targets, assigned)
        for part in PARTS:
            got = terms.sums[prefix + part]
            np.testing.assert_allclose(got, sums[part], rtol=2e-5, atol=1e-5, err_msg=prefix + part)
            np.testing.assert_allclose(terms.normalisers[prefix + part], normaliser, rtol=1e-5)
        np.testing.assert_array_equal(terms.counts[f"{prefix}ignored"], ignored)
        np.testing.assert_array_equal(terms.counts[f"{prefix}positives"], assigned.positive.sum(-1))
        if prefix:
            owners = [assigned.objects[b][assigned.positive[b]].tolist() for b in range(B)]
            assert all(len(own) == len(set(own)) for own in owners)
            if case == "same best place":
                assert all(len({0, 1} & set(own)) == 1 for own in owners)
    assert set(terms.sums) == set(terms.normalisers) == {*PARTS, *(f"one_{part}" for part in PARTS)}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient((many, one), targets)))


def test_each_head_has_the_loss_that_it_would_have_alone():
    """The gradient of one head's maps does not depend on the other's."""
    many, targets = scene(0)
    one, _ = scene(7)
    first, second = gradient((many, one), targets)
    alone = jax.jit(jax.grad(lambda maps: yolov8_loss(*maps, LEVELS, targets, HYPER).reduce()[0]))(many)
    for got, expected in zip(jax.tree.leaves(first), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    again = gradient((scene(8)[0], one), targets)[1]
    for got, expected in zip(jax.tree.leaves(again), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(got, expected)
