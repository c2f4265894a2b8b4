"""YOLOv1's loss and the rule of responsibility against equation 3 of the paper in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import Predictions, responsible_assign
from yolojax.coding import cell_centres, decode_yolov1
from yolojax.losses import yolov1_loss
from yolojax.structures import Hyper, Level, Targets, hyper_as_arrays

LEVEL = Level(4, 4, 16)
SIZE = 64
B, M, C, N = 4, 5, 3, 2
HYPER = hyper_as_arrays(Hyper(lambda_coord=5.0, lambda_obj=1.5, lambda_noobj=0.5, lambda_cls=2.0))


def scene(seed=0):
    """Random boxes; two objects in one cell; a crowd; an object on the border; an image without objects."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 24, (B, M, 2))], -1).astype(np.float32)
    boxes[1, 0], boxes[1, 1] = [17, 17, 29, 31], [18, 18, 27, 27]
    boxes[1, 2] = [60, 60, 68, 68]
    boxes[0, 2] = [0, 0, 50, 50]
    valid = np.arange(M)[None] < np.array([[5], [3], [0], [4]])
    crowd = np.zeros((B, M), bool)
    crowd[0, 2] = True
    targets = Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))
    raw = rng.uniform(0.05, 0.95, (B, 4, 4, N, 4))
    raw[3, ..., 2:] = rng.uniform(-0.03, 0.03, (4, 4, N, 2))  # boxes that meet no object
    maps = rng.normal(0.3, 0.4, (B, 4, 4, C)), rng.normal(0.3, 0.4, (B, 4, 4, N)), raw
    return tuple(jnp.asarray(m, jnp.float32) for m in maps), targets


def iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0) * max(h, 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def middle(box):
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]])


def oracle(maps, targets, sqrt, rescore):
    """Equation 3, cell by cell; of several objects in a cell the smallest is learned."""
    classes, confidences, raw = (np.asarray(m, np.float64) for m in maps)
    sums = {part: np.zeros(B) for part in ("box", "obj", "noobj", "cls")}
    counts = {name: np.zeros(B) for name in ("positives", "unassigned", "ignored")}
    for b in range(B):
        objects = [m for m in range(M) if targets.valid[b, m] and not targets.crowd[b, m]]
        boxes = targets.boxes[b].astype(np.float64)
        objects.sort(key=lambda m: (boxes[m][2] - boxes[m][0]) * (boxes[m][3] - boxes[m][1]))
        taken = {}
        for m in objects:
            column, row = (min(int(v // 16), 3) for v in middle(boxes[m])[:2])
            taken.setdefault((row, column), m)
        counts["unassigned"][b] = len(objects) - len(taken)
        counts["positives"][b] = len(taken)
        for row in range(4):
            for column in range(4):
                found = []
                for x, y, w, h in raw[b, row, column]:
                    w, h = (w * w, h * h) if sqrt else (w, h)
                    x, y = (x + column) / 4, (y + row) / 4
                    found.append(SIZE * np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]))
                m, best = taken.get((row, column)), None
                if m is not None:
                    overlaps = [iou(box, boxes[m]) for box in found]
                    far = [np.sum((middle(box) - middle(boxes[m])) ** 2) for box in found]
                    best = int(np.argmax(overlaps)) if max(overlaps) > 0 else int(np.argmin(far))
                    aim = overlaps[best] if rescore else 1.0
                    sums["obj"][b] += 1.5 * (confidences[b, row, column, best] - aim) ** 2
                    cx, cy, w, h = middle(boxes[m])
                    shares = np.array([w, h]) / SIZE
                    wanted = [cx / 16 - column, cy / 16 - row, *(np.sqrt(shares) if sqrt else shares)]
                    sums["box"][b] += 5.0 * np.sum((raw[b, row, column, best] - wanted) ** 2)
                    label = np.arange(C) == targets.classes[b, m]
                    sums["cls"][b] += 2.0 * np.sum((classes[b, row, column] - label) ** 2)
                for n, box in enumerate(found):
                    crowds = [boxes[k] for k in range(M) if targets.valid[b, k] and targets.crowd[b, k]]
                    inside = any(
                        max(min(box[2], c[2]) - max(box[0], c[0]), 0) * max(min(box[3], c[3]) - max(box[1], c[1]), 0)
                        >= 0.5 * (box[2] - box[0]) * (box[3] - box[1])
                        for c in crowds
                    )
                    if n != best and inside:
                        counts["ignored"][b] += 1
                    elif n != best:
                        sums["noobj"][b] += 0.5 * confidences[b, row, column, n] ** 2
    return sums, counts


@pytest.mark.parametrize(("sqrt", "rescore"), [(True, True), (False, False)])
def test_equals_the_papers_equation(sqrt, rescore):
    @jax.jit
    def loss(maps, targets):
        return yolov1_loss(*maps, LEVEL, targets, HYPER, sqrt=sqrt, rescore=rescore)

    for seed in range(3):
        maps, targets = scene(seed)
        if not sqrt:
            maps = (*maps[:2], jnp.abs(maps[2]))
        terms = loss(maps, targets)
        sums, counts = oracle(maps, targets, sqrt, rescore)
        for part, expected in sums.items():
            np.testing.assert_allclose(terms.sums[part], expected, rtol=2e-5, atol=1e-5, err_msg=part)
            np.testing.assert_array_equal(terms.normalisers[part], np.ones(B))
        for name, expected in counts.items():
            np.testing.assert_array_equal(terms.counts[name], expected, err_msg=name)
    assert counts["unassigned"][1] == 1 and counts["ignored"][0] > 0


def test_gradients_are_the_derivatives_of_the_equation_and_finite():
    """The IoU that a confidence learns carries no gradient, so the derivative is that of plain squares."""
    maps, targets = scene(0)

    @jax.jit
    @jax.grad
    def gradient(maps):
        terms = yolov1_loss(*maps, LEVEL, targets, HYPER)
        return sum(jnp.sum(terms.sums[part]) for part in ("box", "cls", "noobj", "obj"))

    classes, confidences, boxes = gradient(maps)
    assert all(bool(jnp.isfinite(g).all()) for g in (classes, confidences, boxes))
    rng = np.random.default_rng(1)
    for i in range(3):
        step = [np.zeros(m.shape) for m in maps]
        step[i] = rng.normal(size=maps[i].shape)
        shifted = [
            [np.asarray(m, np.float64) + sign * 1e-6 * d for m, d in zip(maps, step, strict=True)] for sign in (1, -1)
        ]
        totals = [
            sum(v.sum() for k, v in oracle(m, targets, True, True)[0].items() if i != 2 or k == "box") for m in shifted
        ]
        expected = (totals[0] - totals[1]) / 2e-6
        found = float(np.sum(np.asarray((classes, confidences, boxes)[i], np.float64) * step[i]))
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_prediction_that_is_not_finite_is_never_responsible_where_another_is():
    maps, targets = scene(3)
    points, strides = cell_centres((LEVEL,), N)
    raw = jnp.asarray(maps[2].at[:, :, :, 0].set(jnp.nan)).reshape(B, -1, 4)
    boxes = decode_yolov1(raw, (points / strides[:, None] - 0.5)[None], strides[None], (SIZE, SIZE))
    given = Predictions(boxes, jnp.zeros((B, 32, C)), jnp.zeros((B, 32)))
    assigned = jax.jit(lambda t, p: responsible_assign(t, (LEVEL,), p))(targets, given)
    assert assigned.positive.any() and not assigned.positive[:, ::2].any()
    assert bool(jnp.isfinite(assigned.scores).all())
