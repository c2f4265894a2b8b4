"""What COCO's tools take in silence and score wrongly; the numbers in the comments are pycocotools' own answers."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from yolojax.errors import DataError, ResultError
from yolojax.eval.coco import DENSE_CAPS, METRICS, evaluate_coco, nearest

PERFECT = pytest.approx(1.0, abs=1e-15)  # pycocotools adds an epsilon to the denominator


def one_image(*boxes, category: int = 1, **extra) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": k + 1, "image_id": 1, "category_id": category, "bbox": b, "area": b[2] * b[3], "iscrowd": 0, **extra}
            for k, b in enumerate(boxes)
        ],
    }


def detection(box, score=0.9, image: int = 1, category: int = 1) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


BOX = [10.0, 20.0, 30.0, 40.0]


@pytest.mark.parametrize("ids", [(0, 1), (5, 5), (None, None)])
def test_annotation_ids_are_renumbered(ids) -> None:
    """Id 0 counts as unmatched (a perfect box scores 0), and of a repeated id one annotation is lost."""
    truth = one_image(BOX, [100, 100, 50, 50])
    for annotation, i in zip(truth["annotations"], ids, strict=True):
        if i is None:
            del annotation["id"]
        else:
            annotation["id"] = i
    result = evaluate_coco(truth, [detection(BOX), detection([100, 100, 50, 50])])
    assert result.AP == PERFECT and result.recall == 1.0
    assert result.counters.renumbered_ids == (2 if ids[0] is None else 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 3, "score"])
def test_non_finite_results_are_refused_by_name(bad: float, where) -> None:
    """A NaN box matches everything: a model that only says NaN had AP .75."""
    rows = [detection(BOX), detection(list(BOX), image=2)]
    if where == "score":
        rows[1]["score"] = bad
    else:
        rows[1]["bbox"][where] = bad
    with pytest.raises(ResultError, match=r"detections row 1 \(image 2\).*finite"):
        evaluate_coco(one_image(BOX), rows)


def test_caps_other_than_100(pycocotools_run) -> None:
    """`stats[0]` asks for a cap of 100, and is -1 where none is; 200 perfect objects score .505 under that cap."""
    boxes = [[float(30 * (k % 20)), float(30 * (k // 20)), 20.0, 20.0] for k in range(200)]
    truth, rows = one_image(*boxes), [detection(b, 0.5 + k / 1000) for k, b in enumerate(boxes)]
    capped, dense = evaluate_coco(truth, rows), evaluate_coco(truth, rows, caps=DENSE_CAPS)
    assert capped.AP == pycocotools_run(truth, rows).stats[0] == pytest.approx(0.505, abs=5e-4)
    assert dense.AP == PERFECT and dense.AR100 == 1.0
    assert pycocotools_run(truth, rows, maxDets=[1, 10, 1000]).stats[0] == -1
    assert evaluate_coco(truth, rows, caps=(1, 10, 1000)).AP == PERFECT
    for result, over in ((capped, 1), (dense, 0)):
        assert (result.counters.images_over_cap, result.counters.images_beyond_cap) == (over, over)
    assert capped.counters.detections_over_cap == 100


def test_no_detections_score_zero() -> None:
    result = evaluate_coco(one_image(BOX), [])
    assert [getattr(result, name) for name in ("AP", "AP50", "AP75", "AR1", "AR100", "recall")] == [0.0] * 6
    assert result.precision is None and result.APl is None and result.best_f1 is None


def test_no_ground_truth_is_not_measured() -> None:
    truth = one_image()
    for rows in ([], [detection(BOX)]):
        result = evaluate_coco(truth, rows)
        assert all(getattr(result, name) is None for name in METRICS)
        assert (result.recall, result.classes[0].AP) == (None, None)
        assert np.isnan(result.curves.precision).all()
    nothing = evaluate_coco({"images": [], "categories": [], "annotations": []}, [])
    assert nothing.AP is None and nothing.classes == ()


def test_a_class_without_objects_stays_out_of_the_mean() -> None:
    result = evaluate_coco(one_image(BOX), [detection(BOX)])
    assert result.AP == PERFECT and [k.AP for k in result.classes] == [PERFECT, None]


def test_missing_area_and_iscrowd_are_filled() -> None:
    truth = one_image(BOX, BOX)
    del truth["annotations"][0]["area"], truth["annotations"][1]["iscrowd"]
    truth["annotations"][1]["area"] = None
    result = evaluate_coco(truth, [detection(BOX)])
    assert (result.counters.filled_areas, result.counters.filled_iscrowd) == (2, 1)
    assert result.APm is not None and result.APs is None  # 30 x 40 = 1200 is medium


def test_unknown_images_and_classes() -> None:
    rows = [detection(BOX), detection(BOX, image=77), detection(BOX, category=9), detection(BOX, category=9)]
    with pytest.raises(ResultError, match=r"1 rows are about 1 image id\(s\).*: 77; it has 1, 2;"):
        evaluate_coco(one_image(BOX), rows)
    with pytest.raises(ResultError, match=r"2 rows are about 1 category id\(s\).*: 9; it has 1, 2;"):
        evaluate_coco(one_image(BOX), [rows[0], *rows[2:]])
    result = evaluate_coco(one_image(BOX), rows, unknown="count")
    assert result.AP == PERFECT and result.counters.detections == 1
    assert (result.counters.unknown_images, result.counters.unknown_categories) == ({"77": 1}, {"9": 2})


def test_annotations_on_unlisted_images() -> None:
    truth = one_image(BOX, BOX)
    truth["annotations"][1]["image_id"] = 99
    with pytest.raises(DataError, match=r"annotation row 1 \(id 2\) is about image 99"):
        evaluate_coco(truth, [])
    assert evaluate_coco(truth, [], unknown="count").counters.unknown_annotations == 1


def test_false_positives_in_a_class_without_objects_are_listed() -> None:
    rows = [detection(BOX), detection(BOX, category=2), detection(BOX, category=2, image=2)]
    result = evaluate_coco(one_image(BOX), rows)
    assert result.AP == PERFECT
    assert result.counters.false_positives_without_objects == {"dog": 2}
    assert result.precision == 1 / 3  # the micro-average does notice


def test_ignore_is_mapped_on_purpose() -> None:
    """pycocotools overwrites the flag by iscrowd, so a flagged object is missed like any other."""
    truth = one_image(BOX, [100.0, 100.0, 50.0, 50.0])
    truth["annotations"][1]["ignore"] = 1
    ordinary, region = (
        evaluate_coco(truth, [detection(BOX)]),
        evaluate_coco(truth, [detection(BOX)], ignore_means="crowd"),
    )
    assert ordinary.recall == 0.5 and region.recall == 1.0
    assert ordinary.counters.ignore_flags == region.counters.ignore_flags == 1
    assert region.counters.crowd_regions == 1


def test_area_ranges_include_both_ends() -> None:
    result = evaluate_coco(one_image([0, 0, 32, 32]), [detection([0, 0, 32, 32])])
    assert result.APs == result.APm == PERFECT and result.APl is None
    truth = one_image([0, 0, 32, 32])
    truth["annotations"][0]["area"] = 900.0  # the mask's area decides, not the box's
    assert evaluate_coco(truth, [detection([0, 0, 32, 32])]).APm is None


def tied() -> tuple[dict, list[dict]]:
    return one_image(BOX), [detection(BOX, 0.5), detection([200, 200, 5, 5], 0.5), detection([300, 0, 4, 4], 0.4)]


def test_tied_scores_follow_the_list_or_the_content() -> None:
    truth, rows = tied()
    turned = [rows[1], rows[0], rows[2]]
    listed = [evaluate_coco(truth, r) for r in (rows, turned)]
    canonical = [evaluate_coco(truth, r, ties="canonical") for r in (rows, turned)]
    assert listed[0].AP == PERFECT and pytest.approx(0.5) == listed[1].AP
    assert canonical[0].AP == canonical[1].AP
    assert all(r.counters.tied_share == 2 / 3 for r in (*listed, *canonical))


def test_canonical_ties_do_not_depend_on_image_ids() -> None:
    truth, rows = tied()
    rows[1]["image_id"] = 2
    swapped, swapped_rows = copy.deepcopy(truth), copy.deepcopy(rows)
    for record in (*swapped["images"], *swapped["annotations"], *swapped_rows):
        key = "id" if "file_name" in record else "image_id"
        record[key] = 3 - record[key]
    assert evaluate_coco(truth, rows).AP != evaluate_coco(swapped, swapped_rows).AP
    assert evaluate_coco(truth, rows, ties="canonical").AP == evaluate_coco(swapped, swapped_rows, ties="canonical").AP


def test_an_overlap_exactly_at_the_threshold_matches() -> None:
    result = evaluate_coco(one_image([0, 0, 10, 10]), [detection([0, 0, 10, 5])])
    assert result.AP50 == PERFECT and result.AP75 == 0.0 and result.recall == 1.0


def test_of_two_objects_at_equal_overlap_the_last_wins(pycocotools_run) -> None:
    """Only the first is then left for a second detection; the rule decides its match, and with it AP."""
    truth = one_image([0, 0, 10, 10], [4, 0, 10, 10])
    rows = [detection([2, 0, 10, 10], 0.9), detection([-1, 0, 10, 10], 0.8)]
    result, peer = evaluate_coco(truth, rows), pycocotools_run(truth, rows)
    assert peer.stats[:2].tolist() == [result.AP, result.AP50]
    assert result.at_confidence.true_positives == 2


def test_thresholds_are_found_by_distance() -> None:
    grid = np.linspace(0.5, 0.95, 10)
    assert nearest(grid, 0.75) == 5 and nearest(np.arange(0.5, 1.0, 0.05), 0.95) == 9


def test_inputs_are_never_changed_and_may_be_used_twice() -> None:
    truth, rows = one_image(BOX), [detection(BOX)]
    before = copy.deepcopy((truth, rows))
    first, second = evaluate_coco(truth, rows), evaluate_coco(truth, rows)
    assert (truth, rows) == before and first.AP == second.AP
    array = np.array([[1, *BOX, 0.9, 1]])
    kept = array.copy()
    evaluate_coco(truth, array)
    np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize("side", [2, 3])
def test_negative_sides_are_refused(side: int) -> None:
    box = list(BOX)
    box[side] = -1.0
    with pytest.raises(ResultError, match=r"row 0 \(image 1\).*negative width or height.*x1, y1"):
        evaluate_coco(one_image(BOX), [detection(box)])
    with pytest.raises(DataError, match=r"annotation row 0 \(id 1\).*negative"):
        evaluate_coco(one_image(box), [])


def test_silent(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_coco(one_image(BOX), [detection(BOX)])
    assert capfd.readouterr() == ("", "")


def test_empty_boxes_and_odd_scores_are_counted() -> None:
    rows = [detection([5, 5, 0, 3]), detection(BOX, 1.5), detection(BOX, -0.1)]
    counters = evaluate_coco(one_image(BOX), rows).counters
    assert (counters.empty_boxes, counters.scores_outside_unit_interval) == (1, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("text", "cannot read text"),
        ([{"image_id": 1, "category_id": 1, "bbox": BOX}], "row 0 has no 'score'"),
        ([{**detection(BOX), "image_id": [1]}], "'image_id' must be an integer or a string"),
        ([detection(BOX), detection(BOX[:3])], r"row 1 \(image 1\): 'bbox' must be four numbers"),
        ([detection("abcd")], "'bbox' must be four numbers"),
        ([detection(None)], "row 0 has no 'bbox'"),
        (
            [{"image_id": 1, "category_id": 1, "bbox": BOX, "confidence": 0.5}],
            "'score', but 'confidence': call it 'score'",
        ),
        ([{"image_id": 1, "category_id": 1, "box": BOX, "score": 0.5}], "no 'bbox', but 'box': call it 'bbox'"),
        ({"predictions": [detection(BOX)]}, "has no list 'annotations'; its lists are 'predictions'"),
        ([detection(BOX, "0.9")], "'score' is not a number but '0.9'"),
        ([detection(BOX), detection(BOX, [0.9])], r"row 1 .*'score' is not a number"),
        ([detection(BOX), detection(BOX, True)], "row 1 .*'score' is not a number but True"),
        ([detection(BOX, image=True)], "'image_id' must be an integer or a string, not True"),
        ([detection([0, 0, 1e10, 1])], r"row 0 \(image 1\).*above 1e9"),
        (np.zeros((2, 6)), "7 numeric columns"),
        ({"annotations": [detection(BOX)]}, "has no list 'images'"),
    ],
)
def test_malformed_results_are_refused(rows, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        evaluate_coco(one_image(BOX), rows)


@pytest.mark.parametrize(
    ("text", "message"), [("5", "must be a list of results, not a int"), ("[7]", "row 0 has no 'image_id'")]
)
def test_malformed_result_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        evaluate_coco(one_image(BOX), tmp_path / "found.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("categories"), "has no list 'categories'"),
        (lambda t: t["images"].append({"id": 1}), "image id 1 is listed more than once"),
        (lambda t: t["images"].append({"id": "x"}), "numbers in some entries and texts in others"),
        (
            lambda t: (
                t["categories"][1].update(name="cat")
                or t["annotations"].append({**t["annotations"][0], "id": 9, "category_id": 2})
            ),
            "the name 'cat' belongs to more than one",
        ),
        (lambda t: t["annotations"][0].pop("bbox"), "'bbox' must be four numbers"),
        (lambda t: t["annotations"][0].update(area=float("nan")), "'area' is nan"),
        (lambda t: t["annotations"][0].update(area=-1), r"annotation row 0 \(id 1\): 'area' is -1"),
        (lambda t: t["annotations"][0].update(iscrowd="0"), "'iscrowd' is '0', not 0 or 1"),
        (lambda t: t["annotations"][0].update(ignore=2), "'ignore' is 2, not 0 or 1"),
        (lambda t: t["annotations"].append(3), "annotation row 1 has no 'image_id'"),
    ],
)
def test_malformed_ground_truth_is_refused(change, message: str) -> None:
    truth = one_image(BOX)
    change(truth)
    with pytest.raises(DataError, match=message):
        evaluate_coco(truth, [])


def test_unreadable_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(DataError, match=r"broken\.json is not a JSON file"):
        evaluate_coco(broken, [])
    broken.write_text(" \n")
    with pytest.raises(DataError, match=r"broken\.json is not a JSON file: it is empty; write it again"):
        evaluate_coco(broken, [])
    broken.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"broken\.json is not a JSON file"):
        evaluate_coco(broken, [])
    broken.write_text(json.dumps(one_image(BOX)), encoding="utf-8-sig")  # as some editors save it
    assert evaluate_coco(broken, []).AP == 0
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file"):
        evaluate_coco(tmp_path / "none.json", [])
    (tmp_path / "found.json").write_text(json.dumps([detection([0, 0, float("nan"), 1])]))
    with pytest.raises(ResultError, match=r"found\.json row 0 \(image 1\).*finite"):
        evaluate_coco(one_image(BOX), tmp_path / "found.json")


def test_results_may_name_images_and_classes() -> None:
    """Where ids are numbers, as those that we give to VOC and YOLO data, other frameworks can only give names."""
    truth = one_image(BOX)
    truth["images"] = [
        {"id": 1, "file_name": "x/a.jpg"},
        {"id": 2, "file_name": "x/b.jpg"},
        {"id": 3, "file_name": "y/b.jpg"},
    ]
    for name in ("x/a.jpg", "a.jpg", "a"):
        assert evaluate_coco(truth, [{**detection(BOX), "image_id": name, "category_id": "cat"}]).AP == PERFECT
    for name in ("b", "b.jpg", "c.jpg"):  # of two files, or of none
        with pytest.raises(ResultError, match=f"does not list: '{name}'; it has '"):
            evaluate_coco(truth, [{**detection(BOX), "image_id": name}])
    assert evaluate_coco(truth, [{**detection(BOX), "image_id": "y/b.jpg"}]).AP == 0
    truth["categories"][0]["name"] = "animal/cat.small"
    for name in ("cats", "cat", "cat.small", "animal/cat"):  # no files: nothing of their names may be left out
        with pytest.raises(ResultError, match=f"does not list: '{name}'; it has '"):
            evaluate_coco(truth, [{**detection(BOX), "category_id": name}])


def test_a_perfect_score_is_that_of_pycocotools_to_the_last_digit(pycocotools_run) -> None:
    truth, rows = one_image(BOX), [detection(BOX)]
    result = evaluate_coco(truth, rows)
    assert result.AP == pycocotools_run(truth, rows).stats[0] == 0.9999999999999998


def scored_data_set(names=("b.jpg", "a.jpg"), classes=("dog", "cat")) -> dict:
    """Detections of the perfect box on a.jpg, in which every id means something else than in the ground truth."""
    return {
        "images": [{"id": k, "file_name": n} for k, n in enumerate(names)],
        "categories": [{"id": k, "name": n} for k, n in enumerate(classes)],
        "annotations": [{**detection(BOX, image=1, category=1), "id": 0}],
    }


def test_a_scored_data_set_is_joined_by_name() -> None:
    assert evaluate_coco(one_image(BOX, category=1), scored_data_set()).AP == PERFECT
    truth = one_image(BOX)
    truth["categories"][0]["name"] = 7
    with pytest.raises(DataError, match="category row 0: 'name' is 7, not a text"):
        evaluate_coco(truth, scored_data_set(classes=("dog", 7)))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (scored_data_set(names=("b.jpg", "A.jpg")), r"1 'file_name' in 'images' are not in the ground truth: A\.jpg"),
        (scored_data_set(classes=("dog", "cats")), "1 'name' in 'categories' are not in the ground truth: cats"),
        (scored_data_set(names=("a.jpg", "a.jpg")), r"has 'a\.jpg' more than once"),
        (scored_data_set(names=("b.jpg", ["a.jpg"])), "'images' row 1: 'file_name' must be an integer or a string"),
        (scored_data_set(names=("a.jpg",)), "names id 1, which its own list 'images' does not have"),
    ],
)
def test_a_scored_data_set_that_does_not_match_is_refused(found: dict, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        evaluate_coco(one_image(BOX), found)


def test_unknown_names_of_a_scored_data_set_can_be_counted() -> None:
    """As unknown ids of a result list can; a name that looks like an id of the ground truth is still a name."""
    truth = one_image(BOX)
    names, classes = ("1", "a.jpg", "c.jpg"), ("bird", "cat")
    found = scored_data_set(names, classes)
    found["annotations"] = [detection(BOX, image=i, category=c) for i, c in ((1, 1), (0, 1), (2, 1), (1, 0))]
    counters = evaluate_coco(truth, found, unknown="count").counters
    assert counters.detections == 1
    assert counters.unknown_images == {"1": 1, "c.jpg": 1} and counters.unknown_categories == {"bird": 1}
    assert evaluate_coco(truth, found, unknown="count").AP == PERFECT
