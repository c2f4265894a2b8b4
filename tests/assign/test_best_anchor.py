"""`assign_targets` against a plain loop over images and objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import assign_targets, shape_iou
from yolojax.structures import Level, Targets

LEVELS = (Level(6, 8, 8), Level(3, 4, 16))
ANCHORS = np.array([[[6, 6], [10, 14]], [[24, 20], [40, 44]]], np.float32)
H, W, B, M, C = 48, 64, 3, 7, 3

ALSO = 0.2
assign = jax.jit(lambda targets: assign_targets(targets, LEVELS, jnp.asarray(ANCHORS), C))
assign_more = jax.jit(lambda targets: assign_targets(targets, LEVELS, jnp.asarray(ANCHORS), C, iou_thresh=ALSO))


def oracle(targets, iou_thresh=1.0):
    """Per level ``boxes, classes, positive`` and the number of losers, one object after the other.

    As Darknet's yolo_layer.c: the best anchor, then every other one above ``iou_thresh``.
    """
    maps = [
        (np.zeros((B, v.h, v.w, 2, 4)), np.zeros((B, v.h, v.w, 2, C)), np.zeros((B, v.h, v.w, 2), bool)) for v in LEVELS
    ]
    collisions = np.zeros(B, int)
    for b in range(B):
        holder = {}
        for m in range(M):
            box, label = targets.boxes[b, m].astype(np.float64), int(targets.classes[b, m])
            w, h = box[2] - box[0], box[3] - box[1]
            if not targets.valid[b, m] or targets.crowd[b, m] or not np.isfinite(box).all() or w <= 0 or h <= 0:
                continue
            ious = {}
            for (level, a), (aw, ah) in ((i, ANCHORS[i].astype(np.float64)) for i in np.ndindex(2, 2)):
                inter = min(w, aw) * min(h, ah)
                ious[level, a] = inter / (w * h + aw * ah - inter)
            best = max(ious, key=lambda i: ious[i])
            for (level, a), iou in ious.items():
                if (level, a) != best and iou <= iou_thresh:
                    continue
                rows, columns, stride = LEVELS[level]
                x = min(max(int(np.floor((box[0] + box[2]) / 2 / stride)), 0), columns - 1)
                y = min(max(int(np.floor((box[1] + box[3]) / 2 / stride)), 0), rows - 1)
                key = ((level, a) != best, w * h, *box, label)
                place = (level, y, x, a)
                if place in holder:
                    collisions[b] += not max(key, holder[place])[0]  # two best ones
                if place not in holder or key < holder[place]:
                    holder[place] = key
                    maps[level][0][b, y, x, a] = box
                    maps[level][1][b, y, x, a] = np.eye(C)[label]
                    maps[level][2][b, y, x, a] = True
    return maps, collisions


def scene(seed=0, case="random"):
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, [W, H], (B, M, 2)), rng.uniform(3, 50, (B, M, 2))
    if case == "one cell":
        centre = 20 + rng.uniform(0, 4, (B, M, 2))
        size = rng.choice([6.0, 12.0], (B, M, 2))
    if case == "edges":
        centre = rng.choice([0.0, 8.0, 48.0, 64.0], (B, M, 2)) * [1, 0.75]
        size = rng.choice([2.0, 8.0, 40.0], (B, M, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)
    if case == "degenerate":
        boxes[0, :4] = [[5, 5, 5, 9], [9, 9, 3, 3], [np.nan, 0, 5, 5], [0, 0, np.inf, 5]]
        boxes[1, :2] = [[1e-3, 0, 2e-3, 1e-3], [-1e9, -1e9, 1e9, 1e9]]
    valid = np.arange(M)[None] < np.array([[M], [4], [0]])
    crowd = rng.random((B, M)) < 0.15
    return Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))


@pytest.mark.parametrize("case", ["random", "one cell", "edges", "degenerate"])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_loop(case, seed):
    targets = scene(seed, case)
    got, (expected, collisions) = assign(targets), oracle(targets)
    for level, (boxes, classes, positive) in enumerate(expected):
        np.testing.assert_array_equal(got.positive[level], positive)
        np.testing.assert_array_equal(got.boxes[level], boxes.astype(np.float32))
        np.testing.assert_array_equal(got.classes[level], classes)
    np.testing.assert_array_equal(got.collisions, collisions)
    if case == "one cell":
        assert collisions[0] > 0
    assert not np.asarray(got.positive[0])[2].any()


@pytest.mark.parametrize("case", ["random", "one cell", "edges", "degenerate"])
def test_other_anchors_above_a_threshold_equal_the_loop(case):
    targets = scene(1, case)
    got, (expected, collisions) = assign_more(targets), oracle(targets, ALSO)
    for level, (boxes, classes, positive) in enumerate(expected):
        np.testing.assert_array_equal(got.positive[level], positive)
        np.testing.assert_array_equal(got.boxes[level], boxes.astype(np.float32))
        np.testing.assert_array_equal(got.classes[level], classes)
    np.testing.assert_array_equal(got.collisions, collisions)
    more, fewer = (sum(p.sum() for p in a.positive) for a in (got, assign(targets)))
    assert more > fewer


@pytest.mark.parametrize("case", ["random", "one cell"])
def test_order_and_padding_do_not_matter(case):
    targets = scene(5, case)
    order = np.random.default_rng(1).permutation(M)
    mixed = Targets(*(a[:, order] for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = 10**6
    mixed.crowd[~mixed.valid] = True
    for a, b in zip(jax.tree.leaves(assign(targets)), jax.tree.leaves(assign(mixed)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_objects_equal_in_everything_but_class():
    box = [16, 16, 28, 28]
    for classes in ([2, 1], [1, 2]):
        targets = Targets(
            np.array([[box, box]], np.float32),
            np.array([classes], np.int32),
            np.ones((1, 2), bool),
            np.zeros((1, 2), bool),
            np.zeros(1, np.int32),
        )
        got = assign(targets)
        assert got.collisions[0] == 1
        held = np.asarray(got.classes[0])[np.asarray(got.positive[0])]
        np.testing.assert_array_equal(held, [[0, 1, 0]])


def test_ignored_are_negatives_whose_anchor_lies_in_a_crowd():
    targets = Targets(
        np.array([[[0, 0, 20, 20], [3, 3, 5, 5]]], np.float32),
        np.zeros((1, 2), np.int32),
        np.ones((1, 2), bool),
        np.array([[True, False]]),
        np.zeros(1, np.int32),
    )
    got = assign(targets)
    for level, (rows, columns, stride) in enumerate(LEVELS):
        for y in range(rows):
            for x in range(columns):
                for a, (w, h) in enumerate(ANCHORS[level]):
                    cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                    inside_w = max(min(cx + w / 2, 20) - max(cx - w / 2, 0), 0)
                    inside_h = max(min(cy + h / 2, 20) - max(cy - h / 2, 0), 0)
                    expected = inside_w * inside_h / (w * h) >= 0.5 and not got.positive[level][0, y, x, a]
                    assert got.ignored[level][0, y, x, a] == expected
    assert got.positive[0][0, 0, 0, 0] and not got.ignored[0][0, 0, 0, 0]
    assert got.ignored[0][0, 0, 0, 1]


def test_shape_iou_of_nothing_is_zero():
    np.testing.assert_array_equal(shape_iou(jnp.zeros((1, 2)), jnp.zeros((3, 2))), np.zeros((1, 3)))
    np.testing.assert_allclose(shape_iou(jnp.array([[4.0, 2.0]]), jnp.array([[2.0, 4.0]])), [[4 / 12]])
