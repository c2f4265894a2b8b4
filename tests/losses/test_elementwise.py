"""Element-wise losses: against formulas in float64 NumPy, and values and gradients that PyTorch and torchvision gave.

`tests/goldens/make_losses_golden.py` wrote the file.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolojax.coding import dfl_expectation
from yolojax.losses import (
    binary_cross_entropy,
    box_iou_loss,
    complete_box_iou_loss,
    distance_box_iou_loss,
    distribution_focal_loss,
    focal_loss,
    generalized_box_iou_loss,
    quality_focal_loss,
    scylla_box_iou_loss,
    varifocal_loss,
    with_class_weights,
    with_label_smoothing,
)

GOLDEN = np.load(Path(__file__).parent.parent / "goldens" / "losses_torch.npz")
BOX_LOSSES = (
    box_iou_loss,
    generalized_box_iou_loss,
    distance_box_iou_loss,
    complete_box_iou_loss,
    scylla_box_iou_loss,
)
CLASS_LOSSES = (binary_cross_entropy, focal_loss, quality_focal_loss, varifocal_loss)


@functools.cache
def compiled(loss):
    def total(first, *rest):
        values = loss(first, *rest)
        return values.sum(), values

    return jax.jit(jax.grad(total, has_aux=True))


def value_and_gradient(loss, *arrays):
    gradient, values = compiled(loss)(*(np.asarray(a, np.float32) for a in arrays))
    return np.asarray(values), np.asarray(gradient)


@pytest.mark.parametrize(
    ("loss", "name", "inputs"),
    [
        (binary_cross_entropy, "bce_hard", ("logits", "hard")),
        (binary_cross_entropy, "bce_soft", ("logits", "soft")),
        (focal_loss, "focal_hard", ("logits", "hard")),
        (focal_loss, "focal_soft", ("logits", "soft")),
        (generalized_box_iou_loss, "generalized_box_iou_loss", ("predicted", "target")),
        (distance_box_iou_loss, "distance_box_iou_loss", ("predicted", "target")),
        (complete_box_iou_loss, "complete_box_iou_loss", ("predicted", "target")),
        (scylla_box_iou_loss, "scylla_box_iou_loss", ("predicted", "target")),
        (quality_focal_loss, "quality_focal", ("logits", "quality")),
        (varifocal_loss, "varifocal", ("logits", "quality")),
        (distribution_focal_loss, "distribution_focal_loss", ("bins", "distance")),
    ],
    ids=lambda p: p if isinstance(p, str) else "",
)
def test_equals_pytorch_with_its_gradient(loss, name, inputs):
    values, gradient = value_and_gradient(loss, *(GOLDEN[k] for k in inputs))
    np.testing.assert_allclose(values, GOLDEN[name], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}_gradient0"], rtol=1e-4, atol=2e-6)


def test_label_smoothing_equals_pytorch():
    smoothed = with_label_smoothing(binary_cross_entropy, 0.1)
    column = [GOLDEN[k][:, None] for k in ("logits", "hard")]
    values, gradient = value_and_gradient(smoothed, *column)
    np.testing.assert_allclose(values[:, 0], GOLDEN["smoothed"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient[:, 0], GOLDEN["smoothed_gradient0"], rtol=1e-5, atol=1e-6)


def test_class_weights_equal_pytorch():
    weighted = with_class_weights(binary_cross_entropy, jnp.asarray(GOLDEN["class_weights"], jnp.float32))
    values, gradient = value_and_gradient(weighted, *(GOLDEN[k].reshape(20, 3) for k in ("logits", "hard")))
    np.testing.assert_allclose(values, GOLDEN["weighted"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient.ravel(), GOLDEN["weighted_gradient0"], rtol=1e-5, atol=1e-6)


def test_expectation_equals_pytorch():
    values, gradient = value_and_gradient(dfl_expectation, GOLDEN["bins"])
    np.testing.assert_allclose(values, GOLDEN["expectation"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, GOLDEN["expectation_gradient0"], rtol=1e-4, atol=1e-6)


def test_cross_entropies_equal_optax():
    logits, soft = (jnp.asarray(GOLDEN[k], jnp.float32) for k in ("logits", "soft"))
    expected = optax.losses.sigmoid_binary_cross_entropy(logits, soft)
    np.testing.assert_allclose(binary_cross_entropy(logits, soft), expected, rtol=1e-5, atol=1e-6)
    hard = jnp.asarray(GOLDEN["hard"], jnp.float32)
    expected = optax.losses.sigmoid_focal_loss(logits, hard, alpha=0.25, gamma=2.0)
    np.testing.assert_allclose(focal_loss(logits, hard), expected, rtol=1e-4, atol=1e-6)


def bce64(x, y):
    return np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))


def test_quality_focal_loss_equals_equation_2():
    x, y = np.random.default_rng(0).normal(0, 3, 200), np.random.default_rng(1).uniform(0, 1, 200)
    y[:50] = 0
    for beta in (1.0, 2.0):
        got = quality_focal_loss(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), beta=beta)
        np.testing.assert_allclose(got, np.abs(y - 1 / (1 + np.exp(-x))) ** beta * bce64(x, y), rtol=1e-4, atol=1e-7)


def test_varifocal_loss_equals_equation_2():
    x, y = np.random.default_rng(0).normal(0, 3, 200), np.random.default_rng(1).uniform(0, 1, 200)
    y[:100] = 0
    p = 1 / (1 + np.exp(-x))
    expected = np.where(y > 0, -y * (y * np.log(p) + (1 - y) * np.log(1 - p)), -0.75 * p**2 * np.log(1 - p))
    got = varifocal_loss(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_class_weights_multiply_their_class():
    x, y = jnp.asarray(GOLDEN["logits"][:12].reshape(4, 3), jnp.float32), jnp.zeros((4, 3))
    weighted = with_class_weights(focal_loss, jnp.array([1.0, 0.0, 2.5]))(x, y)
    np.testing.assert_allclose(weighted, np.asarray(focal_loss(x, y)) * [1, 0, 2.5], rtol=1e-6)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=lambda f: f.__name__)
def test_gradients_of_class_losses_equal_finite_differences(loss):
    x = np.linspace(-6, 6, 41).astype(np.float32)
    for y in (0.0, 0.3, 1.0):
        target = np.full_like(x, y)
        _, slope = value_and_gradient(loss, x, target)
        step = 0.02
        high, low = (value_and_gradient(loss, x + s, target)[0].astype(np.float64) for s in (step, -step))
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("loss", CLASS_LOSSES, ids=lambda f: f.__name__)
def test_class_losses_stay_finite_at_extremes(loss):
    x = jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    for y in (0.0, 0.5, 1.0):
        values, slope = value_and_gradient(loss, x, jnp.full(5, y))
        assert np.isfinite(values).all() and np.isfinite(slope).all() and (values >= 0).all()


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=lambda f: f.__name__)
def test_box_losses_stay_finite_for_any_box(loss):
    special = [[0, 0, 0, 0], [9, 9, 3, 3], [5, 5, 25, 35], [-1e9, -1e9, 1e9, 1e9], [1e9, 1e9, 1e9, 1e9], [4, 4, 4, 9]]
    pairs = np.array([[p, t] for p in special for t in special], np.float32)
    values, slope = value_and_gradient(loss, pairs[:, 0], pairs[:, 1])
    assert np.isfinite(values).all() and np.isfinite(slope).all()
    assert (values >= 0).all() and (values <= 3).all()
    np.testing.assert_array_equal(*pairs[14])
    np.testing.assert_allclose(values[14], 0, atol=1e-6)


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=lambda f: f.__name__)
def test_box_losses_fall_as_the_prediction_approaches(loss):
    target = np.array([[20, 20, 60, 80]] * 6, np.float32)
    away = np.linspace(15, 0, 6)[:, None] * np.array([[1, 1, 1, 1]])
    values, _ = value_and_gradient(loss, target + away, target)
    assert (np.diff(values) < 0).all()


def test_bfloat16_logits_are_computed_in_float32():
    x = jnp.asarray(GOLDEN["logits"], jnp.bfloat16)
    y = jnp.asarray(GOLDEN["soft"], jnp.float32)
    for loss in (*CLASS_LOSSES, functools.partial(focal_loss, gamma=1.5)):
        assert jax.eval_shape(loss, x, y).dtype == jnp.float32
    bins = jnp.asarray(GOLDEN["bins"], jnp.bfloat16)
    assert jax.eval_shape(distribution_focal_loss, bins, y[:40]).dtype == jnp.float32
