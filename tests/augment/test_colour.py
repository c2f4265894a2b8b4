"""Hue, saturation and value against the standard library's colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np

from tests.augment.scenes import make_scene
from yolojax.augment import hsv_to_rgb, random_hsv, rgb_to_hsv

STEPS = np.array([0, 1, 2, 63, 127, 128, 200, 254, 255])
COLOURS = np.stack(np.meshgrid(STEPS, STEPS, STEPS), -1).reshape(-1, 3)
"""Black, white, greys, pure and mixed colours."""


def test_both_ways_equal_colorsys():
    rgb = COLOURS / 255
    want = np.array([colorsys.rgb_to_hsv(*c) for c in rgb])
    got = np.asarray(jax.jit(rgb_to_hsv)(rgb.astype(np.float32)))
    difference = np.abs(got - want)
    difference[:, 0] = np.minimum(difference[:, 0], 1 - difference[:, 0])  # hue is a circle
    assert difference.max() <= 1e-5
    assert (got >= 0).all() and (got <= 1).all()
    back = np.array([colorsys.hsv_to_rgb(*c) for c in got.astype(np.float64)])
    np.testing.assert_allclose(jax.jit(hsv_to_rgb)(got), back, atol=2e-6)


def test_no_shift_changes_no_bit():
    images = jnp.asarray(COLOURS.reshape(3, -1, 3, 3).astype(np.uint8))
    scene = make_scene()
    same, targets = jax.jit(random_hsv(0.0, 0.0, 0.0))(jax.random.key(0), images, scene.targets)
    assert same.dtype == jnp.uint8
    np.testing.assert_array_equal(same, images)
    jax.tree.map(np.testing.assert_array_equal, targets, scene.targets)


def test_shift_is_one_for_an_image_and_within_its_range():
    """Each image moves by one hue, saturation and value, as colorsys applies it to every pixel."""
    images = np.random.default_rng(0).integers(30, 226, (8, 6, 6, 3), np.uint8)
    images[:, 0, 0] = (200, 100, 100)  # hue 0, saturation .5, value 200 / 255: here the shift can be read off
    share = (0.1, 0.4, 0.2)
    got, _ = jax.jit(random_hsv(*share))(jax.random.key(5), jnp.asarray(images), make_scene().targets)
    shifts = []
    for image, changed in zip(images, np.asarray(got), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(changed[0, 0] / 255.0))
        shift = (h + 0.5) % 1 - 0.5, s / 0.5 - 1, v * 255 / 200 - 1
        assert all(abs(a) <= b + 0.01 for a, b in zip(shift, share, strict=True))
        shifts.append(shift)
        for before, after in zip(image.reshape(-1, 3), changed.reshape(-1, 3), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*(before / 255.0))
            h, s, v = (h + shift[0]) % 1, min(s * (1 + shift[1]), 1), min(v * (1 + shift[2]), 1)
            # The shift is known only to the rounding of one pixel.
            assert np.abs(np.array(colorsys.hsv_to_rgb(h, s, v)) * 255 - after).max() <= 4
    assert np.std(shifts, axis=0).min() > 0.02  # every image draws its own
