"""What decoders of queries learn: the cost of a match in float64, and denoising queries of a fixed number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import denoising_queries, query_cost, visible_queries
from yolojax.structures import Targets

SIZE, CLASSES, PAIRS = (60, 80), 5, 10


@pytest.fixture(scope="module")
def targets():
    """Three objects, one of them in a row of its own behind padding and a crowd; one; none."""
    boxes = np.zeros((3, 5, 4), np.float32)
    boxes[0, 0], boxes[0, 1], boxes[0, 4] = (4, 6, 30, 40), (40, 20, 78, 58), (10, 5, 18, 25)
    boxes[0, 3], boxes[1, 2] = (0, 0, 80, 60), (20, 20, 40, 50)
    valid = np.zeros((3, 5), bool)
    valid[0, [0, 1, 3, 4]], valid[1, 2] = True, True
    crowd = np.zeros((3, 5), bool)
    crowd[0, 3] = True
    classes = np.array([[1, 2, 7, 0, 4], [7, 7, 3, 7, 7], [7] * 5], np.int32)
    return Targets(*map(jnp.asarray, (boxes, classes, valid, crowd, np.zeros(3, np.int32))))


def giou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inter = np.prod(np.maximum(high - low, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inter / union - (hull - union) / hull


def test_the_cost_of_a_match(targets):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.2, 0.5, (3, 7, 4)).astype(np.float32)
    logits = rng.normal(0, 3, (3, 7, CLASSES)).astype(np.float32)
    size = jnp.broadcast_to(jnp.asarray([SIZE[1], SIZE[0]], jnp.float32), (3, 2))
    cost = np.asarray(jax.jit(query_cost)(jnp.asarray(boxes), jnp.asarray(logits), targets, size))
    for b, m in ((0, 0), (0, 4), (1, 2)):
        true = np.asarray(targets.boxes[b, m], np.float64) / (80, 60, 80, 60)
        centred = np.concatenate([(true[:2] + true[2:]) / 2, true[2:] - true[:2]])
        for q in range(7):
            p = 1 / (1 + np.exp(-float(logits[b, q, targets.classes[b, m]])))
            focal = 0.25 * (1 - p) ** 2 * -np.log(p + 1e-8) - 0.75 * p**2 * -np.log(1 - p + 1e-8)
            box = boxes[b, q].astype(np.float64)
            corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
            expected = 2 * focal + 5 * np.abs(box - centred).sum() - 2 * giou(corners, true)
            assert float(cost[b, m, q]) == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def make():
    compiled = jax.jit(lambda key, targets: denoising_queries(key, targets, SIZE, CLASSES, pairs=PAIRS))
    return lambda key, targets: jax.tree.map(np.asarray, compiled(key, targets))


def test_every_object_is_in_every_group_once_as_positive_and_once_as_negative(make, targets):
    made = make(jax.random.key(0), targets)
    assert made.boxes.shape == (3, 2 * PAIRS, 4)
    # Three objects in ten pairs make three groups; one object makes ten; no object makes none.
    for image, (rows, groups) in enumerate((([0, 1, 4], 3), ([2], 10), ([], 0))):
        for positive in (True, False):
            side = slice(PAIRS) if positive else slice(PAIRS, None)
            there = np.asarray(made.group[image, side]) >= 0
            found = sorted(
                zip(
                    np.asarray(made.group[image, side])[there],
                    np.asarray(made.objects[image, side])[there],
                    strict=True,
                )
            )
            assert found == [(group, row) for group in range(groups) for row in rows]
            np.testing.assert_array_equal(made.positive[image, side], there & positive)


def test_noise_is_bounded(make, targets):
    """Positive corners move by less than half a side, negative ones by half to a whole side, all within the image."""
    for seed in range(5):
        made = make(jax.random.key(seed), targets)
        for image, slot in np.argwhere(np.asarray(made.group) >= 0):
            true = np.asarray(targets.boxes[image, made.objects[image, slot]]) / (80, 60, 80, 60)
            box = np.asarray(made.boxes[image, slot])
            corners = np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])
            assert corners.min() >= -1e-6 and corners.max() <= 1 + 1e-6
            side = np.tile(true[2:] - true[:2], 2)
            moved = np.abs(corners - true) / side
            inside = (corners > 1e-5) & (corners < 1 - 1e-5)
            if made.positive[image, slot]:
                assert moved.max() <= 0.5 + 1e-5
            else:
                assert (moved[inside] >= 0.5 - 1e-5).all() and moved.max() <= 1 + 1e-5


def test_a_quarter_of_the_labels_is_replaced(make, targets):
    changed = total = 0
    for seed in range(40):
        made = make(jax.random.key(seed), targets)
        own = jnp.take_along_axis(targets.classes, made.objects, axis=1)
        there = made.group >= 0
        changed, total = changed + int(((own != made.classes) & there).sum()), total + int(there.sum())
    # A random class is the same one in one of five cases.
    assert changed / total == pytest.approx(0.25 * 0.8, abs=0.03)


def test_padding_and_order_do_not_matter(make, targets):
    """An image alone in another padding gives the same queries, whatever order its objects are in."""
    order = jnp.asarray([4, 3, 0, 2, 1])
    turned = Targets(
        targets.boxes[:, order],
        targets.classes[:, order],
        targets.valid[:, order],
        targets.crowd[:, order],
        targets.dropped,
    )
    wide = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)], axis=1) if x.ndim > 1 else x, turned)
    first, second = make(jax.random.key(3), targets), make(jax.random.key(3), wide)
    for name in ("boxes", "classes", "positive", "group"):
        there = np.asarray(first.group) >= 0
        np.testing.assert_array_equal(np.asarray(getattr(first, name))[there], np.asarray(getattr(second, name))[there])


def test_groups_do_not_see_each_other():
    seen = np.asarray(visible_queries(jnp.asarray([[0, 1, 0, -1]]), 2))[0]
    expected = [
        [1, 0, 1, 0, 1, 1],
        [0, 1, 0, 0, 1, 1],
        [1, 0, 1, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
    assert seen.astype(int).tolist() == expected
