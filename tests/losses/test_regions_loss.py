"""The losses of Faster R-CNN and RetinaNet against transcriptions of their equations in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import Sample
from yolojax.losses import faster_rcnn_loss, focal_loss, generalized_box_iou_loss, retinanet_loss, smooth_l1_loss
from yolojax.structures import Hyper, Targets

CLASSES = 3


def smooth(d, beta):
    d = np.abs(d)
    return np.where(d < beta, d * d / (2 * beta), d - beta / 2)


def encode(box, reference, weights=(1, 1, 1, 1)):
    (x, y, w, h), (rx, ry, rw, rh) = (
        ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]) for b in (box, reference)
    )
    return np.multiply(weights, [(x - rx) / rw, (y - ry) / rh, np.log(w / rw), np.log(h / rh)])


def some_boxes(rng, *shape):
    low = rng.uniform(0, 40, (*shape, 2))
    return np.concatenate([low, low + rng.uniform(4, 30, (*shape, 2))], -1).astype(np.float32)


def sample(rng, rows):
    valid = np.arange(rows)[None] < np.array([[rows], [rows - 3]])
    positive = (rng.random((2, rows)) < 0.4) & valid
    classes = np.where(positive, rng.integers(0, CLASSES, (2, rows)), 0).astype(np.int32)
    index = np.zeros((2, rows), np.int32)
    return Sample(*map(jnp.asarray, (index, positive, valid, some_boxes(rng, 2, rows), classes)))


def test_smooth_l1_is_its_definition():
    x = jnp.linspace(-2, 2, 41)
    np.testing.assert_allclose(smooth_l1_loss(x, jnp.zeros(41), beta=0.5), smooth(x, 0.5), rtol=1e-6)
    slope = jax.vmap(jax.grad(lambda x: smooth_l1_loss(x, jnp.float32(0), beta=0.5)))(x)
    np.testing.assert_allclose(slope, np.clip(x / 0.5, -1, 1), rtol=1e-6)


def test_faster_rcnn_is_its_equations():
    rng = np.random.default_rng(0)
    first, second = sample(rng, 10), sample(rng, 8)
    logits, deltas = (rng.normal(0, 1, s).astype(np.float32) for s in ((2, 10), (2, 10, 4)))
    cls, boxes = (rng.normal(0, 1, s).astype(np.float32) for s in ((2, 8, CLASSES + 1), (2, 8, CLASSES + 1, 4)))
    anchors, proposals = some_boxes(rng, 2, 10), some_boxes(rng, 2, 8)
    hyper = Hyper(lambda_obj=2.0, lambda_coord=3.0, lambda_cls=0.5)
    terms = jax.jit(faster_rcnn_loss)(logits, deltas, anchors, first, cls, boxes, proposals, second, hyper)

    expected = {part: np.zeros(2) for part in ("objectness", "anchor", "cls", "box")}
    for b, i in np.argwhere(np.asarray(first.valid)):
        x, y = float(logits[b, i]), float(first.positive[b, i])
        expected["objectness"][b] += 2 * (np.log1p(np.exp(-x)) * y + np.log1p(np.exp(x)) * (1 - y))
        if y:
            wanted = encode(np.asarray(first.boxes[b, i], np.float64), anchors[b, i].astype(np.float64))
            expected["anchor"][b] += 3 * smooth(deltas[b, i] - wanted, 1 / 9).sum()
    for b, i in np.argwhere(np.asarray(second.valid)):
        label = int(second.classes[b, i]) + 1 if second.positive[b, i] else 0
        score = np.exp(cls[b, i].astype(np.float64))
        expected["cls"][b] -= 0.5 * np.log(score[label] / score.sum())
        if label:
            wanted = encode(
                np.asarray(second.boxes[b, i], np.float64), proposals[b, i].astype(np.float64), (10, 10, 5, 5)
            )
            expected["box"][b] += 3 * smooth(boxes[b, i, label] - wanted, 1 / 9).sum()
    for part, value in expected.items():
        np.testing.assert_allclose(terms.sums[part], value, rtol=2e-5, err_msg=part)
    assert terms.normalisers["objectness"].tolist() == [10, 7] and terms.normalisers["box"].tolist() == [8, 5]
    assert terms.counts["anchors"].tolist() == np.asarray(first.positive).sum(1).tolist()


@pytest.mark.parametrize("how", ["giou", "absolute"])
def test_retinanet_is_its_equations(how):
    rng = np.random.default_rng(1)
    anchors = some_boxes(rng, 30)
    objects = np.stack([anchors[[3, 11]] + 1, anchors[[20, 20]] - 2]).astype(np.float32)
    valid = np.array([[True, True], [False, False]])
    targets = Targets(
        *map(jnp.asarray, (objects, np.array([[0, 2], [1, 1]], np.int32), valid, ~valid, np.zeros(2, np.int32)))
    )
    targets = targets._replace(crowd=jnp.zeros((2, 2), bool))
    logits, deltas = (rng.normal(0, 1, (2, 30, n)).astype(np.float32) for n in (CLASSES, 4))
    box_loss = None if how == "absolute" else generalized_box_iou_loss
    terms = jax.jit(lambda a, b, c, t: retinanet_loss(a, b, c, t, Hyper(lambda_coord=1.0), box_loss=box_loss))(
        logits, deltas, anchors, targets
    )

    def overlap(a, b):
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inter, area = max(w, 0) * max(h, 0), lambda c: (c[2] - c[0]) * (c[3] - c[1])
        union = area(a) + area(b) - inter
        hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        return inter / union, inter / union - (hull - union) / hull

    wide = anchors.astype(np.float64)
    table = np.array([[overlap(m, a)[0] for a in wide] for m in objects[0].astype(np.float64)])
    positive = (table.max(0) >= 0.5) | (table == table.max(1, keepdims=True)).any(0)
    cls = box = 0.0
    for i in range(30):
        if not positive[i] and table[:, i].max() >= 0.4:
            continue
        m, wanted = int(table[:, i].argmax()), np.zeros(CLASSES)
        if positive[i]:
            wanted[int(targets.classes[0, m])] = 1
            ref, d = wide[i], deltas[0, i].astype(np.float64)
            if how == "absolute":
                box += np.abs(d - encode(objects[0, m].astype(np.float64), ref)).sum()
            else:
                w, h = ref[2] - ref[0], ref[3] - ref[1]
                x, y = ref[0] + w / 2 + d[0] * w, ref[1] + h / 2 + d[1] * h
                w, h = w * np.exp(d[2]), h * np.exp(d[3])
                got = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
                box += 1 - overlap(got, objects[0, m].astype(np.float64))[1]
        p = 1 / (1 + np.exp(-logits[0, i].astype(np.float64)))
        cls -= np.sum(wanted * 0.25 * (1 - p) ** 2 * np.log(p) + (1 - wanted) * 0.75 * p**2 * np.log(1 - p))
    assert 1 < positive.sum() < 20 and terms.counts["positives"].tolist() == [positive.sum(), 0]
    np.testing.assert_allclose(terms.sums["cls"][0], cls / positive.sum(), rtol=2e-5)
    np.testing.assert_allclose(terms.sums["box"][0], box / positive.sum(), rtol=2e-5)
    np.testing.assert_allclose(
        terms.sums["cls"][1], np.sum(focal_loss(jnp.asarray(logits[1]), jnp.zeros((30, CLASSES)))), rtol=1e-5
    )
    assert terms.sums["box"][1] == 0 and terms.normalisers["cls"].tolist() == [1, 1]
