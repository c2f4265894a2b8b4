"""Anchors: k-means against every possible partition of a small set, and the designer's numbers by hand."""

import itertools

import numpy as np
import pytest

from yolojax.anchors import (
    COCO_ANCHORS,
    deal_to_levels,
    design_anchors,
    evolve_anchors,
    kmeans_anchors,
    quantile_anchors,
    shape_ious,
)
from yolojax.errors import ConfigError, DataError


def mean_best(sizes, anchors):
    """Plain loops, float64."""
    total = 0.0
    for w, h in sizes:
        total += max(min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in anchors)
    return total / len(sizes)


def planted(n=600, seed=0):
    """Three well separated shapes with a little noise."""
    rng = np.random.default_rng(seed)
    shapes = np.array([[12, 30], [60, 50], [200, 260]], float)
    return shapes, shapes[np.arange(n) % 3] * np.exp(rng.normal(0, 0.05, (n, 2)))


def test_shape_iou_by_hand():
    np.testing.assert_allclose(shape_ious(np.array([[4.0, 2.0]]), np.array([[2.0, 4.0], [4.0, 2.0]])), [[4 / 12, 1]])


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_reaches_the_best_of_all_partitions(seed):
    """Nine boxes, two and three clusters: every partition with its medians as centres."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(5), np.log(200), (9, 2)))
    for k in (2, 3):
        best = 0.0
        for labels in itertools.product(range(k), repeat=8):
            labels = np.array([0, *labels])
            if len(set(labels)) == k:
                centres = [np.median(sizes[labels == i], axis=0) for i in range(k)]
                best = max(best, float(shape_ious(sizes, np.array(centres)).max(-1).mean()))
        # A local optimum is all that k-means promises; its restarts must come close to the best, or beat it with
        # centres that are not the medians of their own boxes.
        assert mean_best(sizes, kmeans_anchors(sizes, k)) > 0.98 * best


def test_kmeans_finds_planted_shapes_whatever_the_order_and_the_seed():
    shapes, sizes = planted()
    found = kmeans_anchors(sizes, 3, seed=0)
    np.testing.assert_allclose(found, shapes, rtol=0.03)
    np.testing.assert_array_equal(found, kmeans_anchors(sizes[::-1], 3, seed=0))
    np.testing.assert_allclose(found, kmeans_anchors(sizes, 3, seed=9), rtol=1e-9)


def test_kmeans_with_repeated_boxes():
    sizes = np.array([[10.0, 10.0]] * 5)
    np.testing.assert_array_equal(kmeans_anchors(sizes, 3), sizes[:3])
    with pytest.raises(ConfigError, match="6 anchors from 5 boxes"):
        kmeans_anchors(sizes, 6)


def test_evolution_never_fits_worse_and_repairs_bad_anchors():
    shapes, sizes = planted(90)
    bad = shapes * [[2.0, 0.5]]
    evolved = evolve_anchors(sizes, bad, generations=400)
    assert mean_best(sizes, evolved) > mean_best(sizes, bad) + 0.2
    np.testing.assert_array_equal(evolved, evolve_anchors(sizes[::-1], bad, generations=400))
    best = kmeans_anchors(sizes, 3)
    assert mean_best(sizes, evolve_anchors(sizes, best, generations=20)) >= mean_best(sizes, best)


def test_quantiles_are_medians_of_equal_shares_of_the_area_order():
    sizes = np.array([[1.0, 1], [2, 2], [3, 3], [10, 10], [20, 20], [30, 30]])
    np.testing.assert_array_equal(quantile_anchors(sizes[::-1], 2), [[2, 2], [20, 20]])
    np.testing.assert_array_equal(quantile_anchors(sizes[:1], 3), [[1, 1]] * 3)


def test_levels_get_anchors_by_area():
    anchors = np.array([[50.0, 50], [10, 10], [5, 30], [100, 90]])
    np.testing.assert_array_equal(deal_to_levels(anchors, 2), [[[10, 10], [5, 30]], [[50, 50], [100, 90]]])
    with pytest.raises(ConfigError, match=r"4 anchors .* 3 levels"):
        deal_to_levels(anchors, 3)


def test_design_of_planted_shapes():
    shapes, sizes = planted()
    sizes = np.concatenate([sizes, [[1.9, 50.0], [50, 0], [np.nan, 5], [-3, 4]]])
    design = design_anchors(sizes, strides=(32, 8, 16), per_level=1)
    assert (design.boxes, design.dropped, design.warning) == (600, 4, None)
    assert [level.stride for level in design.levels] == [8, 16, 32]
    np.testing.assert_allclose(design.anchors[:, 0], shapes, rtol=0.03)
    assert design.recall == 1.0 and design.recommendation == "Use these anchors."
    for level in design.levels:
        assert level.boxes == 200 and level.recall == 1 and level.area_coverage == 1 and not level.retune
        assert level.median_iou > 0.9
    np.testing.assert_allclose(design.mean_iou, mean_best(sizes[:600], design.anchors.reshape(-1, 2)))


def test_numbers_of_a_level_by_hand():
    """One anchor for 100 squares of 10, 100 of 20 and 15 slabs: the medians of both sides are 20 (or 10)."""
    sizes = np.array([[10.0, 10]] * 100 + [[20.0, 20]] * 100 + [[100.0, 3]] * 15)
    (level,) = design_anchors(sizes, strides=(8,), per_level=1).levels
    (w, h) = level.anchors[0]
    assert (w, h) == (20.0, 10.0)
    ious = [100 / 200] * 100 + [200 / 400] * 100 + [60 / (300 + 200 - 60)] * 15
    assert level.median_iou == np.median(ious)
    assert level.recall == 0.0  # an IoU of exactly .5 is not above it
    assert level.area_coverage == 1.0 and level.retune and level.boxes == 215


def test_recall_below_nine_tenths_asks_for_retuning():
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(4), np.log(400), (500, 2)))
    design = design_anchors(sizes, strides=(8,), per_level=1)
    assert design.levels[0].retune and design.recall < 0.9
    assert design.recommendation.startswith("Add an anchor to each level: at stride 8")
    assert design_anchors(sizes, per_level=5).recall > design.recall


def test_few_boxes_warn_and_name_the_published_anchors():
    design = design_anchors(np.array([[20.0, 30]] * 4))
    assert design.warning == "only 4 boxes: anchors fitted to so few describe the sample, not the data"
    assert "COCO" in design.recommendation
    assert design.anchors.shape == (3, 3, 2)
    assert np.array(COCO_ANCHORS).shape == (3, 3, 2)


def test_many_tiny_boxes_ask_for_a_larger_input():
    _, sizes = planted()
    design = design_anchors(np.concatenate([sizes, np.ones((200, 2))]))
    assert design.dropped == 200 and design.recommendation.startswith("Enlarge the input image: 25%")


def test_no_usable_box_is_an_error_that_says_so():
    with pytest.raises(DataError, match="all 3 have a side under 2 input pixels"):
        design_anchors(np.full((3, 2), 0.5))
    with pytest.raises(ConfigError):
        design_anchors(np.full((3, 2), 5.0), per_level=0)


def test_no_side_falls_below_one_pixel():
    assert (quantile_anchors(np.array([[0.1, 5.0]]), 1) >= 1).all()
    evolved = evolve_anchors(np.array([[1.0, 1.0]]), np.array([[1.5, 1.5]]), generations=50)
    assert (evolved >= 1).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.array([[np.nan, 3.0]]), np.array([[0.0, 3.0], [4.0, 4.0]])])
def test_sizes_that_are_none_are_refused_by_name(bad):
    for f in (
        lambda s: kmeans_anchors(s, 1),
        lambda s: quantile_anchors(s, 1),
        lambda s: evolve_anchors(s, np.full((1, 2), 3.0)),
    ):
        with pytest.raises(DataError, match="positive numbers"):
            f(bad)
    with pytest.raises(ConfigError):
        quantile_anchors(np.ones((3, 2)), 0)
    with pytest.raises(ConfigError, match="0 levels"):
        deal_to_levels(np.ones((3, 2)), 0)
