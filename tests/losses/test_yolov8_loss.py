"""YOLOv8's composed loss against its definition in float64 NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.distance_scene import LEVELS, B, M, oracle, scene
from yolojax.assign import Predictions, atss_assign, one_to_one_assign, simota_assign, task_aligned_assign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels
from yolojax.losses import (
    box_iou_loss,
    complete_box_iou_loss,
    distribution_focal_loss,
    quality_focal_loss,
    yolov8_loss,
)
from yolojax.structures import Hyper, Targets, hyper_as_arrays

HYPER = hyper_as_arrays(Hyper(lambda_coord=7.5, lambda_cls=0.5, lambda_dfl=1.5))


def total(maps, targets, hyper):
    terms = yolov8_loss(*maps, LEVELS, targets, hyper)
    return terms.reduce()[0], terms


# One program: what it takes to compile the terms alone would come on top.
gradient_and_terms = jax.jit(jax.grad(total, has_aux=True))


def loss(maps, targets, hyper):
    return gradient_and_terms(maps, targets, hyper)[1]


def gradient(maps, targets):
    return gradient_and_terms(maps, targets, HYPER)[0]


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
