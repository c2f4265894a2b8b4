"""The twelve numbers are pycocotools' own, on published results and on generated ones."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from yolojax.errors import ConfigError
from yolojax.eval import precision_tables
from yolojax.eval.coco import COCO_CAPS, DENSE_CAPS, METRICS, evaluate_coco, read_both
from yolojax.eval.confidence import best_f1, operating_point
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.matching import match_detections
from yolojax.eval.table import format_result


def twelve(result) -> list:
    return [getattr(result, name) for name in METRICS]


def test_published_coco_results(test_data: Path) -> None:
    """cocodataset/cocoapi, results/val2014_fake_eval_res.txt, with the digits that pycocotools gives."""
    folder = test_data / "metrics" / "cocoapi"
    result = evaluate_coco(folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json")
    published = (
        ".5045806987 .6969727247 .5729816670 .5856257209 .5193996948 .5013978986 "
        ".3868127796 .5936795763 .5953529829 .6398109626 .5664205979 .5642905983"
    )
    np.testing.assert_allclose(twelve(result), [float(v) for v in published.split()], rtol=0, atol=1e-9)
    assert (result.counters.objects, result.counters.crowd_regions) == (830, 9)


@pytest.mark.parametrize("truth", ["coco_format_v1/instances_default.json", "coco_format_v2/instances_v2.json"])
def test_scored_data_set_is_joined_by_name(test_data: Path, truth: str) -> None:
    """The detections' own ids mean other images and classes: joined by id, AP would be near 0."""
    folder = test_data / "data" / "voc100"
    result = evaluate_coco(folder / "gts" / truth, folder / "dets" / "coco_format" / "coco_dets.json")
    reference = [0.346958, 0.610030, 0.353714, 0.075181, 0.339482, 0.497881, 0.373505, 0.520647, 0.522570]
    np.testing.assert_allclose(twelve(result)[:9], reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("seed", "ties"), [(0, False), (1, False), (2, True), (3, True)])
def test_equals_pycocotools_to_the_bit(make_case, pycocotools_run, seed: int, ties: bool) -> None:
    truth, found = make_case(seed, ties=ties)
    random.Random(seed).shuffle(found)
    result, peer = evaluate_coco(truth, found), pycocotools_run(truth, found)
    assert twelve(result) == [None if v == -1 else v for v in peer.stats.tolist()]
    np.testing.assert_array_equal(result.curves.precision, peer.eval["precision"][..., 0, -1])
    for k, one in enumerate(result.classes):
        assert peer.eval["precision"][:, :, k, 0, -1].mean() == one.AP
        assert peer.eval["precision"][0, :, k, 0, -1].mean() == one.AP50
        assert peer.eval["precision"][5, :, k, 0, -1].mean() == one.AP75
        assert peer.eval["recall"][:, k, 0, -1].mean() == one.AR
        np.testing.assert_array_equal(result.curves.at_iou(0.75)[:, k], peer.eval["precision"][5, :, k, 0, -1])


def test_paths_arrays_and_lists_agree(make_case, tmp_path: Path) -> None:
    truth, found = make_case(4)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    rows = np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in found])
    from_lists = evaluate_coco(truth, found)
    assert twelve(evaluate_coco(tmp_path / "truth.json", str(tmp_path / "found.json"))) == twelve(from_lists)
    assert twelve(evaluate_coco(truth, rows)) == twelve(from_lists)


@pytest.mark.parametrize("caps", [(1, 10, 100), DENSE_CAPS])
def test_hotcoco_gives_the_same_numbers(make_case, caps) -> None:
    pytest.importorskip("hotcoco", reason="the optional backend (extra fast-eval) is not installed")
    for seed in range(4):
        truth, found = make_case(seed, ties=seed % 2 == 1)
        slow = evaluate_coco(truth, found, caps=caps, backend="pycocotools")
        fast = evaluate_coco(truth, found, caps=caps, backend="hotcoco")
        assert twelve(slow) == twelve(fast) and slow.classes == fast.classes
        np.testing.assert_array_equal(slow.curves.precision, fast.curves.precision)
        np.testing.assert_array_equal(slow.curves.scores, fast.curves.scores)
    assert twelve(evaluate_coco(truth, [], backend="hotcoco")) == twelve(evaluate_coco(truth, []))


def assert_backends_agree(truth, found, caps=COCO_CAPS) -> None:
    """Every table of hotcoco equals that of pycocotools, to the last bit."""
    columns = read_both(truth, found)
    slow, fast = (precision_tables._tables(*columns, caps, backend) for backend in ("pycocotools", "hotcoco"))
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(getattr(slow, name), getattr(fast, name))


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ("cocoapi/instances_val2014_100.json", "cocoapi/instances_val2014_fakebbox100_results.json"),
        ("../data/voc100/gts/coco_format_v1/instances_default.json", "../data/voc100/dets/coco_format/coco_dets.json"),
        ("../data/voc100/gts/coco_format_v2/instances_v2.json", "../data/voc100/dets/coco_format/coco_dets.json"),
    ],
)
@pytest.mark.parametrize("caps", [COCO_CAPS, DENSE_CAPS])
def test_hotcoco_equals_pycocotools_on_published_results(test_data: Path, truth: str, found: str, caps) -> None:
    pytest.importorskip("hotcoco", reason="the optional backend (extra fast-eval) is not installed")
    assert_backends_agree(test_data / "metrics" / truth, test_data / "metrics" / found, caps)


ADVERSARIAL = {  # objects and detections of one image of class 1 (or as given), boxes x, y, w, h
    "sides of 0": ([{"bbox": [10, 10, 0, 20]}, {"bbox": [10, 10, 20, 20]}], [[10, 10, 0, 20], [10, 10, 20, 0]]),
    "a crowd region of no size": ([{"bbox": [10, 10, 0, 0], "iscrowd": 1}], [[10, 10, 5, 5], [10, 10, 0, 0]]),
    "all crowd": ([{"bbox": [0, 0, 50, 50], "iscrowd": 1}] * 2, [[0, 0, 50, 50], [10, 10, 5, 5], [40, 40, 30, 30]]),
    "objects before crowd": (
        [{"bbox": [0, 0, 40, 40], "iscrowd": 1}, {"bbox": [0, 0, 20, 20]}],
        [[0, 0, 20, 20], [1, 1, 20, 20], [0, 0, 40, 40]],
    ),
    "the same object twice": ([{"bbox": [5, 5, 20, 20]}] * 2, [[5, 5, 20, 20]] * 3),
    "overlaps exactly at thresholds": (
        [{"bbox": [0, 0, 20, 1]}, {"bbox": [0, 9, 20, 1]}],
        [[0, 0, k, 1] for k in range(10, 20)] + [[0, 9, 10, 1]],
    ),
    "areas at the bounds of ranges": (
        [{"bbox": [40 * k, 0, 32, 32], "area": area} for k, area in enumerate((1024, 1024.5, 9216, 0, 1e10, 2e10))],
        [[40 * k, 0, 32, 32] for k in range(6)] + [[0, 0, 96, 96], [300, 0, 32, 33]],
    ),
    "more than the cap": ([{"bbox": [5, 5, 20, 20]}], [[100 + k, 5, 20, 20] for k in range(110)] + [[5, 5, 20, 20]]),
    "coordinates of 1e9": ([{"bbox": [-1e9, 0, 1e9, 1e9]}], [[-1e9, 0, 1e9, 1e9], [1e9, 1e9, 1, 1]]),
    "no object": ([], [[5, 5, 20, 20]]),
    "another class": ([{"bbox": [5, 5, 20, 20], "category_id": 2}], [[5, 5, 20, 20]]),
}


@pytest.mark.parametrize("scores", ["falling", "tied", "odd"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_hotcoco_equals_pycocotools_on_adversarial_cases(name: str, scores: str) -> None:
    pytest.importorskip("hotcoco", reason="the optional backend (extra fast-eval) is not installed")
    objects, boxes = ADVERSARIAL[name]
    listed = [{"image_id": image, "category_id": 1, "iscrowd": 0, **one} for image in (1, 2) for one in objects]
    score = {"falling": lambda k: 1 / (k + 1), "tied": lambda k: 0.5, "odd": lambda k: (-1.0) ** k * 10.0**k % 1e6}
    found = [
        {"image_id": image, "category_id": 1, "bbox": box, "score": score[scores](k)}
        for image in (2, 1, 3)
        for k, box in enumerate(boxes)
    ]
    truth = {
        "images": [{"id": k} for k in (1, 2, 3)],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2)],
        "annotations": [{"id": k, **one} for k, one in enumerate(listed, 1)],
    }
    assert_backends_agree(truth, found)


def test_another_hotcoco_is_not_used(make_case, monkeypatch) -> None:
    """A release whose numbers differ in the last digit is refused before it is asked for the whole evaluation."""
    truth, found = make_case(0)
    honest = precision_tables._tables

    def off(truth, detections, caps, backend, reporter=None):
        tables = honest(truth, detections, caps, "pycocotools")
        if backend == "hotcoco":
            tables.precision[0, 0, 0, 0, 0] += 1e-12
        return tables

    monkeypatch.setattr(precision_tables, "_tables", off)
    with pytest.raises(ConfigError, match="other numbers than pycocotools"):
        evaluate_coco(truth, found, backend="hotcoco")
    result = evaluate_coco(truth, found)  # by itself it takes what is right
    assert result.backend == "pycocotools"
    assert twelve(result) == twelve(evaluate_coco(truth, found, backend="pycocotools"))


def test_caps_must_rise() -> None:
    empty = {"images": [], "categories": [], "annotations": []}
    for caps in [(100, 10, 1), (10, 10, 100), (0, 1, 2)]:
        with pytest.raises(ConfigError, match="three rising numbers"):
            evaluate_coco(empty, [], caps=caps)


def brute_force(truth: dict, found: list[dict], confidence: float) -> tuple[int, int, int]:
    """True positives, false positives and objects, one detection at a time, straight from the definition."""

    def corners(box):
        return box[0], box[1], box[0] + box[2], box[1] + box[3]

    def intersection(a, b):
        (ax, ay, au, av), (bx, by, bu, bv) = corners(a), corners(b)
        return max(0.0, min(au, bu) - max(ax, bx)) * max(0.0, min(av, bv) - max(ay, by))

    true = false = 0
    taken: set[int] = set()
    for d in sorted((d for d in found if d["score"] >= confidence), key=lambda d: -d["score"]):
        near = [
            a for a in truth["annotations"] if a["image_id"] == d["image_id"] and a["category_id"] == d["category_id"]
        ]
        area = d["bbox"][2] * d["bbox"][3]
        best, best_iou = None, 0.5
        for a in near:
            inside = intersection(a["bbox"], d["bbox"])
            iou = inside / (area + a["bbox"][2] * a["bbox"][3] - inside)
            if not a["iscrowd"] and a["id"] not in taken and iou >= best_iou:
                best, best_iou = a["id"], iou
        if best is not None:
            taken.add(best)
            true += 1
        elif not any(a["iscrowd"] and intersection(a["bbox"], d["bbox"]) / area >= 0.5 for a in near):
            false += 1
    return true, false, sum(not a["iscrowd"] for a in truth["annotations"])


@pytest.mark.parametrize("seed", range(4))
def test_precision_and_recall_from_the_definition(make_case, seed: int) -> None:
    truth, found = make_case(seed, crowd=0.3)
    result = evaluate_coco(truth, found)
    true, false, objects = brute_force(truth, found, 0.25)
    point = result.at_confidence
    assert (point.true_positives, point.false_positives, point.objects) == (true, false, objects)
    assert (result.precision, result.recall) == (true / (true + false), true / objects)
    assert sum(k.at_confidence.true_positives for k in result.classes) == true
    assert sum(k.at_confidence.false_positives for k in result.classes) == false

    every = [brute_force(truth, found, d["score"]) for d in found]
    assert result.best_f1 is not None
    assert result.best_f1.f1 == max(2 * t / (t + f + n) for t, f, n in every)


@pytest.mark.parametrize("seed", range(3))
def test_matching_is_that_of_pycocotools(make_case, pycocotools_run, seed: int) -> None:
    raw_truth, raw_found = make_case(seed, crowd=0.3, ties=seed == 2)
    truth = read_ground_truth(raw_truth)
    found = read_detections(raw_found, truth)
    matches = match_detections(truth, found)
    peer = pycocotools_run(raw_truth, raw_found, maxDets=[1, 10, 10_000])
    status = {}
    for group in peer.evalImgs:
        if group is not None and list(group["aRng"]) == [0, 1e10]:
            for row, match, ignored in zip(group["dtIds"], group["dtMatches"][0], group["dtIgnore"][0], strict=True):
                status[row - 1] = (int(match) - 1 if match and not ignored else -1, bool(ignored))
    got = {int(r): (int(o), bool(i)) for r, o, i in zip(found.rows, matches.object_of, matches.ignored, strict=True)}
    assert got == status


def test_a_prefix_of_the_list_gives_the_same_counts(make_case) -> None:
    """One matching serves every threshold: what scores lower never changes what happened above."""
    raw_truth, raw_found = make_case(5, crowd=0.3)
    truth = read_ground_truth(raw_truth)
    found = read_detections(raw_found, truth)
    matches = match_detections(truth, found)
    for confidence in (0.2, 0.5, 0.8):
        fewer = read_detections([d for d in raw_found if d["score"] >= confidence], truth)
        cut = operating_point(truth, fewer, match_detections(truth, fewer), 0.0)
        whole = operating_point(truth, found, matches, confidence)
        assert (cut.true_positives, cut.false_positives) == (whole.true_positives, whole.false_positives)


def test_best_f1_prefers_the_higher_of_equal_thresholds() -> None:
    box = [10, 10, 20, 20]
    truth = read_ground_truth(
        {
            "images": [{"id": 1}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "bbox": box},
                {"image_id": 1, "category_id": 1, "bbox": [100, 10, 20, 20]},
            ],
        }
    )
    rows = [(0.9, box), (0.5, [200, 0, 5, 5]), (0.5, [220, 0, 5, 5]), (0.1, [100, 10, 20, 20])]
    found = read_detections([{"image_id": 1, "category_id": 1, "bbox": b, "score": s} for s, b in rows], truth)
    best = best_f1(truth, found, match_detections(truth, found))
    assert best is not None and (best.confidence, best.f1) == (0.9, 2 / 3)  # as at .1: 2 * 2 / (4 + 2)
    assert best_f1(truth, found, match_detections(truth, found), category=0) == best


def test_printed_it_is_the_table_of_the_commands_and_never_pages_of_arrays(make_case) -> None:
    result = evaluate_coco(*make_case(0))
    assert str(result) == format_result(result) and f"{result.AP:.3f}" in str(result)
    assert "array(" not in repr(result) and f"AP50={result.AP50!r}" in repr(result)


def test_precision_is_not_invented() -> None:
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}],
    }
    low = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.2}]
    result = evaluate_coco(truth, low)
    assert (result.precision, result.recall) == (None, 0.0)
    low[0]["score"] = 0.25  # the threshold is inclusive
    assert evaluate_coco(truth, low).precision == 1.0
