"""Anchors, box coder, pooling and proposals of two-stage detectors, against torchvision and against plain loops."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import coding
from yolojax.errors import ConfigError

with np.load(Path(__file__).parent.parent / "goldens" / "regions_torchvision.npz") as _file:
    GOLDEN = {name: jnp.asarray(_file[name]) for name in _file.files if _file[name].dtype.kind == "f"}
MAPS = [GOLDEN[f"pool_map{i}"] for i in range(3)]
BOXES = GOLDEN["pool_boxes"]
SIZES, GRIDS, IMAGE = ((16.0,), (32.0, 50.0)), ((13, 16), (7, 8)), (101, 128)
FIRST = 13 * 16 * 3
"""Anchors of the first level."""


def pool(ratio, aligned):
    """Values, and gradients of the map and of the boxes."""
    weights = np.cos(np.arange(2 * 15 * 3 * 3 * 3)).astype(np.float32)
    # torchvision's order of axes: box, channel, row, column.
    weights = weights.reshape(2, 15, 3, 3, 3).transpose(0, 1, 3, 4, 2)

    def total(features, boxes):
        out = coding.roi_align(features, boxes, 3, spatial_scale=0.25, sampling_ratio=ratio, aligned=aligned)
        return jnp.sum(out * weights), out

    slopes, out = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))(MAPS[0], BOXES)
    return out, *slopes


SEVERAL = pytest.mark.slow
"""Ratios that differ in little from the one of the detectors; each takes seconds of compilation."""


@pytest.mark.parametrize("aligned", [False, True], ids=["plain", "aligned"])
@pytest.mark.parametrize("ratio", [pytest.param(1, marks=SEVERAL), 2, pytest.param(3, marks=SEVERAL)])
def test_pooling_and_its_gradient_are_torchvisions(ratio, aligned):
    out, slope, of_boxes = pool(ratio, aligned)
    name = f"pool_{'aligned' if aligned else 'plain'}{ratio}"
    np.testing.assert_allclose(out, GOLDEN[name], rtol=0, atol=1e-5)
    np.testing.assert_allclose(slope, GOLDEN[f"{name}_gradient"], rtol=0, atol=1e-5)
    assert not np.any(of_boxes)  # torchvision's boxes have no gradient either


def test_the_level_of_a_box_is_torchvisions():
    several = jax.jit(lambda m, b: coding.pyramid_roi_align(m, b, (0.25, 0.125, 0.0625), 3, canonical_size=56.0))
    np.testing.assert_allclose(several(MAPS, BOXES), GOLDEN["pool_pyramid"], rtol=0, atol=1e-5)


def slow_roi_align(image, box, bins, scale, ratio, aligned):
    """The definition, sample by sample, in float64."""
    h, w, channels = image.shape
    x1, y1, x2, y2 = box * scale - (0.5 if aligned else 0.0)
    width, height = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
    out = np.zeros((bins, bins, channels))
    for p, q, i, j in np.ndindex(bins, bins, ratio, ratio):
        y = y1 + (p + (i + 0.5) / ratio) * height / bins
        x = x1 + (q + (j + 0.5) / ratio) * width / bins
        if not (-1 <= y <= h and -1 <= x <= w):
            continue
        y, x = min(max(y, 0.0), h - 1.0), min(max(x, 0.0), w - 1.0)
        low, left = int(y), int(x)
        down, right = min(low + 1, h - 1), min(left + 1, w - 1)
        a, b = y - low, x - left
        top = (1 - b) * image[low, left] + b * image[low, right]
        bottom = (1 - b) * image[down, left] + b * image[down, right]
        out[p, q] += ((1 - a) * top + a * bottom) / ratio**2
    return out


@pytest.mark.parametrize("aligned", [False, True])
def test_pooling_is_the_mean_of_bilinear_samples(aligned):
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (1, 5, 7, 2)).astype(np.float32)
    low = rng.uniform(-20, 50, (20, 2))
    boxes = np.concatenate([low, low + rng.uniform(0, 40, (20, 2))], -1).astype(np.float32)
    out = jax.jit(lambda f, b: coding.roi_align(f, b, 2, spatial_scale=0.125, sampling_ratio=2, aligned=aligned))(
        image, boxes[None]
    )
    expected = [
        slow_roi_align(image[0].astype(np.float64), box.astype(np.float64), 2, 0.125, 2, aligned) for box in boxes
    ]
    np.testing.assert_allclose(out[0], expected, rtol=0, atol=1e-5)


def test_a_box_that_is_not_finite_spoils_no_other():
    boxes = np.array([[[0, 0, 20, 20], [np.nan, 0, 9, 9], [0, -np.inf, 9, np.inf]]], np.float32)
    pool = jax.jit(lambda b: coding.roi_align(MAPS[0][:1], b, 2, spatial_scale=0.25))
    out = pool(boxes)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[0, 0], pool(np.where(np.isfinite(boxes), boxes, 0))[0, 0])


def test_pooling_refuses_sizes_that_are_none():
    with pytest.raises(ConfigError, match="sampling_ratio = 0: give whole numbers of at least 1"):
        coding.roi_align(MAPS[0], BOXES, 3, sampling_ratio=0)


def test_anchors_are_torchvisions():
    np.testing.assert_array_equal(coding.region_anchors(GRIDS, IMAGE, SIZES), GOLDEN["anchors"])


def test_coder_is_torchvisions_and_its_own_inverse():
    weights = (10.0, 10.0, 5.0, 5.0)
    decoded = coding.decode_regions(GOLDEN["deltas"], GOLDEN["anchors"], weights)
    np.testing.assert_allclose(decoded, GOLDEN["decoded"], rtol=1e-5, atol=1e-3)
    encoded = coding.encode_regions(GOLDEN["encode_boxes"], GOLDEN["anchors"], weights)
    np.testing.assert_allclose(encoded, GOLDEN["encoded"], rtol=1e-4, atol=1e-4)
    again = coding.decode_regions(encoded, GOLDEN["anchors"], weights)
    np.testing.assert_allclose(again, GOLDEN["encode_boxes"], rtol=0, atol=1e-3)


def test_boxes_without_area_are_coded_by_finite_numbers():
    slope = jax.grad(lambda b: jnp.sum(coding.encode_regions(b, jnp.zeros((1, 4)))))(jnp.zeros((1, 4)))
    assert np.isfinite(slope).all()
    assert np.isfinite(coding.encode_regions(jnp.zeros((1, 4)), jnp.array([[9.0, 9, 5, 5]]))).all()


def propose(objectness, deltas, count):
    anchors = jnp.asarray(GOLDEN["anchors"])
    return jax.jit(
        lambda o, d: coding.select_proposals(
            (o[:, :FIRST], o[:, FIRST:]),
            (d[:, :FIRST], d[:, FIRST:]),
            (anchors[:FIRST], anchors[FIRST:]),
            IMAGE,
            per_level=60,
            count=count,
            iou_threshold=0.6,
        )
    )(objectness, deltas)


def test_proposals_are_torchvisions():
    found = propose(GOLDEN["objectness"][None], GOLDEN["deltas"][None] / 4, 50)
    expected = GOLDEN["proposals"]
    assert int(found.valid.sum()) == len(expected)
    np.testing.assert_allclose(found.boxes[0][: len(expected)], expected, rtol=0, atol=1e-3)


def test_missing_proposals_are_masked_and_an_image_does_not_depend_on_its_batch():
    objectness = jnp.stack([GOLDEN["objectness"], GOLDEN["objectness"][::-1]])
    deltas = jnp.stack([GOLDEN["deltas"], GOLDEN["deltas"][::-1]]) / 4
    both, first = propose(objectness, deltas, 150), propose(objectness[:1], deltas[:1], 150)
    assert 0 < int(first.valid.sum()) < 150 and not np.any(first.boxes[0][~first.valid[0]])
    np.testing.assert_array_equal(both.boxes[0], first.boxes[0])


def test_best_pairs_are_the_best_of_all():
    rng = np.random.default_rng(2)
    scores, boxes = rng.permutation(24).reshape(1, 6, 4).astype(np.float32), rng.normal(size=(1, 6, 4, 4))
    boxes = boxes.astype(np.float32)
    for given in (boxes, boxes[:, :, :1]):
        found = coding.best_pairs(jnp.asarray(given), jnp.asarray(scores), 5)
        at = np.argsort(-scores.ravel())[:5]
        own = np.broadcast_to(given, boxes.shape).reshape(-1, 4)[at]
        np.testing.assert_array_equal(found.boxes[0], own)
        np.testing.assert_array_equal(np.argmax(found.scores[0], -1), at % 4)
        np.testing.assert_array_equal(np.sum(found.scores[0], -1), scores.ravel()[at])
    assert coding.best_pairs(jnp.asarray(boxes), jnp.asarray(scores), 99).boxes.shape == (1, 24, 4)
