"""Weighted box fusion against the authors' program, and its edges."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.nms import weighted_box_fusion

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "goldens" / "fusion_ensemble_boxes.npz")
FUSE = jax.jit(weighted_box_fusion, static_argnums=4)


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_authors_program(seed):
    case = (GOLDEN[f"{seed}/{k}"] for k in ("boxes", "scores", "classes", "weights"))
    boxes, scores, classes, weights = (jnp.asarray(x) for x in case)
    fused = FUSE(boxes, scores, classes, float(GOLDEN[f"{seed}/threshold"]), 120, weights=weights)
    count = int(fused.valid.sum())
    expected = GOLDEN[f"{seed}/fused_boxes"], GOLDEN[f"{seed}/fused_scores"], GOLDEN[f"{seed}/fused_classes"]
    assert 10 < count == len(expected[0]) < 100
    np.testing.assert_allclose(fused.boxes[:count], expected[0], atol=1e-6)
    np.testing.assert_allclose(fused.scores[:count], expected[1], rtol=1e-5)
    np.testing.assert_array_equal(fused.classes[:count], expected[2])
    assert not fused.boxes[count:].any() and not fused.scores[count:].any() and (fused.classes[count:] == -1).all()


def test_by_hand():
    """Two sets agree on one object; the second alone sees another."""
    boxes = jnp.array([[[0.0, 0, 10, 10], [0, 0, 1, 1]], [[2, 0, 12, 10], [50, 50, 60, 60]]])
    scores = jnp.array([[0.9, 0.5], [0.3, 0.6]])
    valid = jnp.array([[True, False], [True, True]])
    fused = weighted_box_fusion(boxes, scores, jnp.zeros((2, 2), jnp.int32), 0.5, 3, valid=valid)
    np.testing.assert_array_equal(fused.valid, [True, True, False])
    np.testing.assert_allclose(fused.boxes[0], [0.5, 0, 10.5, 10], rtol=1e-6)  # weights .9 and .3
    np.testing.assert_allclose(fused.scores, [0.6, 0.3, 0.0], rtol=1e-6)  # mean (.9, .3) * 2/2; .6 * 1/2


def test_classes_do_not_mix_and_what_is_not_finite_is_left_out():
    boxes = jnp.array([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, jnp.nan], [0, 0, 10, 10]]])
    scores = jnp.array([[0.9, 0.8, 0.7, jnp.nan]])
    fused = weighted_box_fusion(boxes, scores, jnp.array([[4, 0, 4, 4]]), 0.5, 4)
    np.testing.assert_array_equal(fused.classes, [4, 0, -1, -1])
    np.testing.assert_allclose(fused.scores, [0.9, 0.8, 0, 0], rtol=1e-6)


def test_scores_of_zero_and_nothing_at_all():
    boxes = jnp.array([[[1.0, 1, 10, 10], [1, 1, 10, 11]]])
    fused = weighted_box_fusion(boxes, jnp.zeros((1, 2)), jnp.zeros((1, 2), jnp.int32), 0.5, 2)
    np.testing.assert_array_equal(fused.boxes[0], [1, 1, 10, 10])
    assert fused.valid.sum() == 1 and np.isfinite(fused.scores).all()
    fused = weighted_box_fusion(jnp.zeros((2, 0, 4)), jnp.zeros((2, 0)), jnp.zeros((2, 0), jnp.int32), 0.5, 2)
    assert fused.boxes.shape == (2, 4) and not fused.valid.any() and (fused.classes == -1).all()
    with pytest.raises(ConfigError, match="max_detections is 0"):
        weighted_box_fusion(boxes, jnp.zeros((1, 2)), jnp.zeros((1, 2), jnp.int32), 0.5, 0)


def test_mapped_equals_one_after_another():
    batch = [jnp.stack([jnp.asarray(GOLDEN[f"{s}/{k}"]) for s in range(3)]) for k in ("boxes", "scores", "classes")]
    mapped = jax.jit(jax.vmap(lambda b, s, c: weighted_box_fusion(b, s, c, 0.55, 30)))(*batch)
    one = jax.jit(lambda b, s, c: weighted_box_fusion(b, s, c, 0.55, 30))
    for i in range(3):
        for a, b in zip(mapped, one(*(x[i] for x in batch)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)
