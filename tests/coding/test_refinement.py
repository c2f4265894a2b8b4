"""Distribution refinement: steps, boxes and targets against D-FINE's equations in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.boxes import box_iou, cxcywh_to_xyxy
from yolojax.coding import encode_refinement, refine_boxes, refinement_offsets, refinement_steps

BINS = 33


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_steps_are_those_of_the_paper(scale):
    """Equation 3 with a = .5: powers of one ratio from the middle to the last but one, then twice the limit."""
    steps, limit = refinement_steps(BINS, scale=scale), 0.5 * scale
    ratio = (limit + 1) ** (2 / (BINS - 3))
    expected = [
        -2 * limit,
        *(1 - ratio**i for i in range(15, 0, -1)),
        0,
        *(ratio**i - 1 for i in range(1, 16)),
        2 * limit,
    ]
    np.testing.assert_allclose(steps, expected, rtol=1e-6)
    assert steps[-2] == pytest.approx(limit)


@pytest.mark.parametrize("bins", [3, 32])
def test_a_middle_bin_is_needed(bins):
    with pytest.raises(ValueError, match=f"{bins} bins: give an odd number"):
        refinement_steps(bins)


def test_boxes_move_by_shares_of_their_sides():
    """Equation 1 by hand: an offset of scale / 2 moves a side by half of the box's width or height."""
    moved = refine_boxes(jnp.asarray([[0.5, 0.5, 0.2, 0.1]]), jnp.asarray([[2.0, 0.0, 0.0, -1.0]]), 4.0)
    np.testing.assert_allclose(cxcywh_to_xyxy(moved), [[0.3, 0.45, 0.6, 0.525]], atol=1e-6)


def test_targets_give_the_box_back():
    """What the two bins of each side mean, by their shares, is the offset that `refine_boxes` needs."""
    rng = np.random.default_rng(0)
    references = jnp.asarray(
        np.concatenate([rng.uniform(0.3, 0.7, (50, 2)), rng.uniform(0.1, 0.3, (50, 2))], 1), jnp.float32
    )
    boxes = references * jnp.asarray(rng.uniform(0.93, 1.07, (50, 4)), jnp.float32)
    steps = refinement_steps(BINS)
    lower, share = encode_refinement(references, boxes, steps)
    offsets = (1 - share) * steps[lower] + share * steps[lower + 1]
    np.testing.assert_allclose(refine_boxes(references, offsets), boxes, atol=2e-6)
    assert int(lower.min()) >= 0 and int(lower.max()) <= BINS - 2
    # A distribution over exactly these two bins has this mean.
    logits = np.full((50, 4, BINS), -100.0)
    for i, j in np.ndindex(50, 4):
        for k, s in ((lower[i, j], 1 - share[i, j]), (lower[i, j] + 1, share[i, j])):
            logits[i, j, k] = np.log(max(float(s), 1e-30))
    found = refinement_offsets(jnp.asarray(logits.reshape(50, -1), jnp.float32), steps)
    np.testing.assert_allclose(found, offsets, atol=1e-5)


def test_boxes_out_of_reach_take_the_last_bins():
    lower, share = encode_refinement(
        jnp.asarray([[0.5, 0.5, 0.01, 0.01]]), jnp.asarray([[0.5, 0.5, 1.0, 1.0]]), refinement_steps(BINS)
    )
    assert lower.tolist() == [[BINS - 2] * 4] and share.tolist() == [[1.0] * 4]
    lower, share = encode_refinement(
        jnp.asarray([[0.5, 0.5, 0.2, 0.2]]), jnp.asarray([[0.9, 0.9, 0.01, 0.01]]), refinement_steps(BINS)
    )
    assert lower[0, 0] == 0 and share[0, 0] == 0


def test_refined_boxes_overlap_what_they_learn():
    reference = jnp.asarray([[0.5, 0.5, 0.2, 0.3]])
    box = jnp.asarray([[0.52, 0.47, 0.22, 0.35]])
    lower, share = encode_refinement(reference, box, refinement_steps(BINS))
    steps = refinement_steps(BINS)
    moved = refine_boxes(reference, (1 - share) * steps[lower] + share * steps[lower + 1])
    assert float(box_iou(cxcywh_to_xyxy(moved), cxcywh_to_xyxy(box))[0, 0]) > 0.999
