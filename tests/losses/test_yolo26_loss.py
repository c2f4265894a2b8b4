"""YOLO26's loss against its definition in float64 NumPy, assignment included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.distance_scene import LEVELS, POINTS, STRIDES, B, C, M, ciou_loss, iou, share
from yolojax.losses import yolo26_loss
from yolojax.structures import Hyper, Targets, hyper_as_arrays

SIDE = 64  # of the square input image, in pixels
SETTINGS = {"lambda_coord": 7.5, "lambda_cls": 0.5, "lambda_dfl": 1.5}


def hyper_at(progress):
    return hyper_as_arrays(Hyper(**SETTINGS, progress=progress))


loss = jax.jit(lambda many, one, targets, hyper: yolo26_loss(*many, *one, LEVELS, targets, hyper))
gradient = jax.jit(
    jax.grad(lambda maps, targets: yolo26_loss(*maps[0], *maps[1], LEVELS, targets, hyper_at(0.3)).reduce()[0])
)


def scene(case, seed=0):
    """Maps of both heads and targets; distances may be negative, as nothing keeps them above 0."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 30, (B, M, 2))], -1).astype(np.float32)
    valid = np.arange(M)[None] < np.array([[5], [3], [1]])
    crowd = np.zeros((B, M), bool)
    classes = rng.integers(0, C, (B, M)).astype(np.int32)
    if case == "crowd":
        crowd[0, 2], boxes[0, 2] = True, [0, 0, 50, 50]
    if case == "nothing":
        valid[:] = False
    if case == "small":  # 3 and 7 pixels: between the points of the finest level
        centre = rng.uniform(16, 48, (B, M, 2)).round()
        half = np.array([1.5, 3.5]) if seed % 2 else np.array([3.5, 1.5])
        boxes = np.concatenate([centre - half, centre + half], -1).astype(np.float32)
    if case == "small and long":
        boxes[..., 2] = boxes[..., 0] + 4
    if case == "one place":
        boxes[:, 1] = boxes[:, 0] + np.array([1, 1, 0, -1], np.float32)
        classes[:, 1] = classes[:, 0]

    def head():
        nearest = np.array(
            [
                [np.abs(POINTS[i] - (b[:, :2] + b[:, 2:]) / 2).sum(-1).argmin() for i in range(len(POINTS))]
                for b in boxes
            ]
        )
        aim = np.take_along_axis(boxes, nearest[..., None], axis=1).astype(np.float64)
        sides = np.concatenate([POINTS[None] - aim[..., :2], aim[..., 2:] - POINTS[None]], -1) / STRIDES[None, :, None]
        sides = (sides + rng.normal(0, 0.25, sides.shape)).astype(np.float32)
        return levelled(sides), levelled(rng.normal(-1, 1.5, (B, len(POINTS), C)).astype(np.float32))

    return head(), head(), Targets(boxes, classes, valid, crowd, np.zeros(B, np.int32))


def levelled(flat):
    """``[B, N, D]`` as one map for each level."""
    maps, start = [], 0
    for level in LEVELS:
        count = level.h * level.w
        maps.append(jnp.asarray(flat[:, start : start + count].reshape(B, level.h, level.w, -1)))
        start += count
    return tuple(maps)


def flat(maps):
    return np.concatenate([np.asarray(m, np.float64).reshape(B, -1, m.shape[-1]) for m in maps], 1)


def assignment(boxes, logits, targets, b, k, keep):
    """The owner of each point of an image, its score, as dicts by point."""
    wanted, metric, overlap = {}, {}, {}
    objects = np.flatnonzero(targets.valid[b] & ~targets.crowd[b])
    for m in objects:
        truth = targets.boxes[b, m].astype(np.float64)
        region = truth.copy()
        for axis in (0, 1):
            if truth[axis + 2] - truth[axis] < 16:
                centre = (truth[axis] + truth[axis + 2]) / 2
                region[axis], region[axis + 2] = centre - 8, centre + 8
        for i, (x, y) in enumerate(POINTS):
            if region[0] < x < region[2] and region[1] < y < region[3]:
                overlap[m, i] = iou(truth, boxes[i])
                metric[m, i] = np.sqrt(1 / (1 + np.exp(-logits[i, targets.classes[b, m]]))) * overlap[m, i] ** 6
        mine = [i for i in range(len(POINTS)) if metric.get((m, i), 0) > 0]
        for i in sorted(mine, key=lambda i, m=m: -metric[m, i])[:k]:
            wanted.setdefault(i, []).append(m)
    owner = {i: max(wanting, key=lambda m, i=i: overlap[m, i]) for i, wanting in wanted.items()}
    scores = {}
    for m in objects:
        own = sorted((i for i in owner if owner[i] == m), key=lambda i, m=m: -metric[m, i])[:keep]
        for i in own:
            scores[i] = metric[m, i] / metric[m, own[0]] * max(overlap[m, j] for j in own)
    return {i: owner[i] for i in scores}, scores


def oracle(maps, targets, k, keep, weight):
    """Per-image sums, normalisers, positives and ignored negatives of one head."""
    distances, logits = (flat(m) for m in maps)
    sums = {part: np.zeros(B) for part in ("box", "cls", "l1")}
    normaliser, positives, ignored = np.zeros(B), np.zeros(B), np.zeros(B)
    far = distances * STRIDES[None, :, None]
    boxes = np.concatenate([POINTS - far[..., :2], POINTS + far[..., 2:]], -1)
    for b in range(B):
        owner, scores = assignment(boxes[b], logits[b], targets, b, k, keep)
        positives[b] = len(owner)
        for i, point in enumerate(POINTS):
            wanted = np.zeros(C)
            if i in owner:
                truth, score = targets.boxes[b, owner[i]].astype(np.float64), scores[i]
                wanted[targets.classes[b, owner[i]]] = score
                normaliser[b] += score
                sums["box"][b] += weight * 7.5 * score * ciou_loss(boxes[b, i], truth, {}, 0)
                sides = np.concatenate([point - truth[:2], truth[2:] - point])
                sums["l1"][b] += weight * 1.5 * score * np.abs(far[b, i] - sides).mean() / SIDE
            elif any(
                share(boxes[b, i], targets.boxes[b, m]) >= 0.5
                for m in np.flatnonzero(targets.crowd[b] & targets.valid[b])
            ):
                ignored[b] += 1
                continue
            x = logits[b, i]
            sums["cls"][b] += weight * 0.5 * (np.maximum(x, 0) - x * wanted + np.log1p(np.exp(-np.abs(x)))).sum()
    return sums, normaliser, positives, ignored


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("case", ["random", "crowd", "nothing", "small", "small and long", "one place"])
def test_equals_its_definition(case, progress):
    many, one, targets = scene(case, seed=int(4 * progress))
    terms = loss(many, one, targets, hyper_at(progress))
    weight = 0.8 - 0.7 * progress
    for maps, k, keep, share_of_loss, prefix in ((many, 10, 10, weight, ""), (one, 7, 1, 1 - weight, "one_")):
        sums, normaliser, positives, ignored = oracle(maps, targets, k, keep, share_of_loss)
        for part, expected in sums.items():
            np.testing.assert_allclose(terms.sums[prefix + part], expected, rtol=1e-4, atol=1e-5, err_msg=part)
            np.testing.assert_allclose(terms.normalisers[prefix + part], normaliser, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(terms.counts[f"{prefix}positives"], positives)
        np.testing.assert_array_equal(terms.counts[f"{prefix}ignored"], ignored)
        assert (positives > 0).any() or case == "nothing"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient((many, one), targets)))
