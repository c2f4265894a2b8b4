"""Perspective maps against SciPy and Pillow, and boxes that follow the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.augment.scenes import HEIGHT, WIDTH, extent_of, make_scene
from yolojax.augment import project_boxes, random_perspective, warp_perspective
from yolojax.errors import ConfigError

MAPS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0.1, -3], [0.05, 0.9, 2], [0.004, -0.002, 1]],
        [[0.8, -0.6, 21], [0.6, 0.8, -9], [-0.003, 0.005, 1.2]],
        [[-1.1, 0.2, 70], [0.1, 1.2, -8], [0.002, 0.006, 0.7]],  # mirrored: its determinant is negative
        [[2, 0.3, -30], [0.1, 2.2, -25], [0.012, 0.010, 0.6]],  # its horizon crosses the output
    ]
)


def source_positions(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    source_x, source_y, depth = np.tensordot(np.linalg.inv(matrix), np.stack([x, y, np.ones_like(x)]), 1)
    return source_x / depth, source_y / depth, depth


def test_warp_equals_scipy_in_float64_and_pillow_inside():
    images = np.random.default_rng(0).integers(0, 256, (len(MAPS), HEIGHT, WIDTH, 3), np.uint8)
    # Smooth, so that a coordinate that is off by a hundredth shows as a grey level and not as noise.
    images = ndimage.gaussian_filter(images.astype(float), (0, 1.5, 1.5, 0)).astype(np.uint8)
    got = np.asarray(jax.jit(warp_perspective)(images, MAPS.astype(np.float32)))
    np.testing.assert_array_equal(got[0], images[0])
    for image, matrix, warped in zip(images, MAPS, got, strict=True):
        source_x, source_y, depth = source_positions(matrix)
        before_horizon = depth > 0.05  # near it a float32 coordinate of thousands says nothing
        for channel in range(3):
            want = ndimage.map_coordinates(
                image[..., channel].astype(float),
                [source_y - 0.5, source_x - 0.5],
                order=1,
                mode="grid-constant",
                cval=114,
            )
            want[depth <= 0] = 114
            clear = before_horizon | (depth < -0.05)
            assert np.abs(warped[..., channel] - want)[clear].max() <= 0.6
        inside = (source_x > 1) & (source_x < WIDTH - 1) & (source_y > 1) & (source_y < HEIGHT - 1) & before_horizon
        assert inside.sum() > 200
        back = np.linalg.inv(matrix)
        pillow = Image.fromarray(image).transform(
            (WIDTH, HEIGHT),
            Image.Transform.PERSPECTIVE,
            tuple((back / back[2, 2]).ravel()[:8]),
            Image.Resampling.BILINEAR,
        )
        # Pillow cuts the fraction off where we round.
        assert np.abs(warped[inside].astype(int) - np.asarray(pillow)[inside].astype(int)).max() <= 1


def test_boxes_are_the_hulls_of_their_projected_corners():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 40, (len(MAPS), 7, 2, 2)), axis=2).reshape(-1, 7, 4)
    got = jax.jit(project_boxes)(boxes.astype(np.float32), MAPS.astype(np.float32))
    for matrix, rows, row_got in zip(MAPS, boxes, got, strict=True):
        for (x1, y1, x2, y2), box in zip(rows, row_got, strict=True):
            corners = np.array([[x, y, 1] for x in (x1, x2) for y in (y1, y2)]) @ matrix.T
            corners = corners[:, :2] / corners[:, 2:]
            np.testing.assert_allclose(box, [*corners.min(0), *corners.max(0)], rtol=1e-5, atol=2e-4)


def test_boxes_follow_the_pixels():
    tilt = jax.jit(random_perspective(0.3, scale=(0.7, 1.0), rotate=20.0))
    kept = 0
    for seed in range(4):
        scene = make_scene(seed)
        images, targets = tilt(jax.random.key(seed), *scene)
        assert images.dtype == jnp.uint8 and targets.boxes.dtype == jnp.float32
        assert not (targets.valid & ~scene.targets.valid).any()
        for b, m in np.argwhere(np.asarray(targets.valid)):
            box, seen = np.asarray(targets.boxes[b, m]), extent_of(np.asarray(images[b]), targets.classes[b, m])
            if (box[2:] - box[:2]).min() < 6 or box.min() <= 0 or box[2] >= WIDTH or box[3] >= HEIGHT:
                continue  # blended with the background, or cut
            kept += 1
            np.testing.assert_allclose(box, seen, atol=3.5)
            assert (box[:2] <= np.array(seen[:2]) + 0.5).all() and (box[2:] >= np.array(seen[2:]) - 0.5).all()
    assert kept >= 20


def test_nothing_to_do_changes_no_box_and_the_rest_is_refused():
    scene = make_scene()
    images, targets = jax.jit(random_perspective(0.0))(jax.random.key(0), *scene)
    np.testing.assert_array_equal(images, scene.images)
    valid = np.asarray(scene.targets.valid)
    np.testing.assert_array_equal(targets.valid, valid)
    np.testing.assert_allclose(np.asarray(targets.boxes)[valid], np.asarray(scene.targets.boxes)[valid], atol=1e-4)
    for wrong in (-0.1, 0.5):
        with pytest.raises(ConfigError, match="perspective"):
            random_perspective(wrong)
