"""Flips and affine maps against Pillow and SciPy, and the laws that tie boxes to pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import ndimage

from tests.augment.scenes import HEIGHT, WIDTH, extent_of, make_scene
from yolojax.augment import keep_visible, random_affine, random_flip, transform_boxes, warp_affine
from yolojax.errors import ConfigError
from yolojax.structures import Targets

KEY = jax.random.key(3)


def random_images(seed: int, batch: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("vertical", [False, True])
def test_flip_equals_pillow_and_twice_gives_the_same(vertical):
    scene = make_scene()
    flip = jax.jit(random_flip(1.0, vertical=vertical))
    images, targets = flip(KEY, *scene)
    mirror = ImageOps.flip if vertical else ImageOps.mirror
    for before, after in zip(np.asarray(scene.images), np.asarray(images), strict=True):
        np.testing.assert_array_equal(after, np.asarray(mirror(Image.fromarray(before))))
    for b, m in np.argwhere(np.asarray(targets.valid)):
        # The rectangle that was drawn is where the box says it is.
        np.testing.assert_array_equal(targets.boxes[b, m], extent_of(np.asarray(images[b]), targets.classes[b, m]))
    again = flip(KEY, images, targets)
    np.testing.assert_array_equal(again[0], scene.images)
    np.testing.assert_array_equal(again[1].boxes, scene.targets.boxes)
    assert images.dtype == jnp.uint8


def test_flip_happens_as_often_as_told():
    images = jnp.tile(jnp.array([0, 255], jnp.uint8)[None, None, :, None], (2000, 1, 1, 3))
    none = Targets(
        jnp.zeros((2000, 1, 4)),
        jnp.zeros((2000, 1), jnp.int32),
        jnp.zeros((2000, 1), bool),
        jnp.zeros((2000, 1), bool),
        jnp.zeros(2000, jnp.int32),
    )
    for probability, spread in ((0.0, 0.0), (0.3, 0.05), (1.0, 0.0)):  # 5 standard deviations of 2000 draws at .3
        flipped, _ = jax.jit(random_flip(probability))(KEY, images, none)
        assert abs(float(jnp.mean(flipped[:, 0, 0, 0] == 255)) - probability) <= spread


MATRICES = {
    "shift": [[1, 0, 3.25], [0, 1, -5.5]],
    "shrink": [[0.61, 0, 12.2], [0, 0.47, 9.1]],
    "magnify": [[1.7, 0, -20.3], [0, 2.1, -31.0]],
    "turn": [[0.8, -0.6, 21.7], [0.6, 0.8, -8.9]],
    "shear": [[1.05, 0.3, -4.0], [-0.2, 0.9, 11.3]],
}


@pytest.mark.parametrize("pad", [114, 0])
def test_warp_equals_scipy_in_float64(pad):
    images = random_images(1, len(MATRICES))
    matrices = np.array(list(MATRICES.values()), np.float64)
    got = np.asarray(jax.jit(warp_affine, static_argnums=2)(images, matrices.astype(np.float32), pad))
    assert got.dtype == np.uint8
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    for image, matrix, warped in zip(images, matrices, got, strict=True):
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
        source_x, source_y, _ = np.tensordot(back, np.stack([x, y, np.ones_like(x)]), 1)
        for channel in range(3):
            want = ndimage.map_coordinates(
                image[..., channel].astype(np.float64),
                [source_y - 0.5, source_x - 0.5],
                order=1,
                mode="grid-constant",
                cval=pad,
            )
            # Half a grey level of rounding, and 255 times the float32 error of a coordinate below 128.
            assert np.abs(warped[..., channel] - want).max() <= 0.5 + 255 * 128 * 2**-22


def test_warp_equals_pillow_inside_the_image():
    images = random_images(2, len(MATRICES))
    matrices = np.array(list(MATRICES.values()), np.float64)
    got = np.asarray(jax.jit(warp_affine)(images, matrices.astype(np.float32)))
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    for image, matrix, warped in zip(images, matrices, got, strict=True):
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        want = np.asarray(
            Image.fromarray(image).transform(
                (WIDTH, HEIGHT), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BILINEAR
            )
        )
        source_x, source_y = np.tensordot(back, np.stack([x, y, np.ones_like(x)]), 1)
        inside = (source_x > 1) & (source_x < WIDTH - 1) & (source_y > 1) & (source_y < HEIGHT - 1)
        assert inside.sum() > 300
        # Pillow cuts the fraction off where we round.
        assert np.abs(warped[inside].astype(int) - want[inside].astype(int)).max() <= 1


def test_identity_changes_no_bit():
    scene = make_scene()
    noise = random_images(3, 4)
    images, targets = jax.jit(random_affine())(KEY, jnp.asarray(noise), scene.targets)
    np.testing.assert_array_equal(images, noise)
    jax.tree.map(np.testing.assert_array_equal, targets, scene.targets)


@pytest.mark.parametrize(
    "settings",
    [
        {"scale": (0.5, 0.9), "translate": 0.1},
        {"scale": (1.1, 2.0), "translate": 0.3},
        {"scale": (0.8, 1.6), "rotate": 60.0, "shear": 15.0, "translate": 0.1},
    ],
)
def test_boxes_follow_the_pixels(settings):
    affine = jax.jit(random_affine(**settings))
    kept = dropped = 0
    for seed in range(4):
        scene = make_scene(seed)
        images, targets = affine(jax.random.key(seed), *scene)
        assert images.dtype == jnp.uint8 and targets.boxes.dtype == jnp.float32
        assert not (targets.valid & ~scene.targets.valid).any()
        for b, m in np.argwhere(np.asarray(scene.targets.valid)):
            box, seen = np.asarray(targets.boxes[b, m]), extent_of(np.asarray(images[b]), targets.classes[b, m])
            assert (box[:2] >= 0).all() and box[2] <= WIDTH and box[3] <= HEIGHT
            if not targets.valid[b, m]:
                # Dropped: nothing or next to nothing of it is left in the picture.
                dropped += 1
                assert seen is None or (np.array(seen[2:]) - seen[:2]).min() <= 3
                continue
            kept += 1
            if (box[2:] - box[:2]).min() < 5:
                continue  # so thin that every pixel is blended with the background
            turned = "rotate" in settings
            cut = box.min() <= 0 or box[2] >= WIDTH or box[3] >= HEIGHT
            if not (turned and cut):  # the clipped box of a turned rectangle may hold corners where nothing of it is
                # Interpolation blurs an edge over two pixels; a turned corner is a point that no pixel centre hits.
                np.testing.assert_allclose(box, seen, atol=3.5 if turned else 1.6)
            assert (box[:2] <= np.array(seen[:2]) + 0.5).all() and (box[2:] >= np.array(seen[2:]) - 0.5).all()
    assert kept >= 20 and kept + dropped == 48


def test_transform_boxes_equals_the_corners_in_float64():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 60, (len(MATRICES), 7, 2, 2)), axis=2).reshape(-1, 7, 4)
    matrices = np.array(list(MATRICES.values()))
    got = jax.jit(transform_boxes)(boxes.astype(np.float32), matrices.astype(np.float32))
    for matrix, rows, row_got in zip(matrices, boxes, got, strict=True):
        for (x1, y1, x2, y2), box in zip(rows, row_got, strict=True):
            corners = np.array([[x, y, 1] for x in (x1, x2) for y in (y1, y2)]) @ matrix.T
            np.testing.assert_allclose(box, [*corners.min(0), *corners.max(0)], atol=2e-4)


def test_magnification_is_about_the_centre():
    scene = make_scene()
    _, targets = jax.jit(random_affine(scale=(0.5, 0.5)))(KEY, *scene)
    centre = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) / 2
    valid = np.asarray(scene.targets.valid)
    want = (np.asarray(scene.targets.boxes)[valid] - centre) / 2 + centre
    np.testing.assert_allclose(np.asarray(targets.boxes)[valid], want, atol=1e-4)


def visible(boxes, *, crowd=False):
    """Which of these boxes stay on an input image of 100 x 100."""
    moved = jnp.array([boxes], jnp.float32)
    n = len(boxes)
    targets = Targets(
        moved, jnp.zeros((1, n), jnp.int32), jnp.ones((1, n), bool), jnp.full((1, n), crowd), jnp.zeros(1, jnp.int32)
    )
    clipped, valid = keep_visible(targets, moved, jnp.array([0, 0, 100, 100], jnp.float32))
    return np.asarray(clipped[0]), np.asarray(valid[0]).tolist()


BORDER_CASES = [
    [10, 10, 30, 30],  # whole
    [-30, 10, 10, 30],  # a quarter
    [-170, 10, 30, 30],  # 15 %
    [-185, 10, 15, 30],  # 7.5 %
    [98.5, 10, 110, 30],  # 1.5 pixels wide
    [50, 50, 51, 51],  # whole, but a single pixel
    [-30, 10, -5, 30],  # outside
    [-50, -50, 150, 150],  # larger than the input image: a quarter of it fills everything
]


def test_what_stays_visible():
    clipped, valid = visible(BORDER_CASES)
    assert valid == [True, True, True, False, False, False, False, True]
    np.testing.assert_array_equal(clipped[1], [0, 10, 10, 30])
    np.testing.assert_array_equal(clipped[7], [0, 0, 100, 100])


def test_a_crowd_region_stays_while_any_of_it_is_visible():
    _, valid = visible(BORDER_CASES, crowd=True)
    assert valid == [True, True, True, True, True, True, False, True]


def test_content_of_padding_rows_does_not_matter():
    scene = make_scene()
    garbage = scene.targets._replace(boxes=jnp.where(scene.targets.valid[..., None], scene.targets.boxes, 33.0))
    affine = jax.jit(random_affine(scale=(0.6, 1.4), translate=0.2))
    valid = np.asarray(scene.targets.valid)
    images, targets = affine(KEY, *scene)
    other_images, other = affine(KEY, scene.images, garbage)
    np.testing.assert_array_equal(images, other_images)
    np.testing.assert_array_equal(targets.valid, other.valid)
    np.testing.assert_array_equal(np.asarray(targets.boxes)[valid], np.asarray(other.boxes)[valid])


def test_a_sharded_batch_needs_no_communication():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    images, matrices = jnp.zeros((4, 16, 16, 3), jnp.uint8), jnp.tile(jnp.eye(2, 3), (4, 1, 1))
    program = jax.jit(warp_affine, in_shardings=split, out_shardings=split).lower(images, matrices).compile()
    assert "all-gather" not in program.as_text() and "all-reduce" not in program.as_text()


def test_settings_that_make_no_map_are_refused():
    with pytest.raises(ConfigError, match="scale"):
        random_affine(scale=(0.0, 1.0))
    with pytest.raises(ConfigError, match="scale"):
        random_affine(scale=(2.0, 1.0))
    with pytest.raises(ConfigError, match="shear"):
        random_affine(shear=45.0)
