"""The bilinear filter against OpenCV's, value by value."""

from pathlib import Path

import numpy as np
import pytest

from tests.darknet_cases import RESIZED_FROM, RESIZED_TO, random_image
from yolojax.data import make_input_image
from yolojax.data.images import resize_bilinear
from yolojax.geometry import Preprocess

GOLDEN = Path(__file__).parent.parent / "goldens" / "darknet_opencv.npz"


@pytest.mark.parametrize("size", RESIZED_TO)
def test_every_value_is_opencvs(size):
    """Shrunk and enlarged, along one side, to a single pixel."""
    photo = (random_image(RESIZED_FROM, 9) * 255).round().astype(np.uint8)
    theirs = np.load(GOLDEN)[f"resized/{size[0]}x{size[1]}"]
    np.testing.assert_array_equal(resize_bilinear(photo, size), theirs)


def test_detectors_choose_the_filter():
    photo = (random_image(RESIZED_FROM, 9) * 255).round().astype(np.uint8)
    smooth, _ = make_input_image(photo, (10, 64), Preprocess("stretch"))
    sharp, _ = make_input_image(photo, (10, 64), Preprocess("stretch", filter="bilinear"))
    np.testing.assert_array_equal(sharp, np.load(GOLDEN)["resized/10x64"])
    assert np.abs(sharp.astype(int) - smooth).max() > 10
