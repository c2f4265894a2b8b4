"""The generated data set: exact boxes, limited occlusion, and images that depend on seed and index alone."""

import numpy as np
import pytest

from yolojax.data import list_splits, open_dataset, shapes_dataset
from yolojax.data import shapes as module
from yolojax.errors import DataError


@pytest.fixture(scope="module")
def many():
    return shapes_dataset(150, seed=3)


def test_an_image_depends_on_seed_split_and_index_alone(many):
    later = shapes_dataset(2, seed=3, start=7)
    for a, b in zip(many.records[7:9], later.records, strict=True):
        np.testing.assert_array_equal(a.source, b.source)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert (a.image_id, a.file_name) == (b.image_id, b.file_name)
    assert many.take([7, 8]).fingerprint() == later.fingerprint()
    others = [shapes_dataset(2, seed=4, start=7), shapes_dataset(2, seed=3, start=7, split="val")]
    for other in others:
        assert not np.array_equal(other.records[0].source, later.records[0].source)
        assert other.fingerprint() != later.fingerprint()


def test_the_set_is_varied(many):
    counts = np.array([len(r.boxes) for r in many.records])
    assert 0.03 < (counts == 0).mean() < 0.2 and counts.max() == module.MOST_OBJECTS
    classes = np.bincount(np.concatenate([r.classes for r in many.records]), minlength=6)
    assert classes.min() > 0.5 * classes.mean()
    boxes = np.concatenate([r.boxes for r in many.records])
    extent = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) / 160
    assert extent.max() < module.SIZES[1] * 1.05
    assert np.quantile(extent, 0.9) > 2 * np.quantile(extent, 0.1)


def test_boxes_lie_inside_the_image_on_quarter_pixels(many):
    for record in many.records:
        assert (record.boxes >= 0).all() and (record.boxes <= 160).all()
        np.testing.assert_array_equal(record.boxes * 4, np.round(record.boxes * 4))
        assert record.source.shape == (160, 160, 3) and record.source.dtype == np.uint8


def test_a_box_is_the_extent_of_the_pixels_that_its_figure_changes(monkeypatch):
    """The topmost figure is wholly visible, so the pixels that painting it changes show its box by another route."""
    changes = []
    paint = module._paint

    def watched(rng, picture, figure):
        before = picture.copy()
        paint(rng, picture, figure)
        changes.append(np.any(picture != before, 2))

    monkeypatch.setattr(module, "_paint", watched)
    seen = 0
    for i in range(40):
        changes.clear()
        _, boxes, _ = module.draw_shapes(np.random.default_rng(i), (96, 128))
        if not len(boxes):
            continue
        ys, xs = np.nonzero(changes[-1])
        x1, y1, x2, y2 = boxes[-1]
        assert (xs.min(), ys.min()) == (np.floor(x1), np.floor(y1))
        assert (xs.max() + 1, ys.max() + 1) == (np.ceil(x2), np.ceil(y2))
        seen += 1
    assert seen > 25


@pytest.mark.parametrize(("most", "visible", "count"), [(module.MOST_OBJECTS, module.MIN_VISIBLE, 30), (24, 0.4, 8)])
def test_at_least_the_stated_share_of_every_figure_stays_visible(most, visible, count):
    """Counted by painting the masks anew, on a grid with a border wide enough for what the image cuts off."""
    border = 400
    for i in range(count):
        figures, _ = module._place_figures(np.random.default_rng(i), (96, 96), most, visible)
        owners = np.full((4 * 96 + 2 * border, 4 * 96 + 2 * border), -1)
        for k, f in enumerate(figures):
            h, w = f.mask.shape
            part = owners[border + f.top : border + f.top + h, border + f.left : border + f.left + w]
            part[f.mask] = k
        inner = owners[border:-border, border:-border]
        for k, f in enumerate(figures):
            assert (inner == k).sum() >= visible * f.mask.sum()


@pytest.mark.parametrize("name", module.CLASS_NAMES)
def test_outlines_have_the_areas_worked_by_hand(name):
    """By the shoelace formula, and inside the unit square; the hole of a ring lies inside it."""
    expected = {"cross": 2 * 0.6 * 2 - 0.36, "rectangle": 1.7**2, "triangle": 3 * np.sqrt(3) / 4}
    expected |= {"ellipse": 24 * np.sin(2 * np.pi / 48), "star": 10 * 0.5 * 0.42 * np.sin(np.pi / 5)}
    expected["ring"] = expected["ellipse"]
    outlines = module._outlines(name)
    x, y = outlines[0].T
    assert np.abs(outlines[0]).max() <= 1 + 1e-9
    area = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    assert area == pytest.approx(expected[name])
    if name == "ring":
        assert np.hypot(*outlines[1].T) == pytest.approx(0.52)


def test_the_address_of_the_command_line():
    data = open_dataset("shapes:val?count=3&seed=2&size=64x96&start=5")
    assert data.fingerprint() == shapes_dataset(3, 2, (64, 96), split="val", start=5).fingerprint()
    assert open_dataset("shapes:?count=2", "test").split == "test"
    assert open_dataset("shapes?count=1&size=32").records[0].size == (32, 32)
    assert list_splits("shapes") == ("train", "val", "test")


def test_classes_in_another_order():
    plain = open_dataset("shapes?count=6")
    order = ("triangle", "dog", *plain.class_names[:-1])
    turned = open_dataset("shapes?count=6", class_names=order)
    for a, b in zip(plain.records, turned.records, strict=True):
        assert [plain.class_names[c] for c in a.classes] == [order[c] for c in b.classes]
    with pytest.raises(DataError, match="unknown class 'triangle'"):
        open_dataset("shapes?count=1", class_names=plain.class_names[:-1])


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("shapes:foo", "no split 'foo'"),
        ("shapes:train?cuont=3", "unknown key cuont"),
        ("shapes:train?count=x", "whole numbers"),
        ("shapes?count", "whole numbers"),
        ("shapes?size=64x64x3", "32 x 32"),
        ("shapes?count=0", "at least 1 image"),
        ("shapes?seed=-1", "at least 0"),
    ],
)
def test_a_wrong_address_is_refused(address, says):
    with pytest.raises(DataError, match=says):
        open_dataset(address)


def test_crowded_scenes_by_address():
    crowded = open_dataset("shapes:val?count=12&size=96&objects=24&visible=.4")
    counts = [len(r.boxes) for r in crowded.records]
    assert max(counts) > 12 and max(counts) <= 24
    for address in ("shapes:?objects=0", "shapes:?objects=101", "shapes:?visible=0", "shapes:?visible=1.5"):
        with pytest.raises(DataError, match="give 1 to 100 objects"):
            open_dataset(address)
    with pytest.raises(DataError, match=r"\(visible, smallest and largest: shares\)"):
        open_dataset("shapes:?visible=some")
