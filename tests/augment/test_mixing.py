"""Mosaic of nine against Pillow, and MixUp against NumPy, on pixels and boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.augment.scenes import BATCH, HEIGHT, OBJECTS, WIDTH, make_scene
from yolojax.augment import mixup, mosaic, mosaic9
from yolojax.augment._mixing import _draw_tiles, _gather_objects, _lay_tiles, group_size
from yolojax.errors import ConfigError
from yolojax.structures import Targets


def mosaic_by_pillow(images, boxes, source, cuts, sizes):
    """One mosaic, tile by tile: resample the whole input image with Pillow, then paste the tile's window."""
    edges = [np.concatenate([[0], cuts[0] * WIDTH, [WIDTH]]), np.concatenate([[0], cuts[1] * HEIGHT, [HEIGHT]])]
    out, moved = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5
    n = len(edges[0]) - 1
    for t in range(n * n):
        column, row = t % n, t // n
        size, shift = sizes[t], []
        for place, edge, extent in ((column, edges[0], WIDTH), (row, edges[1], HEIGHT)):
            if place == 0:
                shift.append(edge[1] - size * extent)
            elif place == n - 1:
                shift.append(edge[place])
            else:
                shift.append((edge[place] + edge[place + 1]) / 2 - size * extent / 2)
        picture, factor = Image.fromarray(images[source[t]]), size
        if size < 0.5:
            picture, factor = picture.reduce(2), size * 2
        # A border of the padding's grey, as Pillow leaves what lies outside black and does not blend with it.
        wide = Image.new("RGB", (picture.width + 4, picture.height + 4), (114,) * 3)
        wide.paste(picture, (2, 2))
        coefficients = (1 / factor, 0, 2 - shift[0] / factor, 0, 1 / factor, 2 - shift[1] / factor)
        whole = np.array(
            wide.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
        )
        source_x, source_y = (x - shift[0]) / size, (y - shift[1]) / size
        beyond = ((source_x < -2) | (source_x > WIDTH + 2))[None] | ((source_y < -2) | (source_y > HEIGHT + 2))[:, None]
        whole[beyond] = 114
        inside = ((x > edges[0][column]) & (x <= edges[0][column + 1]))[None] & (
            (y > edges[1][row]) & (y <= edges[1][row + 1])
        )[:, None]
        out[inside] = whole[inside]
        window = edges[0][column], edges[1][row], edges[0][column + 1], edges[1][row + 1]
        for x1, y1, x2, y2 in boxes[source[t]]:
            box = np.array([x1 * size + shift[0], y1 * size + shift[1], x2 * size + shift[0], y2 * size + shift[1]])
            clipped = np.array([*np.maximum(box[:2], window[:2]), *np.minimum(box[2:], window[2:])])
            sides = clipped[2:] - clipped[:2]
            if sides.min() >= 2 and sides.prod() >= 0.1 * (box[2:] - box[:2]).prod():
                moved.append(clipped)
    return out, np.array(moved).reshape(-1, 4)


def test_nine_tiles_equal_pillow():
    rng = np.random.default_rng(0)
    scene = make_scene(0, objects=2)
    images = np.asarray(scene.images)
    targets = jax.tree.map(lambda a: jnp.tile(a, (1, 9) + (1,) * (a.ndim - 2)) if a.ndim > 1 else a, scene.targets)
    targets = targets._replace(valid=targets.valid & (jnp.arange(9 * OBJECTS) < OBJECTS)[None])  # room for all of them
    cuts = np.stack([rng.uniform(0.2, 0.46, (BATCH, 2)), rng.uniform(0.54, 0.8, (BATCH, 2))], -1).astype(np.float32)
    sizes = rng.uniform(0.3, 0.6, (BATCH, 9)).astype(np.float32)
    source = (np.arange(BATCH)[:, None] + np.arange(9)) % BATCH

    def draw(images, targets):
        tiles = _lay_tiles(jnp.asarray(cuts), jnp.asarray(sizes), (HEIGHT, WIDTH))
        return _draw_tiles(images, tiles=tiles, pad=114, halved=True), _gather_objects(targets, tiles)

    got, got_targets = jax.jit(draw)(scene.images, targets)
    boxes = [np.asarray(scene.targets.boxes[b])[np.asarray(scene.targets.valid[b])].astype(float) for b in range(BATCH)]
    for b in range(BATCH):
        want, want_boxes = mosaic_by_pillow(images, boxes, source[b], cuts[b].astype(float), sizes[b].astype(float))
        difference = np.abs(np.asarray(got[b]).astype(int) - want)
        # Pillow cuts fractions off, and positions in 1/65536 of a pixel: a grey level or two on edges of 200.
        assert difference.max() <= 3 and (difference > 1).mean() < 0.01
        kept = np.asarray(got_targets.boxes[b])[np.asarray(got_targets.valid[b])]
        assert len(kept) == len(want_boxes) >= 3
        order = lambda a: a[np.lexsort(a.round(2).T)]  # noqa: E731
        np.testing.assert_allclose(order(kept), order(want_boxes), atol=1e-3)


def test_a_mosaic_of_nine_happens_as_told_and_is_of_even_input_images():
    scene = make_scene(objects=1)
    same, targets = jax.jit(mosaic9(0.0))(jax.random.key(0), *scene)
    np.testing.assert_array_equal(same, scene.images)
    np.testing.assert_array_equal(targets.valid, scene.targets.valid)
    images, targets = jax.jit(mosaic9(1.0))(jax.random.key(0), *scene)
    assert (np.asarray(images) != np.asarray(scene.images)).any((1, 2, 3)).all()
    assert int(targets.valid.sum()) >= BATCH
    with pytest.raises(ConfigError, match="even"):
        jax.eval_shape(mosaic9(1.0), jax.random.key(0), scene.images[:, :-1], scene.targets)


def test_mixup_is_one_blend_of_two_images_with_the_objects_of_both():
    scene = make_scene(1, objects=2)
    images = np.array(scene.images)
    images[:, -1, -4:] = 0
    for b in range(BATCH):
        images[b, -1, -4 + b] = 255  # one pixel of its own for each image, which tells partner and share
    got, targets = jax.jit(mixup(1.0, alpha=2.0))(jax.random.key(3), jnp.asarray(images), scene.targets)
    shares = []
    for b in range(BATCH):
        marks = np.asarray(got[b, -1, -4:, 0]).astype(float) / 255
        (partner,) = (i for i in range(BATCH) if i != b and marks[i] > 0)
        share = marks[b]
        shares.append(share)
        assert abs(marks.sum() - 1) <= 0.005
        want = share * images[b].astype(float) + (1 - share) * images[partner]
        assert np.abs(np.asarray(got[b]) - want).max() <= 1.1  # the share is known to half a grey level
        both = [np.asarray(scene.targets.boxes[i])[np.asarray(scene.targets.valid[i])] for i in (b, partner)]
        kept = np.asarray(targets.boxes[b])[np.asarray(targets.valid[b])]
        want_boxes = np.concatenate(both)
        np.testing.assert_array_equal(kept[np.lexsort(kept.T)], want_boxes[np.lexsort(want_boxes.T)])
        assert int(targets.dropped[b]) == b + partner  # what `make_scene` says was dropped before
    assert np.std(shares) > 0.02


def test_mixup_counts_what_does_not_fit_and_may_do_nothing():
    scene = make_scene(1, objects=OBJECTS)
    _, targets = jax.jit(mixup(1.0))(jax.random.key(0), *scene)
    assert (targets.valid.sum(1) == OBJECTS).all() and (targets.dropped >= OBJECTS).all()
    for alone in (jax.tree.map(lambda a: a[:1], scene), scene):
        blend = mixup(1.0 if len(alone.images) == 1 else 0.0)  # an image alone has nothing to be blended with
        images, targets = jax.jit(blend)(jax.random.key(0), *alone)
        np.testing.assert_array_equal(images, alone.images)
        jax.tree.map(np.testing.assert_array_equal, targets, alone.targets)
    with pytest.raises(ConfigError, match="alpha"):
        mixup(1.0, alpha=0.0)


def no_objects(batch):
    fields = ((4,), jnp.float32), ((), jnp.int32), ((), jnp.bool_), ((), jnp.bool_)
    rows = (jnp.zeros((batch, 1, *rest), kind) for rest, kind in fields)
    return Targets(*rows, jnp.zeros(batch, jnp.int32))


@pytest.mark.parametrize(("batch", "size"), [(1, 1), (6, 6), (8, 8), (16, 8), (18, 9), (22, 11), (13, 13), (64, 8)])
def test_groups_part_a_batch(batch, size):
    assert group_size(batch) == size


def test_images_meet_those_of_their_group_alone():
    """Of two groups of eight one is white and one black; but for grey seams, no colour enters the other."""
    images = jnp.repeat(jnp.array([255, 0], jnp.uint8), 8)[:, None, None, None] * jnp.ones((16, 16, 16, 3), jnp.uint8)
    none = no_objects(16)
    for mix in (mosaic(1.0, scale=(1.0, 1.0)), mosaic9(1.0, scale=(1.0, 1.0)), mixup(1.0)):
        mixed, _ = jax.jit(mix)(jax.random.key(0), images, none)
        assert (mixed[:8] >= 114).all() and (mixed[8:] <= 114).all() and (mixed == images).mean() > 0.5


@pytest.mark.parametrize("mix", [mosaic(1.0), mosaic9(1.0), mixup(1.0)], ids=["mosaic", "mosaic9", "mixup"])
def test_no_pixels_move_between_devices(mix):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
    images = jnp.zeros((16, 16, 16, 3), jnp.uint8)
    none = no_objects(16)
    program = jax.jit(mix, in_shardings=(whole, split, split), out_shardings=split)
    text = program.lower(jax.random.key(0), images, none).compile().as_text()
    kinds = "all-gather", "all-to-all", "collective-permute", "all-reduce"
    assert not [line for line in text.splitlines() if "u8[" in line and any(f" {kind}" in line for kind in kinds)]
