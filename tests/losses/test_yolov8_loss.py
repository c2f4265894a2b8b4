"""YOLOv8's composed loss against its definition in float64 NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import Predictions, atss_assign, one_to_one_assign, simota_assign, task_aligned_assign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels
from yolojax.losses import (
    box_iou_loss,
    complete_box_iou_loss,
    distribution_focal_loss,
    quality_focal_loss,
    yolov8_loss,
)
from yolojax.structures import Hyper, Level, Targets, hyper_as_arrays

LEVELS = (Level(8, 8, 8), Level(4, 4, 16))
B, M, C, BINS = 3, 5, 4, 8
HYPER = hyper_as_arrays(Hyper(lambda_coord=7.5, lambda_cls=0.5, lambda_dfl=1.5))
POINTS, STRIDES = (np.asarray(a, np.float64) for a in cell_centres(LEVELS))


def scene(seed=0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (B, M, 2))
    boxes = np.concatenate([low, low + rng.uniform(6, 30, (B, M, 2))], -1).astype(np.float32)
    valid = np.arange(M)[None] < np.array([[5], [3], [0]])
    crowd = np.zeros((B, M), bool)
    crowd[0, 2] = True
    boxes[0, 2] = [0, 0, 50, 50]
    targets = Targets(boxes, rng.integers(0, C, (B, M)).astype(np.int32), valid, crowd, np.zeros(B, np.int32))
    maps = tuple(
        tuple(jnp.asarray(rng.normal(0, 1.5, (B, v.h, v.w, d)), jnp.float32) for v in LEVELS) for d in (4 * BINS, C)
    )
    return maps, targets


def ciou_loss(p, g, alphas, key):
    """``alphas`` keeps the trade-off of the first call: a constant to the gradient (arXiv 1911.08287)."""
    w, h = min(p[2], g[2]) - max(p[0], g[0]), min(p[3], g[3]) - max(p[1], g[1])
    inter = max(w, 0) * max(h, 0)
    size = lambda b: (b[2] - b[0], b[3] - b[1])  # noqa: E731
    (pw, ph), (gw, gh) = size(p), size(g)
    iou = inter / (pw * ph + gw * gh - inter)
    hull = (max(p[2], g[2]) - min(p[0], g[0])) ** 2 + (max(p[3], g[3]) - min(p[1], g[1])) ** 2
    rho = ((p[0] + p[2] - g[0] - g[2]) ** 2 + (p[1] + p[3] - g[1] - g[3]) ** 2) / 4
    v = 4 / np.pi**2 * (np.arctan(gw / gh) - np.arctan(pw / ph)) ** 2
    return 1 - iou + rho / hull + alphas.setdefault(key, v / (1 - iou + v)) * v


def oracle(maps, targets, assigned, alphas=None):
    """Per-image sums, normalisers and ignored negatives of the definition, given who owns which point."""
    logits = [np.concatenate([np.asarray(m, np.float64).reshape(B, -1, m.shape[-1]) for m in kind], 1) for kind in maps]
    assigned, alphas = jax.tree.map(np.asarray, assigned), {} if alphas is None else alphas
    sums, normaliser, ignored = {k: np.zeros(B) for k in ("box", "cls", "dfl")}, np.zeros(B), np.zeros(B)
    for b in range(B):
        for i, (point, stride) in enumerate(zip(POINTS, STRIDES, strict=True)):
            sides = logits[0][b, i].reshape(4, BINS)
            p = np.exp(sides) / np.exp(sides).sum(-1, keepdims=True)
            far = (p * np.arange(BINS)).sum(-1) * stride
            box = np.concatenate([point - far[:2], point + far[2:]])
            wanted = np.zeros(C)
            if assigned.positive[b, i]:
                m, weight = int(assigned.objects[b, i]), float(assigned.scores[b, i])
                wanted[targets.classes[b, m]] = weight
                normaliser[b] += weight
                truth = targets.boxes[b, m].astype(np.float64)
                sums["box"][b] += 7.5 * weight * ciou_loss(box, truth, alphas, (b, i))
                y = np.concatenate([point - truth[:2], truth[2:] - point]) / stride
                for side in range(4):
                    t = min(max(y[side], 0), BINS - 1)
                    low = min(int(t), BINS - 2)
                    dfl = -((low + 1 - t) * np.log(p[side, low]) + (t - low) * np.log(p[side, low + 1]))
                    sums["dfl"][b] += 1.5 * weight * dfl / 4
            elif any(
                share(box, targets.boxes[b, m]) >= 0.5 for m in np.flatnonzero(targets.crowd[b] & targets.valid[b])
            ):
                ignored[b] += 1
                continue
            q = 1 / (1 + np.exp(-logits[1][b, i]))
            sums["cls"][b] += 0.5 * -(wanted * np.log(q) + (1 - wanted) * np.log(1 - q)).sum()
    return sums, normaliser, ignored


def share(box, crowd):
    w, h = min(box[2], crowd[2]) - max(box[0], crowd[0]), min(box[3], crowd[3]) - max(box[1], crowd[1])
    return max(w, 0) * max(h, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


loss = jax.jit(lambda maps, targets, hyper: yolov8_loss(*maps, LEVELS, targets, hyper))
gradient = jax.jit(jax.grad(lambda maps, targets: yolov8_loss(*maps, LEVELS, targets, HYPER).reduce()[0]))


def assignment(maps, targets, rule=task_aligned_assign):
    points, strides = cell_centres(LEVELS)
    boxes = decode_distributions(flatten_levels(maps[0]), points, strides)
    return rule(targets, LEVELS, Predictions(boxes, flatten_levels(maps[1])))


@pytest.mark.parametrize("seed", range(2))
def test_equals_its_definition(seed):
    maps, targets = scene(seed)
    terms = loss(maps, targets, HYPER)
    sums, normaliser, ignored = oracle(maps, targets, jax.jit(assignment)(maps, targets))
    for part, expected in sums.items():
        np.testing.assert_allclose(terms.sums[part], expected, rtol=1e-5, atol=1e-6, err_msg=part)
        np.testing.assert_allclose(terms.normalisers[part], normaliser, rtol=1e-6)
    np.testing.assert_array_equal(terms.counts["ignored"], ignored)
    assert ignored[0] > 0
    total, parts = terms.reduce()
    np.testing.assert_allclose(total, sum(s.sum() for s in sums.values()) / max(normaliser.sum(), 1), rtol=1e-5)
    assert set(parts) == {"box", "cls", "dfl"}


@pytest.mark.parametrize("rule", [partial(atss_assign, anchor_scale=2.0), simota_assign, one_to_one_assign])
def test_equals_its_definition_with_other_assigners(rule):
    maps, targets = scene(1)
    chosen = jax.jit(lambda maps, t: (yolov8_loss(*maps, LEVELS, t, HYPER, assign=rule), assignment(maps, t, rule)))
    terms, assigned = chosen(maps, targets)
    sums, normaliser, _ = oracle(maps, targets, assigned)
    for part, expected in sums.items():
        np.testing.assert_allclose(terms.sums[part], expected, rtol=1e-5, atol=1e-6, err_msg=part)
        np.testing.assert_allclose(terms.normalisers[part], normaliser, rtol=1e-6)
    assert np.asarray(assigned.positive).any()


def test_an_assigner_need_not_list_its_positives():
    maps, targets = scene()

    def plain(*given):
        return task_aligned_assign(*given)._replace(listed=None)

    terms = jax.jit(lambda maps, t: yolov8_loss(*maps, LEVELS, t, HYPER, assign=plain))(maps, targets)
    for got, expected in zip(jax.tree.leaves(terms), jax.tree.leaves(loss(maps, targets, HYPER)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_counts():
    maps, targets = scene()
    terms, assigned = loss(maps, targets, HYPER), jax.jit(assignment)(maps, targets)
    np.testing.assert_array_equal(terms.counts["positives"], np.asarray(assigned.positive).sum(-1))
    for b in range(B):
        real = set(np.flatnonzero(targets.valid[b] & ~targets.crowd[b]))
        owners = set(np.asarray(assigned.objects[b])[np.asarray(assigned.positive[b])].tolist())
        assert terms.counts["unassigned"][b] == len(real - owners)


def test_an_image_without_objects_learns_background_only():
    maps, targets = scene()
    terms = loss(maps, targets._replace(valid=np.zeros((B, M), bool)), HYPER)
    expected = 0.5 * np.log1p(np.exp(np.asarray(flatten_levels(maps[1]), np.float64))).sum((1, 2))
    np.testing.assert_allclose(terms.sums["cls"], expected, rtol=1e-5)
    assert not terms.sums["box"].any() and not terms.sums["dfl"].any() and not terms.normalisers["cls"].any()


def test_order_and_padding_change_nothing_and_gradients_stay_finite():
    maps, targets = scene()
    order = np.array([3, 1, 4, 0, 2])
    mixed = Targets(*(a[:, order] for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = -7
    for got, expected in zip(
        jax.tree.leaves(loss(maps, mixed, HYPER)), jax.tree.leaves(loss(maps, targets, HYPER)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(
        jax.tree.leaves(gradient(maps, mixed)), jax.tree.leaves(gradient(maps, targets)), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [30, 30, 10, 10], [31.9, 31.9, 32.1, 32.1], [-1e9, -1e9, 1e9, 1e9]])
def test_degenerate_objects_stay_finite(box):
    maps, targets = scene()
    boxes = targets.boxes.copy()
    boxes[:, 0] = box
    degenerate = targets._replace(boxes=boxes)
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves((loss(maps, degenerate, HYPER), gradient(maps, degenerate)))
    )


def test_gradient_equals_finite_differences():
    maps, targets = scene(1)
    rng = np.random.default_rng(5)
    assigned = jax.jit(assignment)(maps, targets)
    slope = gradient(maps, targets)
    direction = jax.tree.map(lambda m: jnp.asarray(rng.normal(size=m.shape), jnp.float32), maps)
    analytic = sum(
        float((g * d).sum()) for g, d in zip(jax.tree.leaves(slope), jax.tree.leaves(direction), strict=True)
    )

    alphas = {}
    oracle(maps, targets, assigned, alphas)

    def value(step):
        # The oracle, in float64, with the assignment and CIoU's alpha frozen as the gradient sees them.
        moved = jax.tree.map(lambda m, d: np.asarray(m, np.float64) + step * np.asarray(d, np.float64), maps, direction)
        sums, normaliser, _ = oracle(moved, targets, assigned, alphas)
        return {k: s.sum() / max(normaliser.sum(), 1) for k, s in sums.items()}

    high, low = value(1e-5), value(-1e-5)
    numeric = {k: (high[k] - low[k]) / 2e-5 for k in high}
    np.testing.assert_allclose(analytic, sum(numeric.values()), rtol=0, atol=1e-5 * sum(map(abs, numeric.values())))


def test_box_loss_is_a_choice():
    maps, targets = scene()
    plain = jax.jit(lambda maps, t: yolov8_loss(*maps, LEVELS, t, HYPER, box_loss=box_iou_loss))(maps, targets)
    complete = loss(maps, targets, HYPER)
    assert (plain.sums["box"] < complete.sums["box"])[:2].all()
    np.testing.assert_array_equal(plain.sums["cls"], complete.sums["cls"])


def test_distribution_focal_loss_by_hand():
    logits = np.log(np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    got = distribution_focal_loss(jnp.asarray(np.stack([logits] * 5)), jnp.array([0.0, 1.25, 3.0, 7.0, -1.0]))
    expected = [-np.log(0.1), -(0.75 * np.log(0.2) + 0.25 * np.log(0.3)), -np.log(0.4), -np.log(0.4), -np.log(0.1)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_identical_boxes_cost_nothing():
    boxes = jnp.array([[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 6.0, 6.0]])
    np.testing.assert_allclose(complete_box_iou_loss(boxes, boxes), 0.0, atol=1e-6)


def test_class_loss_is_a_choice():
    """Quality focal loss takes the soft targets ``t_hat`` as they are; on background it is ``p^2 BCE(x, 0)``."""
    maps, targets = scene()
    nothing = targets._replace(valid=np.zeros((B, M), bool))
    loss = jax.jit(lambda maps, t: yolov8_loss(*maps, LEVELS, t, HYPER, class_loss=quality_focal_loss))
    got = loss(maps, nothing)
    x = np.asarray(flatten_levels(maps[1]), np.float64)
    expected = 0.5 * (np.log1p(np.exp(x)) / (1 + np.exp(-x)) ** 2).sum((1, 2))
    np.testing.assert_allclose(got.sums["cls"], expected, rtol=1e-5)
