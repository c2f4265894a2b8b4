"""YOLOX's composed loss against its definition in float64 NumPy, given who owns which point."""

import jax
import jax.numpy as jnp
import numpy as np

from yolojax.assign import Predictions, simota_assign, task_aligned_assign
from yolojax.coding import cell_centres, decode_yolox, flatten_levels
from yolojax.losses import binary_cross_entropy, box_iou_loss, with_class_weights, yolox_loss
from yolojax.structures import Hyper, Level, Targets, hyper_as_arrays

LEVELS = (Level(8, 8, 8), Level(4, 4, 16))
B, M, C = 3, 5, 4
HYPER = hyper_as_arrays(Hyper(lambda_coord=5.0, lambda_obj=1.5, lambda_noobj=0.75, lambda_cls=2.0, lambda_l1=0.5))
POINTS, STRIDES = cell_centres(LEVELS)
CELLS = np.asarray(POINTS, np.float64) / np.asarray(STRIDES, np.float64)[:, None] - 0.5
PARTS = ("box", "obj", "noobj", "cls", "l1")


def scene(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 30, (B, M, 2))], -1).astype(np.float32)
    valid = np.arange(M)[None] < np.array([[5], [3], [0]])
    crowd = np.zeros((B, M), bool)
    crowd[0, 2] = True
    boxes[0, 2] = [0, 0, 50, 50]
    targets = Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))
    maps = tuple(
        tuple(jnp.asarray(rng.normal(0, 0.8, (B, v.h, v.w, d)), jnp.float32) for v in LEVELS) for d in (4, 1, C)
    )
    return maps, targets


def rows(maps):
    return np.concatenate([np.asarray(m, np.float64).reshape(B, -1, m.shape[-1]) for m in maps], 1)


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(w, 0) * max(h, 0)


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def bce(x, y):
    p = 1 / (1 + np.exp(-x))
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def oracle(maps, targets, assigned, power=2):
    """Per-image sums, numbers of positives and of ignored negatives, given who owns which point."""
    raw, objectness, logits = (rows(m) for m in maps)
    sums, positives, ignored = {k: np.zeros(B) for k in PARTS}, np.zeros(B), np.zeros(B)
    for b in range(B):
        for i, stride in enumerate(np.asarray(STRIDES, np.float64)):
            centre, size = (raw[b, i, :2] + CELLS[i]) * stride, np.exp(raw[b, i, 2:]) * stride
            box = np.concatenate([centre - size / 2, centre + size / 2])
            if assigned.positive[b, i]:
                m = int(assigned.objects[b, i])
                truth = targets.boxes[b, m].astype(np.float64)
                inter = overlap(box, truth)
                iou = inter / (area(box) + area(truth) - inter)
                positives[b] += 1
                sums["box"][b] += 5.0 * (1 - iou**power)
                sums["obj"][b] += 1.5 * bce(objectness[b, i, 0], 1.0)
                wanted = np.zeros(C)
                wanted[targets.classes[b, m]] = float(assigned.scores[b, i])
                sums["cls"][b] += 2.0 * bce(logits[b, i], wanted).sum()
                side = truth[2:] - truth[:2]
                code = np.concatenate([(truth[:2] + truth[2:]) / 2 / stride - CELLS[i], np.log(side / stride)])
                sums["l1"][b] += 0.5 * np.abs(raw[b, i] - code).sum()
            elif any(
                overlap(box, targets.boxes[b, m]) / area(box) >= 0.5
                for m in np.flatnonzero(targets.crowd[b] & targets.valid[b])
            ):
                ignored[b] += 1
            else:
                sums["noobj"][b] += 0.75 * bce(objectness[b, i, 0], 0.0)
    return sums, positives, ignored


loss = jax.jit(lambda maps, targets: yolox_loss(*maps, LEVELS, targets, HYPER))
gradient = jax.jit(jax.grad(lambda maps, targets: yolox_loss(*maps, LEVELS, targets, HYPER).reduce()[0]))


def assignment(maps, targets, rule=simota_assign):
    raw, objectness, logits = (flatten_levels(m) for m in maps)
    boxes = decode_yolox(raw, jnp.asarray(CELLS, jnp.float32)[None], STRIDES[None])
    return rule(targets, LEVELS, Predictions(boxes, logits, objectness[..., 0]))


def test_equals_its_definition():
    for seed in range(2):
        maps, targets = scene(seed)
        terms, assigned = loss(maps, targets), jax.tree.map(np.asarray, jax.jit(assignment)(maps, targets))
        sums, positives, ignored = oracle(maps, targets, assigned)
        assert set(terms.sums) == set(PARTS) and positives[0] > 3 and ignored[0] > 0
        for part, expected in sums.items():
            np.testing.assert_allclose(terms.sums[part], expected, rtol=2e-5, atol=1e-5, err_msg=part)
            np.testing.assert_array_equal(terms.normalisers[part], positives)
        np.testing.assert_array_equal(terms.counts["positives"], positives)
        np.testing.assert_array_equal(terms.counts["ignored"], ignored)
        for b in range(B):
            owners = set(assigned.objects[b][assigned.positive[b]].tolist())
            real = set(np.flatnonzero(targets.valid[b] & ~targets.crowd[b]).tolist())
            assert terms.counts["unassigned"][b] == len(real - owners)
        expected = sum(s.sum() for s in sums.values()) / max(positives.sum(), 1)
        np.testing.assert_allclose(terms.reduce()[0], expected, rtol=2e-5)


def test_assigner_box_loss_and_class_loss_are_choices():
    maps, targets = scene(0)
    options = {
        "assign": task_aligned_assign,
        "box_loss": box_iou_loss,
        "class_loss": with_class_weights(binary_cross_entropy, jnp.full(C, 3.0)),
    }

    @jax.jit
    def chosen(maps, targets):
        return yolox_loss(*maps, LEVELS, targets, HYPER, **options), assignment(maps, targets, task_aligned_assign)

    terms, assigned = jax.tree.map(np.asarray, chosen(maps, targets))
    sums, positives, _ = oracle(maps, targets, assigned, power=1)
    assert positives.any()
    for part, expected in sums.items():
        factor = 3 if part == "cls" else 1
        np.testing.assert_allclose(terms.sums[part], factor * expected, rtol=2e-5, atol=1e-5, err_msg=part)


def test_gradient_equals_finite_differences_with_the_assignment_frozen():
    maps, targets = scene(1)
    rng = np.random.default_rng(5)
    assigned = jax.tree.map(np.asarray, jax.jit(assignment)(maps, targets))
    direction = jax.tree.map(lambda m: rng.normal(size=m.shape), maps)
    slope = gradient(maps, targets)
    analytic = sum(
        float((g * d).sum()) for g, d in zip(jax.tree.leaves(slope), jax.tree.leaves(direction), strict=True)
    )

    def value(step):
        moved = jax.tree.map(lambda m, d: np.asarray(m, np.float64) + step * d, maps, direction)
        sums, positives, _ = oracle(moved, targets, assigned)
        return sum(s.sum() for s in sums.values()) / max(positives.sum(), 1)

    numeric = (value(1e-6) - value(-1e-6)) / 2e-6
    np.testing.assert_allclose(analytic, numeric, rtol=1e-4)


def test_an_image_without_objects_learns_background_only():
    maps, targets = scene(0)
    terms = loss(maps, targets._replace(valid=np.zeros((B, M), bool)))
    np.testing.assert_allclose(terms.sums["noobj"], 0.75 * bce(rows(maps[1]), 0.0).sum((1, 2)), rtol=1e-5)
    assert not any(terms.sums[part].any() for part in PARTS if part != "noobj")
