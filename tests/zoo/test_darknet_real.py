"""Published weights against what OpenCV computes from them; parts of `experiments/darknet_parity`."""

import pytest

from experiments.darknet_parity.study import MODELS, average_precision, compare_photos


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=pytest.mark.slow if model.endswith("-xl") else []) for model in MODELS]
)
def test_maps_and_detections_on_photographs_equal_opencvs(test_data, model):
    """Maps within 1e-3, every detection with its class, scores within 1e-3, boxes within a pixel."""
    worst = compare_photos(test_data, model)
    assert worst["pixels"] == 0 and worst["unmatched"] == 0 and worst["detections"] >= 14
    assert worst["map"] < 1e-3 and worst["score"] < 1e-3 and worst["box"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_average_precision_on_coco_images_is_opencvs(test_data, model):
    found = average_precision(test_data, model)
    assert abs(found["AP"] - found["peer_AP"]) < 0.001
