"""Resampling by matrix products, as on a TPU, against reading each pixel where it comes from, as elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.scenes import BATCH, make_scene
from yolojax.augment import mosaic, mosaic9, random_affine, random_hsv
from yolojax.augment._products import bilinear_weights, resample
from yolojax.processor.platform import for_platform


@pytest.fixture(scope="module")
def scene():
    """Smooth noise, on which a sample that is taken a quarter of a pixel beside its place is seen."""
    scene = make_scene(0, objects=2)
    _, height, width, _ = scene.images.shape
    noise = np.random.default_rng(0).uniform(0, 255, (BATCH, 12, 16, 3)).astype(np.float32)
    smooth = jax.image.resize(noise, (BATCH, height, width, 3), "bilinear")
    return scene._replace(images=jnp.clip(jnp.round(smooth), 0, 255).astype(jnp.uint8))


@pytest.mark.parametrize(
    "augmentation",
    [
        mosaic(1.0),
        mosaic(1.0, scale=(0.1, 1.5), pad=7),
        mosaic9(1.0),
        random_affine(scale=(0.4, 2.0), translate=0.3),
        random_hsv(0.3, 0.7, 0.4),
    ],
    ids=["mosaic", "mosaic of any size", "mosaic9", "affine", "colours"],
)
def test_a_tpu_sees_the_same_images(scene, augmentation):
    for seed in range(2):
        key = jax.random.key(seed)
        (want, want_targets), (got, targets) = (
            jax.jit(for_platform(platform, augmentation))(key, *scene) for platform in ("cpu", "tpu")
        )
        difference = np.abs(np.asarray(got).astype(int) - np.asarray(want))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.05  # positions are multiples of 1/256 pixel
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), targets, want_targets)  # two programs round apart


@pytest.mark.parametrize("augmentation", [mosaic(1.0), mosaic9(1.0), random_affine(scale=(0.5, 2.0))])
def test_a_tpu_reads_no_lone_pixels(scene, augmentation):
    """Nothing is gathered but numbers of the targets."""
    program = jax.jit(for_platform("tpu", augmentation))
    text = program.trace(jax.random.key(0), *scene).lower(lowering_platforms=("tpu",)).as_text()
    gathers = [line for line in text.splitlines() if "stablehlo.gather" in line and "ui8" in line]
    assert "dot_general" in text and not [line for line in gathers if "slice_sizes = array<i64: 1, 1, 1" in line]


def test_products_are_exact():
    """Every sample at a multiple of 1/256 pixel, against float64."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (9, 11, 3)).astype(np.uint8)
    y, x = (rng.integers(-2 * 256, (n + 2) * 256, 7) / 256 for n in (9, 11))

    def weights(at, length):
        return np.maximum(1 - np.abs(np.arange(length) + 0.5 - at[:, None]), 0)

    exact = np.einsum("ah,hwc,bw->cab", weights(y, 9), image.astype(float) - 114, weights(x, 11)) + 114
    rows, columns = (bilinear_weights(jnp.asarray(at, jnp.float32), n) for at, n in ((y, 9), (x, 11)))
    assert rows.dtype == jnp.bfloat16
    got = np.asarray(jax.jit(resample, static_argnums=3)(jnp.asarray(image), rows, columns, 114))
    # Half-way cases round to even in both; sums of multiples of 1/65536 are exact in float32.
    np.testing.assert_array_equal(got, np.round(exact).clip(0, 255).astype(np.uint8))
