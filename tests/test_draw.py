"""Pictures: outlines lie on the pixels of their boxes, labels stay inside, and nothing odd in the input breaks them."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageDraw

from yolojax import draw
from yolojax.draw import Objects, caption, class_colour, compare, contact_sheet, draw_boxes, enlarge
from yolojax.errors import ConfigError

NAMES = ("cat", "a class with a rather long name", "dog")


def grey(h, w):
    return np.full((h, w, 3), 90, np.uint8)


def objects(boxes, classes=None, scores=None, crowd=None):
    n = len(boxes)
    return Objects(
        np.array(boxes, np.float32).reshape(n, 4),
        np.array([0] * n if classes is None else classes, np.int64),
        None if scores is None else np.array(scores, np.float32),
        None if crowd is None else np.array(crowd, bool),
    )


def is_colour(image, index):
    return (image == np.array(class_colour(index), np.uint8)).all(2)


@pytest.fixture
def labels(monkeypatch):
    """Every label written, as (text, its rectangle, whether the text itself lies in it)."""
    written = []
    text = ImageDraw.ImageDraw.text
    rectangle = ImageDraw.ImageDraw.rectangle
    last = []

    def spy_rectangle(self, xy, *args, **kwargs):
        last[:] = [tuple(xy)]
        return rectangle(self, xy, *args, **kwargs)

    def spy_text(self, xy, what, *args, **kwargs):
        x1, y1, x2, y2 = self.textbbox(xy, what, font=kwargs["font"])
        left, top, right, bottom = last[0]
        written.append((what, last[0], left <= x1 and top <= y1 and x2 <= right + 1 and y2 <= bottom + 1))
        return text(self, xy, what, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy_text)
    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", spy_rectangle)
    return written


def test_an_outline_lies_on_the_outermost_pixels_of_its_box():
    image = grey(60, 80)
    drawn = draw_boxes(image, objects([[10, 30, 50, 55]]), ("x" * 99,))  # a label that never fits
    expected = np.zeros((60, 80), bool)
    expected[30:55, 10:50] = True
    expected[31:54, 11:49] = False
    np.testing.assert_array_equal(is_colour(drawn, 0), expected)
    np.testing.assert_array_equal(drawn[~expected], image[~expected])
    assert (image == 90).all()


def test_no_objects_leave_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    np.testing.assert_array_equal(draw_boxes(image, objects([]), NAMES), image)


def test_crowd_regions_are_dashed():
    solid = is_colour(draw_boxes(grey(100, 100), objects([[5, 5, 90, 90]]), ("x" * 99,)), 0)
    dashed = is_colour(draw_boxes(grey(100, 100), objects([[5, 5, 90, 90]], crowd=[True]), ("x" * 99,)), 0)
    assert not (dashed & ~solid).any()
    assert 0.4 < dashed.sum() / solid.sum() < 0.7
    assert dashed[5].any() and dashed[89].any() and dashed[:, 5].any() and dashed[:, 89].any()


def test_a_box_that_is_not_finite_is_not_drawn():
    good, bad = [5, 20, 40, 50], [np.nan, 0, 9, 9]
    both = draw_boxes(grey(60, 60), objects([good, bad, [0, 0, np.inf, 9]], [0, 1, 1], [0.5, 0.9, 0.9]), NAMES)
    np.testing.assert_array_equal(both, draw_boxes(grey(60, 60), objects([good], [0], [0.5]), NAMES))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(1, 1), (3, 40), (24, 24), (120, 200)]),
    st.lists(st.tuples(*[st.floats(-300, 300, width=32)] * 4, st.integers(0, 5), st.floats(0, 1)), max_size=6),
)
def test_any_boxes_can_be_drawn_on_any_image(size, rows):
    given_objects = objects([r[:4] for r in rows], [r[4] for r in rows], [r[5] for r in rows])
    drawn = draw_boxes(grey(*size), given_objects, NAMES)
    assert drawn.shape == (*size, 3) and drawn.dtype == np.uint8
    if rows:
        assert (drawn != 90).any()


def test_labels_stay_inside_the_image(labels):
    corners = [[0, 0, 9, 9], [190, 0, 200, 9], [0, 110, 9, 120], [190, 110, 200, 120], [-50, -50, 400, 400]]
    draw_boxes(grey(120, 200), objects(corners, [0, 2, 0, 2, 1], [0.1, 0.2, 0.3, 0.4, 0.5]), NAMES)
    assert [text for text, _, _ in labels] == [
        "a class with a rather long name 0.50",
        "dog 0.40",
        "cat 0.30",
        "dog 0.20",
        "cat 0.10",
    ]
    for _, (x1, y1, x2, y2), text_inside in labels:
        assert x1 >= 0 and y1 >= 0 and x2 < 200 and y2 < 120 and text_inside


def test_labels_avoid_each_other_where_there_is_room(labels):
    draw_boxes(grey(200, 300), objects([[50, 80, 200, 150]] * 3, [0, 1, 2]), NAMES)
    assert len(labels) == 3
    for i in range(3):
        for j in range(i):
            a, b = labels[i][1], labels[j][1]
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_what_does_not_fit_is_shortened_and_then_left_out(labels):
    draw_boxes(grey(40, 40), objects([[1, 1, 30, 30]], [0], [0.123]), ("cat",))
    draw_boxes(grey(8, 8), objects([[1, 1, 7, 7]], [0], [0.123]), ("cat",))
    assert [text for text, _, _ in labels] == ["cat"]


def test_a_class_without_a_name_is_shown_as_its_number(labels):
    draw_boxes(grey(99, 99), objects([[9, 30, 90, 90]], [7]), NAMES)
    assert [text for text, _, _ in labels] == ["7"]


def test_class_colours_are_distinct_and_cycle():
    colours = np.array([class_colour(i) for i in range(80)], int)
    apart = np.abs(colours[:, None] - colours[None]).sum(2) + 1000 * np.eye(80, dtype=int)
    assert apart[:10, :10].min() >= 100 and apart[:30, :30].min() >= 40 and apart.min() >= 20
    assert class_colour(0) == class_colour(len(draw._colours()))


def test_enlarging_keeps_boxes_on_their_pixels():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    large, moved = enlarge(image, objects([[3, 4, 10, 11]]), 50)
    assert large.shape == (60, 90, 3)
    np.testing.assert_array_equal(moved.boxes, [[9, 12, 30, 33]])
    np.testing.assert_array_equal(large[12:33:3, 9:30:3], image[4:11, 3:10])
    same, kept = enlarge(image, objects([[3, 4, 10, 11]]), 20)
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(kept.boxes, [[3, 4, 10, 11]])


def test_a_sheet_holds_every_image_in_its_place():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, (h, w, 3), np.uint8) for h, w in ((4, 6), (8, 4), (2, 2))]
    sheet = contact_sheet(images, 2, gap=1)
    assert sheet.shape == (1 + 8 + 1 + 2 + 1, 1 + 6 + 1 + 6 + 1, 3)
    np.testing.assert_array_equal(sheet[3:7, 1:7], images[0])
    np.testing.assert_array_equal(sheet[1:9, 9:13], images[1])
    np.testing.assert_array_equal(sheet[10:12, 3:5], images[2])
    assert (sheet == 255).all(2).sum() == sheet[:, :, 0].size - 24 - 32 - 4
    for arguments in (([], 2), (images, 0)):
        with pytest.raises(ConfigError, match="at least one of both"):
            contact_sheet(*arguments)


def test_ground_truth_lies_beside_prediction(labels):
    image = grey(120, 160)
    picture = compare(image, objects([[9, 40, 60, 90]]), objects([[80, 40, 150, 90]], [2], [0.5]), NAMES)
    assert [text for text, _, _ in labels] == ["cat", "ground truth: 1", "dog 0.50", "predicted: 1"]
    left, right = picture[:, : picture.shape[1] // 2], picture[:, picture.shape[1] // 2 :]
    assert is_colour(left, 0).any() and not is_colour(left, 2).any()
    assert is_colour(right, 2).any() and not is_colour(right, 0).any()


def test_a_caption_is_cut_to_the_image():
    image = grey(30, 60)
    titled = caption(image, "far too long for sixty pixels")
    assert titled.shape[1:] == (60, 3)
    np.testing.assert_array_equal(titled[-30:], image)
    assert (titled[:-30] < 128).any()


def test_thousands_of_boxes_and_names_without_end_are_drawn_in_time(labels):
    """Pictures of 5000 boxes took minutes when each label was compared with all others one by one."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (5000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 60, (5000, 2))], 1)
    start = time.process_time()
    draw_boxes(grey(600, 600), objects(boxes), NAMES)
    assert len(labels) == 1000
    draw_boxes(grey(600, 600), objects(boxes[:50]), ("x" * 10**6,))
    caption(grey(60, 600), "y" * 10**6)
    assert time.process_time() - start < 10  # 2 seconds; before, above 100


def test_of_too_many_boxes_the_best_are_drawn():
    boxes = np.tile([10.0, 10, 20, 20], (20_001, 1))
    boxes[0] = [40, 40, 50, 50]
    scores = np.ones(len(boxes))
    scores[0] = 0.1
    picture = draw_boxes(grey(60, 60), objects(boxes, scores=scores), ("",))
    assert (picture[40:50, 40:50] == 90).all() and not (picture[10:20, 10:20] == 90).all()
