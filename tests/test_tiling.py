"""Tiles: where they lie, which boxes a seam cuts, and what a photo's tiles give together."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.four_colours import finder, scene
from yolojax.errors import ConfigError
from yolojax.inference.predict import Predictor, as_rgb
from yolojax.inference.tiled import TiledPredictor
from yolojax.nms import soft_nms_gaussian
from yolojax.tiling import Tiling, check_tiling, cut_by_seam, join_seams, tile_boxes

sides = st.integers(1, 400)


@given(sides, sides, st.integers(32, 160), st.floats(0, 0.9))
def test_tiles_are_equal_cover_the_photo_and_overlap_by_their_share(height, width, size, overlap):
    tiles = tile_boxes((height, width), Tiling(size, overlap))
    assert len({(x2 - x1, y2 - y1) for x1, y1, x2, y2 in tiles.tolist()}) == 1
    assert (tiles[:, 2:] - tiles[:, :2]).max() <= size
    for axis, side in ((0, width), (1, height)):
        starts, ends = np.unique(tiles[:, axis]), np.unique(tiles[:, axis + 2])
        assert starts[0] == 0 and ends[-1] == side
        # A tile begins and ends on whole pixels, so that neighbours may share half a pixel less.
        assert ((ends[:-1] - starts[1:]) >= overlap * size - 0.5).all()
        # One tile fewer would leave a part out, or overlap less.
        if len(starts) > 1:
            assert (len(starts) - 2) * max(1, int(size * (1 - overlap))) < side - size


def test_a_photo_that_fits_is_one_tile():
    assert tile_boxes((640, 640), Tiling(640)).tolist() == [[0, 0, 640, 640]]
    assert tile_boxes((100, 200), Tiling(640)).tolist() == [[0, 0, 200, 100]]
    assert tile_boxes((100, 1000), Tiling(640, 0.2)).tolist() == [[0, 0, 640, 100], [360, 0, 1000, 100]]


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (Tiling(31), "tile size = 31"),
        (Tiling(10**20), "give at most 1,000,000 pixels"),
        (Tiling(64, -0.1), "tile overlap = -0.1"),
        (Tiling(64, 0.95), "0.95: give a share"),
    ],
)
def test_what_cannot_be_cut(tiling, message):
    with pytest.raises(ConfigError, match=message):
        check_tiling(tiling)


def test_a_box_is_cut_where_it_lies_against_a_side_that_is_not_the_photos():
    tile = np.array([0, 100, 200, 300])  # at the left side of the photo, with seams above, below and to the right
    boxes = np.array(
        [
            [50, 150, 90, 190],  # inside
            [0, 150, 40, 190],  # against the photo's own side
            [150, 150, 199.5, 190],
            [50, 101, 90, 190],
            [50, 250, 90, 300],
            [50, 250, 90, 297],  # three pixels away: a share of .015
        ],
        np.float32,
    )
    assert cut_by_seam(boxes, tile, (400, 400)).tolist() == [False, False, True, True, True, False]
    assert cut_by_seam(boxes, tile, (300, 200)).tolist() == [False, False, False, True, False, False]


def reference(boxes, scores, classes, tiles, cut):
    """The rule of the module, pair by pair in float64."""
    alive = [True] * len(boxes)
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if not (alive[i] and alive[j] and (cut[i] or cut[j]) and tiles[i] != tiles[j] and classes[i] == classes[j]):
                continue
            (a1, b1, a2, b2), (c1, d1, c2, d2) = (boxes[k].astype(np.float64) for k in (i, j))
            inner = max(0, min(a2, c2) - max(a1, c1)) * max(0, min(b2, d2) - max(b1, d1))
            if inner > 0.5 * min((a2 - a1) * (b2 - b1), (c2 - c1) * (d2 - d1)):
                alive[j] = False
    return alive


@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_seams_are_joined_by_the_rule(seed, n):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 40, (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 30, (n, 2))], 1).astype(np.float32)
    scores = rng.integers(0, 8, n).astype(np.float32) / 8  # with equal ones
    columns = boxes, scores, rng.integers(0, 2, n), rng.integers(0, 3, n), rng.random(n) < 0.4
    assert join_seams(*columns).tolist() == reference(*columns)


BOXES = [(3, 4, 9, 12), (58, 20, 66, 27), (100, 61, 108, 67), (119, 90, 127, 94)]
"""Objects of which two lie across the seams of tiles of 64 pixels that overlap by 16."""


@pytest.mark.parametrize("suppress", [None, partial(soft_nms_gaussian, sigma=0.5)])
def test_every_object_of_a_large_photo_is_found_once(suppress):
    predictor = TiledPredictor(Predictor(finder(), {}, batch_size=4, suppress=suppress), Tiling(64, 0.25))
    image = scene(112, 160, BOXES)
    assert len(tile_boxes((112, 160), predictor.tiling)) == 6
    small, bad = scene(64, 64, BOXES[:1]), "missing.jpg"
    found = list(predictor.each([image, small, bad, image], as_rgb))
    results = [result for _, result in found]
    assert [item is given for (item, _), given in zip(found, [image, small, bad, image], strict=True)] == [True] * 4
    assert "no such file" in str(results[2])
    for result in (results[0], results[3]):
        assert result.image is image and result.size == (112, 160)
        assert sorted(map(tuple, result.boxes.astype(int).tolist())) == sorted(BOXES)
        assert (np.diff(result.scores) <= 0).all()
    assert results[1].boxes.astype(int).tolist() == [list(BOXES[0])]
    alone = predictor(image)
    np.testing.assert_array_equal(alone.boxes, results[0].boxes)
