"""Mosaic: boxes lie where their object's colour is, and nothing is lost without being counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.augment.scenes import BATCH, HEIGHT, OBJECTS, WIDTH, colour, extent_of, make_scene
from yolojax.augment import mosaic
from yolojax.errors import ConfigError

ALWAYS = jax.jit(mosaic(1.0, scale=(0.6, 1.0)))


@pytest.mark.parametrize("seed", range(4))
def test_every_kept_box_covers_its_colour_within_its_tile(seed):
    scene = make_scene(seed, objects=1)
    images, targets = ALWAYS(jax.random.key(seed), *scene)
    assert images.dtype == jnp.uint8 and images.shape == scene.images.shape
    assert int(targets.valid.sum()) >= BATCH  # of 16 tiles a quarter shows its object, or this test shows nothing
    for b in range(BATCH):
        image = np.asarray(images[b]).astype(int)
        for m in np.flatnonzero(targets.valid[b]):
            x1, y1, x2, y2 = box = np.asarray(targets.boxes[b, m])
            assert 0 <= x1 < x2 <= WIDTH and 0 <= y1 < y2 <= HEIGHT
            inner = image[int(np.ceil(y1 + 1)) : int(y2 - 1), int(np.ceil(x1 + 1)) : int(x2 - 1)]
            assert (np.abs(inner - colour(int(targets.classes[b, m]))) <= 1).all(), (b, m, box)


def test_each_kept_box_is_as_large_as_what_is_seen_of_its_object():
    measured = 0
    for seed in range(6):
        scene = make_scene(seed, objects=1)
        images, targets = ALWAYS(jax.random.key(100 + seed), *scene)
        for b in range(BATCH):
            kept = [int(c) for c, v in zip(targets.classes[b], targets.valid[b], strict=True) if v]
            for m in np.flatnonzero(targets.valid[b]):
                label = int(targets.classes[b, m])
                box = np.asarray(targets.boxes[b, m])
                if (box[2:] - box[:2]).min() < 4:
                    continue  # all of it blended with the background
                measured += 1
                # Only its surroundings: a remnant of the same image may lie in another tile.
                left, top = np.maximum(box[:2].astype(int) - 3, 0)
                near = np.asarray(images[b])[top : int(box[3]) + 4, left : int(box[2]) + 4]
                np.testing.assert_allclose(box - [left, top, left, top], extent_of(near, label), atol=1.6)
            for label in {OBJECTS * i for i in range(BATCH)} - set(kept):
                seen = extent_of(np.asarray(images[b]), label)  # dropped or not there: next to nothing is to be seen
                assert seen is None or (np.array(seen[2:]) - seen[:2]).min() <= 3
    assert measured >= 20


def test_tiles_are_whole_images_at_their_scale():
    """Flat images, one grey each: at scale 1 the first tile is the image itself, and the tiles are rectangles."""
    flat = jnp.broadcast_to(jnp.array([10, 70, 150, 230], jnp.uint8)[:, None, None, None], (BATCH, HEIGHT, WIDTH, 3))
    scene = make_scene(objects=0)
    images, _ = jax.jit(mosaic(1.0, scale=(1.0, 1.0)))(jax.random.key(1), flat, scene.targets)
    for b, image in enumerate(np.asarray(images)[..., 0].astype(int)):
        assert image[0, 0] == flat[b, 0, 0, 0]
        corners = {int(image[y, x]) for y in (0, -1) for x in (0, -1)}
        assert corners <= {10, 70, 150, 230}
        for axis, extent in ((0, HEIGHT), (1, WIDTH)):
            borders = np.flatnonzero((np.diff(image, axis=axis) != 0).any(1 - axis))
            if len(borders):  # one border, at most two pixels soft, in the middle half
                assert extent / 4 - 2 <= borders.min() and borders.max() <= 3 * extent / 4 + 1
                assert np.ptp(borders) <= 2
    assert len({int(v) for v in np.unique(np.asarray(images))} & {10, 70, 150, 230}) == 4


def test_what_no_image_covers_is_grey():
    scene = make_scene(objects=0)
    images, _ = jax.jit(mosaic(1.0, scale=(0.1, 0.1), pad=7))(jax.random.key(0), *scene)
    assert (np.asarray(images)[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 7).all()


def test_probability_zero_changes_no_bit():
    scene = make_scene()
    images, targets = jax.jit(mosaic(0.0))(jax.random.key(0), *scene)
    np.testing.assert_array_equal(images, scene.images)
    jax.tree.map(np.testing.assert_array_equal, targets, scene.targets)


def test_overflow_is_counted_and_the_smallest_objects_go_first():
    """Of four images with five objects each, the five padded rows keep the largest that are visible."""
    scene = make_scene(7, objects=OBJECTS)
    wide = scene.targets._replace(
        **{
            name: jnp.concatenate(
                [getattr(scene.targets, name)] + [jnp.zeros_like(getattr(scene.targets, name))] * 3, 1
            )
            for name in ("boxes", "classes", "valid", "crowd")
        }
    )
    for key in map(jax.random.key, range(4)):
        _, roomy = ALWAYS(key, scene.images, wide)
        _, tight = ALWAYS(key, *scene)
        had = np.asarray(scene.targets.dropped)
        overflow = np.maximum(np.asarray(roomy.valid).sum(1) - OBJECTS, 0)
        assert overflow.max() > 0
        np.testing.assert_array_equal(np.asarray(tight.valid).sum(1), np.minimum(roomy.valid.sum(1), OBJECTS))
        np.testing.assert_array_equal(tight.dropped - roomy.dropped, overflow)
        # What the four images had dropped before is carried on: the tiles' own counts are known from `make_scene`.
        assert (roomy.dropped >= had).all() and (roomy.dropped <= had + 3 * had.max()).all()
        for b in range(BATCH):
            sides = np.asarray(roomy.boxes[b])[:, 2:] - np.asarray(roomy.boxes[b])[:, :2]
            areas = np.sort((sides[:, 0] * sides[:, 1])[np.asarray(roomy.valid[b])])[::-1]
            kept = np.asarray(tight.boxes[b])[np.asarray(tight.valid[b])]
            kept_areas = np.sort((kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1]))[::-1]
            np.testing.assert_array_equal(kept_areas, areas[:OBJECTS])


def test_objects_take_rows_before_crowd_regions():
    scene = make_scene(3, objects=OBJECTS)
    crowd = jnp.broadcast_to(jnp.arange(OBJECTS)[None] % 2 == 0, (BATCH, OBJECTS))
    for key in map(jax.random.key, range(4)):
        _, ordinary = ALWAYS(key, scene.images, scene.targets._replace(valid=scene.targets.valid & ~crowd))
        _, mixed = ALWAYS(key, scene.images, scene.targets._replace(crowd=crowd))
        objects = np.asarray(mixed.valid & ~mixed.crowd).sum(1)
        np.testing.assert_array_equal(objects, np.asarray(ordinary.valid).sum(1))


def test_one_image_makes_a_mosaic_of_itself():
    scene = make_scene(objects=1)
    alone = jax.tree.map(lambda a: a[:1], scene)
    images, targets = jax.jit(mosaic(1.0))(jax.random.key(0), *alone)
    assert images.shape == (1, HEIGHT, WIDTH, 3)
    assert set(np.asarray(targets.classes)[np.asarray(targets.valid)]) <= {0}


def test_a_scale_that_makes_no_map_is_refused():
    with pytest.raises(ConfigError, match="scale"):
        mosaic(1.0, scale=(0.0, 1.0))
