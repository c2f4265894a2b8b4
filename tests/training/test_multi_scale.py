"""Several sizes of the input image: which comes when, and what each step is fed."""

import jax
import numpy as np
import pytest

from yolojax.data import build_cache, make_input_image, shapes_dataset
from yolojax.errors import ConfigError
from yolojax.geometry import Preprocess
from yolojax.training.augmentation import HOLD, make_resize, size_index_at, sizes_around


def test_input_images_are_multiples_of_the_stride_around_their_size():
    assert sizes_around((320, 320), 3, 0.25, 32) == ((256, 256), (320, 320), (384, 384))
    assert sizes_around((640, 640), 5, 0.5, 32) == ((320, 320), (480, 480), (640, 640), (800, 800), (960, 960))
    assert sizes_around((224, 320), 1, 0.25, 32) == ((224, 320),)
    with pytest.raises(ConfigError, match="fewer"):
        sizes_around((64, 64), 5, 0.25, 32)


def test_the_size_of_a_step_depends_on_seed_and_step_alone_and_all_come_equally_often():
    sizes = np.array([size_index_at(0, step, 3) for step in range(0, 3000 * HOLD, HOLD)])
    assert np.abs(np.bincount(sizes) / 3000 - 1 / 3).max() < 0.05
    held = [size_index_at(4, step, 5) for step in range(10 * HOLD)]
    assert held == [held[step // HOLD * HOLD] for step in range(10 * HOLD)]
    assert [size_index_at(0, step, 4) for step in (0, 10, 20, 30, 40, 50)] == [0, 2, 1, 1, 0, 3]  # recorded once


def test_batches_are_resized_on_the_devices_as_pillow_does():
    cache = build_cache(shapes_dataset(4, size=(64, 64)), (64, 64), Preprocess())
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    resize = make_resize(0, ((32, 32), (64, 64), (96, 96)), Preprocess(), split)
    batch = cache.batch(np.arange(4))
    seen = set()
    for step in range(0, 12 * HOLD, HOLD):
        got = resize(step, batch)
        h, w = got.images.shape[1:3]
        seen.add((h, w))
        if (h, w) == (64, 64):
            assert got is batch
            continue
        assert got.images.sharding == split
        want, _ = make_input_image(batch.images[0], (h, w), Preprocess())
        assert np.abs(np.asarray(got.images[0]).astype(int) - want).max() <= 1
        valid = batch.targets.valid
        np.testing.assert_allclose(np.asarray(got.targets.boxes)[valid], batch.targets.boxes[valid] * h / 64, atol=1e-4)
    assert seen == {(32, 32), (64, 64), (96, 96)}
