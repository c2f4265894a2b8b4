"""The input image geometry against hand-worked placements, exact rational arithmetic and its own inverse."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.errors import ConfigError
from yolojax.geometry import Placement, Preprocess, batch_to_original, place_on_input, to_input

LETTERBOX, TOPLEFT, STRETCH = Preprocess(), Preprocess(align="topleft"), Preprocess(resize="stretch")

sides = st.integers(1, 5000)


def to_original(boxes, size, placement, clip=True):
    """The inverse of one image, transcribed: subtract the corner, divide by the ratio of the rounded sides.

    Of a clipped box whose sides are crossed, the left and the top one count.
    """
    left, top, right, bottom = placement.content
    scale = np.array([(right - left) / size[1], (bottom - top) / size[0]] * 2)
    out = (boxes.astype(np.float64) - [left, top, left, top]) / scale
    if clip:
        inside = np.clip(out, 0, [size[1], size[0]] * 2)
        out = np.array([[x1, y1, max(x1, x2), max(y1, y2)] for x1, y1, x2, y2 in inside])
    return out.astype(np.float32)


def back_to_original(boxes, size, placement, **clip):
    return batch_to_original(boxes[None], np.array([placement.content]), np.array([size]), **clip)[0]


preprocesses = st.sampled_from([LETTERBOX, TOPLEFT, STRETCH])
input_images = st.sampled_from([(320, 320), (640, 640), (384, 640), (416, 160)])


@pytest.mark.parametrize(
    ("size", "input_size", "preprocess", "expected"),
    [
        ((480, 640), (640, 640), LETTERBOX, Placement(480, 640, 80, 0)),
        ((480, 640), (320, 320), LETTERBOX, Placement(240, 320, 40, 0)),
        ((640, 480), (320, 320), TOPLEFT, Placement(320, 240, 0, 0)),
        ((375, 500), (416, 416), LETTERBOX, Placement(312, 416, 52, 0)),
        ((100, 50), (640, 640), LETTERBOX, Placement(640, 320, 0, 160)),
        ((333, 500), (640, 640), LETTERBOX, Placement(426, 640, 107, 0)),
        ((1, 5000), (320, 320), LETTERBOX, Placement(1, 320, 159, 0)),
        ((123, 457), (320, 416), STRETCH, Placement(320, 416, 0, 0)),
        ((320, 320), (320, 320), LETTERBOX, Placement(320, 320, 0, 0)),
    ],
)
def test_placements_worked_by_hand(size, input_size, preprocess, expected):
    assert place_on_input(size, input_size, preprocess) == expected


@settings(max_examples=50, deadline=None)
@given(sides, sides, input_images, st.sampled_from([LETTERBOX, TOPLEFT]))
def test_a_letterboxed_photo_fits_and_keeps_its_aspect_ratio_to_the_nearest_pixel(h, w, input_size, preprocess):
    placement = place_on_input((h, w), input_size, preprocess)
    x1, y1, x2, y2 = placement.content
    assert 0 <= x1 < x2 <= input_size[1] and 0 <= y1 < y2 <= input_size[0]
    assert placement.height == input_size[0] or placement.width == input_size[1]
    ratio = min(Fraction(input_size[0], h), Fraction(input_size[1], w))
    for got, side in ((placement.height, h), (placement.width, w)):
        assert abs(got - side * ratio) <= Fraction(1, 2) + Fraction(1, 10**9) or got == 1


@settings(max_examples=50, deadline=None)
@given(sides, sides, input_images, preprocesses, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_the_inverse_inverts_to_input(h, w, input_size, preprocess, corners):
    size, placement = (h, w), place_on_input((h, w), input_size, preprocess)
    (x1, x2), (y1, y2) = sorted(corners[:2]), sorted(corners[2:])
    boxes = (np.array([[x1, y1, x2, y2]]) * [w, h, w, h]).astype(np.float32)
    on_input = to_input(boxes, size, placement)
    back = back_to_original(on_input, size, placement)
    # Only the rounding of input image coordinates to float32 remains, enlarged by the inverse scale.
    scale = np.array([w / placement.width, h / placement.height] * 2)
    tolerance = np.spacing(np.float32(max(input_size))) * scale + np.spacing(np.float32(max(h, w)))
    assert np.all(np.abs(back.astype(np.float64) - boxes) <= tolerance)


@settings(max_examples=50, deadline=None)
@given(sides, sides, input_images, preprocesses)
def test_the_whole_photo_maps_to_its_content_box(h, w, input_size, preprocess):
    placement = place_on_input((h, w), input_size, preprocess)
    whole = to_input(np.array([[0, 0, w, h]], np.float32), (h, w), placement)
    np.testing.assert_array_equal(whole[0], np.array(placement.content, np.float32))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=4), preprocesses, st.integers(0, 100), st.booleans())
def test_a_batch_is_its_images_one_by_one(sizes, preprocess, seed, clip):
    placements = [place_on_input(size, (320, 416), preprocess) for size in sizes]
    boxes = np.random.default_rng(seed).uniform(-50, 450, (len(sizes), 5, 4)).astype(np.float32)
    content = np.array([p.content for p in placements], np.float32)
    got = batch_to_original(boxes, content, np.array(sizes, np.int32), clip=clip)
    for row, b, size, placement in zip(got, boxes, sizes, placements, strict=True):
        np.testing.assert_array_equal(row, to_original(b, size, placement, clip=clip))


def test_clipping_is_a_choice():
    placement = place_on_input((480, 640), (320, 320), LETTERBOX)
    outside = np.array([[-10.0, 0.0, 400.0, 320.0]], np.float32)
    np.testing.assert_array_equal(back_to_original(outside, (480, 640), placement), [[0, 0, 640, 480]])
    np.testing.assert_array_equal(back_to_original(outside, (480, 640), placement, clip=False), [[-20, -80, 800, 560]])


def test_no_boxes_map_to_no_boxes():
    placement = place_on_input((480, 640), (320, 320), LETTERBOX)
    empty = np.zeros((0, 4), np.float32)
    assert to_input(empty, (480, 640), placement).shape == (0, 4)
    assert back_to_original(empty, (480, 640), placement).shape == (0, 4)


@pytest.mark.parametrize(("size", "input_size"), [((0, 10), (32, 32)), ((10, 10), (32, 0))])
def test_an_empty_image_or_input_is_refused(size, input_size):
    with pytest.raises(ConfigError, match="at least one pixel"):
        place_on_input(size, input_size, LETTERBOX)
