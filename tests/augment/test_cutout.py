"""Cut-out against a count of pixels in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.scenes import BATCH, HEIGHT, WIDTH, make_scene
from yolojax.augment import cutout
from yolojax.errors import ConfigError

GREY = 114  # of no pixel of a scene


def hidden_share(hidden: np.ndarray, box: np.ndarray) -> float:
    x1, y1, x2, y2 = np.round(box).astype(int)
    return hidden[y1:y2, x1:x2].mean()


def test_boxes_stay_and_what_is_hidden_is_dropped():
    cut = jax.jit(cutout(1.0, holes=6, sides=(0.2, 0.5)))
    dropped = kept = 0
    for seed in range(8):
        scene = make_scene(seed, objects=5)
        images, targets = cut(jax.random.key(seed), *scene)
        for b in range(BATCH):
            hidden = (np.asarray(images[b]) == GREY).all(-1)
            assert 0 < hidden.sum() < HEIGHT * WIDTH
            np.testing.assert_array_equal(np.asarray(images[b])[~hidden], np.asarray(scene.images[b])[~hidden])
            for m in np.flatnonzero(scene.targets.valid[b]):
                share = hidden_share(hidden, np.asarray(scene.targets.boxes[b, m]))
                assert bool(targets.valid[b, m]) == (share <= 0.75)
                dropped, kept = dropped + (share > 0.75), kept + (0 < share <= 0.75)
        np.testing.assert_array_equal(targets.boxes, scene.targets.boxes)
    assert dropped >= 10 and kept >= 10


def test_crowd_regions_stay_whatever_is_hidden():
    scene = make_scene(0, objects=5, crowd=True)
    _, targets = jax.jit(cutout(1.0, holes=9, sides=(0.9, 1.0)))(jax.random.key(0), *scene)
    np.testing.assert_array_equal(targets.valid, scene.targets.valid)


def test_holes_are_rectangles_of_the_sizes_asked_for_and_come_as_often_as_told():
    images = jnp.zeros((64, 40, 80, 3), jnp.uint8)
    targets = jax.tree.map(lambda a: jnp.zeros((64, *a.shape[1:]), a.dtype), make_scene().targets)
    got, _ = jax.jit(cutout(0.5, holes=1, sides=(0.25, 0.5), pad=9))(jax.random.key(1), images, targets)
    holes = np.asarray(got)[..., 0] == 9
    assert 18 <= holes.any((1, 2)).sum() <= 46
    for hole in holes[holes.any((1, 2))]:
        rows, columns = hole.any(1), hole.any(0)
        np.testing.assert_array_equal(hole, rows[:, None] & columns[None])
        # Half of a hole may lie beyond the border.
        assert 5 <= rows.sum() <= 21 and 9 <= columns.sum() <= 41


@pytest.mark.parametrize("wrong", [{"holes": 0}, {"sides": (0.0, 0.5)}, {"sides": (0.5, 0.2)}, {"sides": (0.5, 1.5)}])
def test_senseless_holes_are_refused(wrong):
    with pytest.raises(ConfigError, match="cutout"):
        cutout(1.0, **wrong)
