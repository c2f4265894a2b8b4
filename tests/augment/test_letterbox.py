"""Resizing on the device against Pillow on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.scenes import HEIGHT, WIDTH, make_scene
from yolojax.augment import letterbox, resize_to
from yolojax.data import make_input_image
from yolojax.geometry import Preprocess, place_on_input, to_input

PHOTOS = [(90, 120), (33, 64), (64, 33), (97, 41), (20, 20), (1, 50)]


@pytest.mark.parametrize(
    "preprocess", [Preprocess(), Preprocess(align="topleft", pad=3), Preprocess(resize="stretch")], ids=str
)
def test_photos_of_different_sizes_equal_pillow(preprocess):
    rng = np.random.default_rng(0)
    input_size = (48, 64)
    array = rng.integers(0, 256, (len(PHOTOS), 100, 120, 3), np.uint8)  # noise beyond each photo, which is not read
    content = [place_on_input(size, input_size, preprocess).content for size in PHOTOS]
    got = jax.jit(letterbox, static_argnums=(3, 4))(
        array, np.array(PHOTOS, np.int32), np.array(content, np.float32), input_size, preprocess.pad
    )
    for image, (h, w), result in zip(array, PHOTOS, np.asarray(got), strict=True):
        want, _ = make_input_image(image[:h, :w], input_size, preprocess)
        assert np.abs(result.astype(int) - want).max() <= 1  # Pillow rounds between the two axes


@pytest.mark.parametrize("input_size", [(24, 32), (32, 32), (96, 96)])
def test_a_batch_moves_to_another_input_with_its_boxes(input_size):
    scene = make_scene()
    images, targets = jax.jit(resize_to(input_size, Preprocess()))(jax.random.key(0), *scene)
    placement = place_on_input((HEIGHT, WIDTH), input_size, Preprocess())
    for b in range(len(images)):
        want, _ = make_input_image(np.asarray(scene.images[b]), input_size, Preprocess())
        assert np.abs(np.asarray(images[b]).astype(int) - want).max() <= 1
        valid = np.asarray(scene.targets.valid[b])
        expected = to_input(np.asarray(scene.targets.boxes[b])[valid], (HEIGHT, WIDTH), placement)
        np.testing.assert_allclose(np.asarray(targets.boxes[b])[valid], expected, atol=1e-4)
    same = resize_to((HEIGHT, WIDTH), Preprocess())(jax.random.key(0), *scene)
    assert same[0] is scene.images and same[1] is scene.targets
    assert images.dtype == jnp.uint8
