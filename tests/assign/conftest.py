"""Scenes that every assigner must get right, and helpers that compare assignments by content."""

from types import SimpleNamespace

import numpy as np
import pytest

from yolojax.structures import Targets

CASES = ("random", "one cell", "smaller than a stride", "more than fit", "ties", "none")


def scene(rng, case, batch, m, classes, input_size):
    """Targets on a ``input_size = (h, w)``: one padded row and one crowd box in the first image, an empty last
    image."""
    size = np.array([input_size[1], input_size[0]], float)
    centre = rng.uniform(0, size, (batch, m, 2))
    side = rng.uniform(4, 0.6 * size.min(), (batch, m, 2))
    if case == "one cell":
        centre = 0.4 * size + rng.uniform(0, 4, (batch, m, 2))
    if case == "smaller than a stride":
        side = rng.uniform(0.5, 5, (batch, m, 2))
    if case == "more than fit":
        centre, side = 0.5 * size + rng.uniform(-3, 3, (batch, m, 2)), rng.uniform(6, 9, (batch, m, 2))
    if case == "ties":  # whole numbers: centres between cells, equal distances, the same box under two classes
        centre = 8.0 * rng.integers(1, 5, (batch, m, 2))
        side = rng.choice([8.0, 16.0], (batch, m, 2))
        centre[:, 1], side[:, 1] = centre[:, 0], side[:, 0]
    boxes = np.concatenate([centre - side / 2, centre + side / 2], -1).astype(np.float32)
    valid = np.ones((batch, m), bool)
    valid[0, -1], valid[-1] = False, False
    crowd = np.zeros((batch, m), bool)
    crowd[0, 2] = True
    labels = rng.integers(0, classes, (batch, m)).astype(np.int32)
    return Targets(boxes, labels, valid & (case != "none"), crowd, np.zeros(batch, np.int32))


def predictions(rng, points, strides, batch, classes):
    """Boxes around points, a few strides wide, and logits."""
    reach = strides[None, :, None] * rng.uniform(0.3, 3, (2, batch, len(points), 2))
    boxes = np.concatenate([points[None] - reach[0], points[None] + reach[1]], -1)
    return boxes.astype(np.float32), rng.normal(0, 2, (batch, len(points), classes)).astype(np.float32)


def content(targets, b, m):
    """What orders objects of one image."""
    box = targets.boxes[b, m].astype(np.float64)
    return ((box[2] - box[0]) * (box[3] - box[1]), *box, int(targets.classes[b, m]))


def real(targets, b):
    """Rows that may own predictions."""
    return [int(m) for m in np.flatnonzero(targets.valid[b] & ~targets.crowd[b])]


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0.0) * max(h, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def shuffled(rng, targets):
    """The same objects in another order, with garbage in the padding."""
    order = rng.permutation(targets.valid.shape[1])
    mixed = Targets(*(a[:, order].copy() for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = 10**6
    mixed.crowd[~mixed.valid] = True
    return mixed, order


def owned_content(objects, positive, targets):
    """Box and class of each prediction's object: rows of objects equal in everything are interchangeable."""
    row = np.arange(len(targets.boxes))[:, None]
    held = np.concatenate([targets.boxes[row, objects], targets.classes[row, objects][..., None]], -1)
    return np.where(np.asarray(positive)[..., None], held, 0)


def same(got, owner, scores, targets):
    """Fails unless ``got`` names the objects ``owner [B, N]`` (-1 for none) with these scores."""
    np.testing.assert_array_equal(got.positive, owner >= 0)
    np.testing.assert_array_equal(
        owned_content(got.objects, got.positive, targets), owned_content(owner, owner >= 0, targets)
    )
    np.testing.assert_allclose(got.scores, scores, rtol=2e-5, atol=1e-6)


def unmoved_by_order(assign, targets, seed=0):
    """Fails unless order of objects and content of padding are irrelevant to ``assign(targets)``."""
    mixed, _ = shuffled(np.random.default_rng(seed), targets)
    first, second = assign(targets), assign(mixed)
    np.testing.assert_array_equal(first.positive, second.positive)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(
        owned_content(first.objects, first.positive, targets), owned_content(second.objects, second.positive, mixed)
    )


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture(scope="session")
def lab():
    """The helpers of this file, as attributes."""
    return SimpleNamespace(
        scene=scene,
        predictions=predictions,
        content=content,
        real=real,
        iou=iou,
        shuffled=shuffled,
        same=same,
        unmoved_by_order=unmoved_by_order,
    )
