"""The confusion matrix adds up: rows to objects, columns to detections, the diagonal to true positives."""

import numpy as np
import pytest

from yolojax.eval.coco import evaluate_coco
from yolojax.eval.confusion import confusion_matrix
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.matching import match_detections


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("confidence", [0.0, 0.25, 0.7])
def test_sums(make_case, seed: int, confidence: float) -> None:
    raw_truth, raw_found = make_case(seed, crowd=0.2)
    truth = read_ground_truth(raw_truth)
    found = read_detections(raw_found, truth)
    matrix = confusion_matrix(truth, found, confidence=confidence)
    objects = np.bincount(truth.categories[~truth.crowd], minlength=3)
    np.testing.assert_array_equal(matrix.counts[:3].sum(axis=1), objects)
    counted = (found.scores >= confidence) & ~match_detections(truth, found).ignored
    np.testing.assert_array_equal(matrix.counts[:, :3].sum(axis=0), np.bincount(found.categories[counted], minlength=3))
    assert matrix.counts[3, 3] == 0
    result = evaluate_coco(raw_truth, raw_found, confidence=confidence)
    assert np.diag(matrix.counts)[:3].tolist() == [k.at_confidence.true_positives for k in result.classes]


def test_by_hand() -> None:
    """One right, one of another class, one on background, one missed, one in a crowd, one below the threshold."""
    truth = read_ground_truth(
        {
            "images": [{"id": 1}, {"id": 2}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
                {"image_id": 1, "category_id": 2, "bbox": [50, 0, 10, 10]},
                {"image_id": 1, "category_id": 2, "bbox": [100, 0, 10, 10]},
                {"image_id": 1, "category_id": 1, "bbox": [200, 0, 100, 100], "iscrowd": 1},
            ],
        }
    )

    def found(category: int, x: float, score: float, image: int = 1) -> dict:
        return {"image_id": image, "category_id": category, "bbox": [x, 0, 10, 10], "score": score}

    rows = [
        found(1, 0, 0.9),
        found(1, 50, 0.8),
        found(1, 0, 0.7, image=2),
        found(1, 220, 0.6),
        found(2, 100, 0.2),
    ]
    matrix = confusion_matrix(truth, read_detections(rows, truth))
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert matrix.shares() == {("dog", "cat"): 0.5}


def test_the_right_class_comes_first_even_with_a_lower_score() -> None:
    truth = read_ground_truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]}],
        }
    )
    rows = [{"image_id": 1, "category_id": c, "bbox": [0, 0, 10, 10], "score": s} for c, s in ((2, 0.9), (1, 0.5))]
    assert confusion_matrix(truth, read_detections(rows, truth)).counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_empty() -> None:
    truth = read_ground_truth({"images": [{"id": 1}], "categories": [{"id": 1, "name": "cat"}], "annotations": []})
    assert confusion_matrix(truth, read_detections([], truth)).counts.tolist() == [[0, 0], [0, 0]]
