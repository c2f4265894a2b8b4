"""A data set cut into tiles: boxes clipped to their tile, pieces as crowd regions, pixels of the image itself."""

import numpy as np
import pytest

from yolojax.data import Dataset, shapes_dataset
from yolojax.data.tiles import tile_dataset
from yolojax.errors import ConfigError
from yolojax.tiling import Tiling

TILES = [(0, 0, 64, 64), (48, 0, 112, 64), (96, 0, 160, 64)]


def one_image(boxes, crowd=None):
    image = np.random.default_rng(0).integers(0, 256, (64, 160, 3), np.uint8)
    crowd = None if crowd is None else [crowd]
    return Dataset.from_arrays(
        [image], [boxes], [["cat"] * len(boxes)], ("cat", "dog"), names=["in/a.png"], crowd=crowd
    )


def test_boxes_are_clipped_and_pieces_become_crowd_regions():
    data = one_image([[10, 10, 20, 30], [40, 10, 80, 20], [56, 40, 66, 50], [95, 0, 97, 40]])
    tiles = tile_dataset(data, Tiling(64, 0.25), visible=0.5)
    assert [r.file_name for r in tiles.records] == ["in/a_0_0.png", "in/a_48_0.png", "in/a_96_0.png"]
    assert [r.image_id for r in tiles.records] == [1, 2, 3] and {r.size for r in tiles.records} == {(64, 64)}
    first, second, third = tiles.records
    # 24 of 40 pixels of the second object, 8 of 10 of the third; nothing of the fourth.
    assert first.boxes.tolist() == [[10, 10, 20, 30], [40, 10, 64, 20], [56, 40, 64, 50]] and not first.crowd.any()
    # 32 of 40 pixels, all of the third, and all of the fourth, which is two pixels wide.
    assert second.boxes.tolist() == [[0, 10, 32, 20], [8, 40, 18, 50], [47, 0, 49, 40]] and not second.crowd.any()
    # One pixel of two is on the last tile: a sliver.
    assert third.boxes.shape == (0, 4)
    np.testing.assert_allclose(first.areas, [200, 240, 80])
    assert np.concatenate([r.annotation_ids for r in tiles.records]).tolist() == [1, 2, 3, 4, 5, 6]
    assert [f.detail for f in tiles.summary.of("note")] == [
        "1 pieces of objects are narrower than 2 pixels and were left out"
    ]
    pieces = tile_dataset(data, Tiling(64, 0.25), visible=0.7).records
    assert pieces[0].crowd.tolist() == [False, True, False] and not pieces[1].crowd.any()


def test_the_pixels_are_those_of_the_image():
    data = one_image([[10, 10, 20, 30]])
    whole = data.records[0].pixels()
    for record, (x1, y1, x2, y2) in zip(tile_dataset(data, Tiling(64, 0.25)).records, TILES, strict=True):
        np.testing.assert_array_equal(record.pixels(), whole[y1:y2, x1:x2])
    with_whole = tile_dataset(data, Tiling(64, 0.25, whole=True)).records
    assert len(with_whole) == 4 and with_whole[3].file_name == "in/a.png"
    np.testing.assert_array_equal(with_whole[3].pixels(), whole)
    assert len(tile_dataset(data, Tiling(64, 0.25), backgrounds=False)) == 1


def test_crowd_regions_stay_crowd_regions():
    tiles = tile_dataset(one_image([[10, 10, 100, 30]], crowd=[True]), Tiling(64, 0.25), visible=1.0)
    assert [r.crowd.tolist() for r in tiles.records] == [[True], [True], [True]]
    assert not tiles.summary.findings


def test_every_object_is_whole_on_a_tile_when_the_overlap_holds_it():
    scene = shapes_dataset(3, seed=1, size=(96, 256), objects=12)  # figures of at most 48 pixels and their aspect
    tiles = tile_dataset(scene, Tiling(160, 0.6), visible=1.0)
    assert len(tiles) > len(scene) and tiles.object_count >= scene.object_count
    for record in scene.records:
        stem = record.file_name.removesuffix(".png")
        found = set()
        for tile in tiles.records:
            if tile.file_name.startswith(stem):
                x, y = (int(part) for part in tile.file_name.removesuffix(".png").split("_")[-2:])
                found |= {tuple(box) for box in (tile.boxes[~tile.crowd] + np.array([x, y, x, y], np.float32)).tolist()}
        assert {tuple(box) for box in record.boxes.tolist()} <= found


@pytest.mark.parametrize("visible", [0.0, 1.1])
def test_a_share_out_of_range(visible):
    with pytest.raises(ConfigError, match="visible = "):
        tile_dataset(one_image([]), Tiling(64), visible=visible)


def test_no_object_at_all():
    with pytest.raises(ConfigError, match="no tile shows an object"):
        tile_dataset(one_image([]), Tiling(64), backgrounds=False)
