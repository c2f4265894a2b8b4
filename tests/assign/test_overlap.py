"""Matching by overlap and the drawing of a balanced sample, against torchvision and against their definition."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import balanced_sample, every_row, overlap_assign
from yolojax.structures import Targets

GOLDEN = np.load(Path(__file__).parent.parent / "goldens" / "regions_torchvision.npz")
RULES = {
    "rpn": {"low": 0.3, "high": 0.7, "keep_best": True},
    "roi": {"low": 0.5, "high": 0.5, "keep_best": False},
    "retina": {"low": 0.4, "high": 0.5, "keep_best": True},
}


def targets(boxes, crowd=(), rows=None):
    """One image with these objects of classes 0, 1, 2 and so on; ``rows`` pads."""
    n = len(boxes)
    rows = rows or n
    padded = np.full((1, rows, 4), np.nan, np.float32)
    padded[0, :n] = boxes
    return Targets(
        jnp.asarray(padded),
        jnp.arange(rows, dtype=jnp.int32)[None],
        jnp.arange(rows)[None] < n,
        jnp.isin(jnp.arange(rows), jnp.asarray(crowd, jnp.int32))[None],
        jnp.zeros(1, jnp.int32),
    )


assign = jax.jit(overlap_assign, static_argnames=("low", "high", "keep_best"))


@pytest.mark.parametrize("rule", RULES)
def test_matching_is_torchvisions(rule):
    expected = GOLDEN[f"match_{rule}"]
    found = assign(targets(GOLDEN["match_objects"], rows=9), GOLDEN["match_boxes"][None], **RULES[rule])
    np.testing.assert_array_equal(found.positive[0], expected >= 0)
    np.testing.assert_array_equal(found.negative[0], expected == -1)
    np.testing.assert_array_equal(found.objects[0], np.maximum(expected, 0))
    assert (expected >= 0).any() and (rule == "roi" or (expected == -2).any())


def test_the_order_of_the_objects_changes_nothing():
    order = np.array([3, 0, 5, 2, 1, 4])
    boxes = GOLDEN["match_objects"]
    first = assign(targets(boxes), GOLDEN["match_boxes"][None], **RULES["rpn"])
    second = assign(targets(boxes[order]), GOLDEN["match_boxes"][None], **RULES["rpn"])
    np.testing.assert_array_equal(first.positive, second.positive)
    positive = np.asarray(first.positive)
    np.testing.assert_array_equal(np.asarray(first.objects)[positive], order[np.asarray(second.objects)][positive])


def test_an_image_without_objects_is_background_and_a_crowd_is_neither():
    boxes = jnp.array([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    none = assign(targets(np.zeros((0, 4)), rows=2), boxes, **RULES["rpn"])
    assert not none.positive.any() and none.negative.all()
    crowd = assign(targets([[0, 0, 20, 20]], crowd=(0,)), boxes, **RULES["rpn"])
    assert not crowd.positive.any() and crowd.negative.tolist() == [[False, True]]


def draw(seed, matched, objects, size, share):
    return jax.jit(balanced_sample, static_argnums=(3, 4))(jax.random.key(seed), matched, objects, size, share)


def test_a_sample_is_balanced_without_repetition_and_by_chance():
    objects = targets(GOLDEN["match_objects"])
    matched = assign(objects, GOLDEN["match_boxes"][None], **RULES["rpn"])
    positives, negatives = int(matched.positive.sum()), int(matched.negative.sum())
    assert positives > 4 and negatives > 12
    seen, index = [], np.zeros(0)
    for seed in range(8):
        found = draw(seed, matched, objects, 16, 0.25)
        index = np.asarray(found.rows[0])
        assert found.valid.all() and len(set(index.tolist())) == 16
        assert found.positive[0].tolist() == [True] * 4 + [False] * 12
        assert np.asarray(matched.positive[0])[index[:4]].all() and np.asarray(matched.negative[0])[index[4:]].all()
        owner = np.asarray(matched.objects[0])[index[:4]]
        np.testing.assert_array_equal(found.classes[0], [*owner, *[0] * 12])
        np.testing.assert_array_equal(found.boxes[0, :4], GOLDEN["match_objects"][owner])
        seen += index[:4].tolist()
    assert len(set(seen)) > 8
    again = draw(7, matched, objects, 16, 0.25)
    np.testing.assert_array_equal(again.rows[0], index)


def test_negatives_fill_up_and_rows_that_are_missing_repeat_the_first():
    objects = targets(GOLDEN["match_objects"])
    matched = assign(objects, GOLDEN["match_boxes"][None], **RULES["rpn"])
    positives, negatives = int(matched.positive.sum()), int(matched.negative.sum())
    whole = draw(0, matched, objects, 500, 0.5)
    assert int(whole.valid.sum()) == positives + negatives and int(whole.positive.sum()) == positives
    assert set(np.asarray(whole.rows[0, positives + negatives :]).tolist()) == {int(whole.rows[0, 0])}
    drawn = np.sort(np.asarray(whole.rows[0])[np.asarray(whole.valid[0])])
    np.testing.assert_array_equal(drawn, np.flatnonzero(np.asarray(matched.positive | matched.negative)[0]))
    few = draw(0, matched._replace(positive=jnp.zeros_like(matched.positive)), objects, 8, 0.5)
    assert few.valid.all() and not few.positive.any()


def test_every_row_is_a_sample_of_all():
    objects = targets(GOLDEN["match_objects"])
    matched = assign(objects, GOLDEN["match_boxes"][None], **RULES["retina"])
    found = every_row(matched, objects)
    np.testing.assert_array_equal(found.rows[0], np.arange(200))
    np.testing.assert_array_equal(found.valid, matched.positive | matched.negative)
    np.testing.assert_array_equal(found.positive, matched.positive)
