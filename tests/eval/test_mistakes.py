"""Each mistake in a result file or its ground truth is named with its evidence; right files stay without a word."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolojax.errors import ConfigError, DataError, ResultError
from yolojax.eval.coco import CocoResult, evaluate_coco
from yolojax.eval.diagnosis import diagnose_result
from yolojax.eval.result_format import ResultFormat, convert_boxes
from yolojax.eval.table import format_result

W, H = 640, 480


def data_set(objects: int = 3, images: int = 30, largest: float = 79) -> dict[str, Any]:
    """Images 1.jpg, 2.jpg, ... in the order of `glob`: ids are not the numbers of the files."""
    rng = np.random.default_rng(1)
    names = sorted(f"{k}.jpg" for k in range(1, images + 1))
    listed = [{"id": k + 1, "file_name": name, "width": W, "height": H} for k, name in enumerate(names)]
    annotations = []
    for image in listed:
        for _ in range(objects):
            x, y = rng.uniform(0, 400), rng.uniform(0, 390)
            w, h = rng.uniform(40, largest, 2)
            box = [float(v) for v in (x, y, w, h)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.integers(1, 4)),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    names = [{"id": k + 1, "name": name} for k, name in enumerate("abc")]
    return {"images": listed, "annotations": annotations, "categories": names}


def results(truth: dict[str, Any], change=lambda row: row) -> list[dict[str, Any]]:
    """A good detector's rows after a change; rows that become None are left out."""
    rng = np.random.default_rng(2)
    rows = []
    for one in truth["annotations"]:
        box = [v + float(rng.normal(0, 1)) for v in one["bbox"]]
        row = {"image_id": one["image_id"], "category_id": one["category_id"], "bbox": box}
        rows.append(change({**row, "score": float(rng.uniform(0.3, 0.99))}))
    return [row for row in rows if row is not None]


def boxed(convert) -> Any:
    return lambda row: {**row, "bbox": convert(*row["bbox"])}


def number_of_file(row: dict[str, Any]) -> dict[str, Any]:
    names = sorted(f"{k}.jpg" for k in range(1, 31))
    return {**row, "image_id": int(names[row["image_id"] - 1][:-4])}


def in_units(scale: float, x0: float = 0, y0: float = 0) -> Any:
    return boxed(lambda x, y, w, h: [x * scale + x0, y * scale + y0, w * scale, h * scale])


DISORDER = [int(k) + 1 for k in np.random.default_rng(0).permutation(60)]
"""Three of sixty images have their own ids."""

MISTAKES = {
    "file numbers": (number_of_file, "image_ids", "numbers in the file names", {"image_ids": "names"}),
    "positions": (lambda r: {**r, "image_id": r["image_id"] - 1} if r["image_id"] > 1 else None, "image_ids", "", None),
    "ids one too high": (
        lambda r: {**r, "image_id": r["image_id"] + 1} if r["image_id"] < 30 else None,
        "image_ids",
        "the ground truth's, but one too high",
        None,
    ),
    "turned round": (
        lambda r: (
            {**r, "score": 1 - r["score"]} if r["bbox"][0] < 300 else {**r, "bbox": [r["bbox"][0] - 200, 0, 9, 9]}
        ),
        "score_order",
        "a detection that matches and one that does not, the former has the higher score in 23%",
        None,
    ),
    "one too high": (
        lambda r: {**r, "category_id": r["category_id"] + 1} if r["category_id"] < 3 else None,
        "class_ids",
        "class k lies on class k - 1",
        {"category_ids": "less-one"},
    ),
    "one too low": (
        lambda r: {**r, "category_id": r["category_id"] - 1} if r["category_id"] > 1 else None,
        "class_ids",
        "class k lies on class k + 1",
        {"category_ids": "plus-one"},
    ),
    "turned in a ring": (
        lambda r: {**r, "category_id": r["category_id"] % 3 + 1},
        "class_order",
        "'a' on 'c'",
        None,
    ),
    "another order": (
        lambda r: {**r, "category_id": {1: 2, 2: 1, 3: 3}[r["category_id"]]} if r["category_id"] < 3 else None,
        "class_order",
        "'a' on 'b'",
        None,
    ),
    "parts": (boxed(lambda x, y, w, h: [x / W, y / H, w / W, h / H]), "box_format", "at most 1", {"box": "xywhn"}),
    "corners": (boxed(lambda x, y, w, h: [x, y, x + w, y + h]), "box_format", "beyond their image", {"box": "xyxy"}),
    "centres": (boxed(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), "box_format", "centre", {"box": "cxcywh"}),
    "corners in parts": (
        boxed(lambda x, y, w, h: [x / W, y / H, (x + w) / W, (y + h) / H]),
        "box_format",
        "corners in parts",
        {"box": "xyxyn"},
    ),
    "swapped": (boxed(lambda x, y, w, h: [y, x, h, w]), "box_format", "y, x, height", {"box": "yxhw"}),
    "square": (in_units(1, 0, 80), "box_format", "square input image of 640", {"box": "letterbox640"}),
    "smaller square": (in_units(0.5, 0, 40), "box_format", "of 320", {"box": "letterbox320"}),
    "square from the corner": (in_units(0.65), "box_format", "of 416", {"box": "corner416"}),
    "stretched": (
        boxed(lambda x, y, w, h: [x / W * 320, y / H * 320, w / W * 320, h / H * 320]),
        "box_format",
        "of 320",
        {"box": "stretch320"},
    ),
    "moved": (in_units(1, 25, -20), "moved_boxes", "lie on objects once they are moved by -2", None),
    "scaled and moved": (in_units(0.8, 60, 70), "moved_boxes", "multiplied by 1.25 and moved by -7", None),
    "corners on a square": (
        boxed(lambda x, y, w, h: [x, y + 80, x + w, y + h + 80]),
        "box_format",
        "corners (x1, y1, x2, y2) in pixels of a square input image of 640 in which the photo is centred",
        {"box": "letterbox640-xyxy"},
    ),
    "parts of a square": (
        boxed(lambda x, y, w, h: [x / 640, (y + 80) / 640, w / 640, h / 640]),
        "box_format",
        "parts of a square input image in which the photo is centred",
        {"box": "letterbox1"},
    ),
    "percent of the image": (
        boxed(lambda x, y, w, h: [100 * x / W, 100 * y / H, 100 * w / W, 100 * h / H]),
        "box_format",
        "percent of the image",
        {"box": "stretch100"},
    ),
    "corners in parts, y first": (
        boxed(lambda x, y, w, h: [y / H, x / W, (y + h) / H, (x + w) / W]),
        "box_format",
        "corners (y1, x1, y2, x2) in parts",
        {"box": "yxyxn"},
    ),
    "mirrored": (boxed(lambda x, y, w, h: [W - x - w, y, w, h]), "box_format", "from the right edge", None),
    "from the bottom": (boxed(lambda x, y, w, h: [x, H - y - h, w, h]), "box_format", "from the bottom edge", None),
    "sides first": (boxed(lambda x, y, w, h: [w, h, x, y]), "box_format", "width, height, left, top", None),
    "sides swapped": (boxed(lambda x, y, w, h: [x, y, h, w]), "box_format", "left, top, height, width", None),
    "x1 x2 y1 y2": (boxed(lambda x, y, w, h: [x, x + w, y, y + h]), "box_format", "x1, x2, y1, y2", None),
    "turned": (boxed(lambda x, y, w, h: [y, W - x - w, h, w]), "box_format", "turned by 90 degrees", None),
    "shorter side of 800": (in_units(800 / 480), "box_format", "of 106", {"box": "corner1067"}),
    "one class": (
        lambda r: {**r, "category_id": 1},
        "one_class_detections",
        "are of the class 'a'",
        None,
    ),
    "of 255": (lambda r: {**r, "score": 255 * r["score"]}, "large_scores", "no probabilities", None),
    "percent": (lambda r: {**r, "score": 100 * r["score"]}, "percent_scores", "percentages", {"scores": "percent"}),
    "logits": (
        lambda r: {**r, "score": float(np.log(r["score"] / (1 - r["score"])))},
        "logit_scores",
        "logits",
        {"scores": "logit"},
    ),
    "some images in parts": (
        lambda r: boxed(lambda x, y, w, h: [x / W, y / H, w / W, h / H])(r) if r["image_id"] % 3 == 0 else r,
        "images_without_matches",
        "not one detection lies on an object",
        None,
    ),
    "half": (lambda r: r if r["image_id"] <= 15 else None, "images_without_detections", "15 of 30 images", None),
    "a third": (lambda r: r if r["image_id"] % 3 else None, "images_without_detections", "10 of 30 images", None),
    "nothing": (lambda r: None, "no_detections", "no detection at all", None),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_named_and_mended(case: str) -> None:
    change, kind, evidence, mend = MISTAKES[case]
    truth = data_set()
    rows = results(truth, change)
    result = evaluate_coco(truth, rows)
    assert [one.kind for one in result.mistakes] == [kind]
    assert evidence in result.mistakes[0].message
    assert diagnose_result(result).rule == "mistake"
    assert format_result(result).startswith(f"warning: {result.mistakes[0].message}")
    if mend is not None:
        mended = evaluate_coco(truth, rows, result_format=ResultFormat(**mend))
        assert mended.AP is not None and mended.AP > 0.55 and mended.mistakes == ()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_one_factor_for_images_of_several_sizes_is_no_square(factor: float) -> None:
    """A square that fits the images of one size would be the wrong advice for the others."""
    truth = data_set()
    for image in truth["images"]:
        image["width"], image["height"] = [(640, 480), (900, 500), (481, 640)][image["id"] % 3]
    (mistake,) = evaluate_coco(truth, results(truth, in_units(factor))).mistakes
    assert mistake.kind == "moved_boxes" and f"multiplied by {1 / factor:g}" in mistake.message


@pytest.mark.parametrize("rectangle", [(640, 384), (512, 896)])
def test_a_rectangular_input_image_is_named_for_images_of_several_sizes(rectangle: tuple[int, int]) -> None:
    """Each size of image has a factor and a shift of its own, and no square fits them."""
    truth = data_set()
    size_of = {image["id"]: [(640, 480), (900, 500), (481, 640)][image["id"] % 3] for image in truth["images"]}
    for image in truth["images"]:
        image["width"], image["height"] = size_of[image["id"]]

    def onto_rectangle(row: dict[str, Any]) -> dict[str, Any]:
        scale = min(side / own for side, own in zip(rectangle, size_of[row["image_id"]], strict=True))
        x0, y0 = ((side - scale * own) / 2 for side, own in zip(rectangle, size_of[row["image_id"]], strict=True))
        return in_units(scale, x0, y0)(row)

    (mistake,) = evaluate_coco(truth, results(truth, onto_rectangle)).mistakes
    assert mistake.kind == "moved_boxes" and mistake.message.count("multiplied by") == 2
    assert "images of 900 x 500" in mistake.message and "photos of several sizes" in mistake.mend


@pytest.mark.parametrize("side", [1024, 1280, 300])
def test_the_side_of_a_square_is_a_usual_one(side: int) -> None:
    truth = data_set()
    (mistake,) = evaluate_coco(truth, results(truth, in_units(side / W, 0, (side - side / W * H) / 2))).mistakes
    assert f"--box-format letterbox{side} " in mistake.mend


def test_one_score_for_all() -> None:
    """Their order in the file decides then which of them come first."""
    truth = data_set()
    astray = boxed(lambda x, y, w, h: [x - 200, 0, 9, 9] if x > 300 else [x, y, w, h])
    (mistake,) = evaluate_coco(truth, results(truth, lambda row: {**astray(row), "score": 1.0})).mistakes
    assert mistake.kind == "equal_scores" and not mistake.decisive and "have the score 1, and" in mistake.message


def test_one_score_without_false_positives_says_nothing() -> None:
    """As when the ground truth itself is given: their order is without effect."""
    truth = data_set()
    assert evaluate_coco(truth, results(truth, lambda row: {**row, "score": 1.0})).mistakes == ()


def test_a_right_file_stays_without_a_word() -> None:
    truth = data_set()
    result = evaluate_coco(truth, results(truth))
    assert result.mistakes == () and "warning" not in format_result(result)


@pytest.mark.parametrize(
    ("change", "objects"),
    [
        (boxed(lambda x, y, w, h: [(7 * x) % 500, (5 * y) % 390, w, h]), 3),
        (lambda r: {**r, "image_id": (r["image_id"] + 12) % 60 + 1}, 12),
        (lambda r: {**r, "image_id": DISORDER[r["image_id"] - 1]}, 12),
    ],
    ids=["scattered", "other images", "disorder"],
)
def test_what_no_convention_explains_is_said_all_the_same(change, objects) -> None:
    """Once it is known that detections lie on objects by chance alone, no training mends them.

    On crowded images chance puts them on many; in a disorder of all images some keep their ids.
    """
    truth = data_set(images=60, objects=objects)
    result = evaluate_coco(truth, results(truth, change))
    assert [one.kind for one in result.mistakes] == ["no_match"] and diagnose_result(result).rule == "no_match"
    assert "image ids and box format" in format_result(result)


@pytest.mark.parametrize(("images", "objects"), [(1, 1), (2, 1), (5, 2), (12, 3)])
def test_random_boxes_have_no_convention(images: int, objects: int) -> None:
    """Hundreds of formats are tried: one of them fits a few boxes of many by chance."""
    truth, rng = data_set(objects=objects, images=images), np.random.default_rng(3)
    for _ in range(2):
        rows = [
            {
                "image_id": image["id"],
                "category_id": int(rng.integers(1, 4)),
                "score": float(rng.uniform()),
                "bbox": box,
            }
            for image in truth["images"]
            for box in np.column_stack([rng.uniform(0, 440, (40, 2)), rng.uniform(30, 150, (40, 2))]).tolist()
        ]
        kinds = {one.kind for one in evaluate_coco(truth, rows).mistakes}
        assert not kinds & {"box_format", "truth_box_format", "image_ids"}, kinds


@pytest.mark.parametrize("seed", range(2))
def test_the_little_that_a_poor_detector_finds_is_seen(seed: int) -> None:
    """One object of sixteen, a little off, among two boxes of nothing for each object."""
    truth, rng = data_set(images=40, objects=5), np.random.default_rng(seed)
    rows = results(
        truth, lambda r: {**r, "bbox": [v + rng.normal(0, 3) for v in r["bbox"]]} if rng.random() < 1 / 16 else None
    )
    rows += [
        {**row, "bbox": [*rng.uniform(0, 400, 2), *rng.uniform(20, 200, 2)], "score": float(rng.uniform())}
        for row in results(truth) + results(truth)
    ]
    assert evaluate_coco(truth, rows).mistakes == ()


def test_numbers_that_were_positions_and_fit_names_by_accident() -> None:
    """Rows count the images from 1, the names from 0; none is about the last image, so that each number is a name's."""
    truth = data_set(images=20)
    for k, image in enumerate(truth["images"]):
        image["file_name"] = f"img_{k:03d}.jpg"
    name_of = {one["id"]: one["file_name"] for one in truth["images"]}
    named = {"images": [{**one, "id": one["file_name"]} for one in truth["images"]], "categories": truth["categories"]}
    named["annotations"] = [{**one, "image_id": name_of[one["image_id"]]} for one in truth["annotations"]]
    rows = results(truth, lambda row: row if row["image_id"] < 20 else None)
    result = evaluate_coco(named, rows, result_format=ResultFormat(image_ids="names"))
    assert [one.kind for one in result.mistakes] == ["image_ids", "images_without_detections"][: len(result.mistakes)]
    assert "one too high" in result.mistakes[0].message


def test_detections_of_images_without_objects() -> None:
    truth = data_set()
    rows = results(truth)
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] > 15]
    result = evaluate_coco(truth, [row for row in rows if row["image_id"] <= 10])
    assert "none of the 30 detections is about an image with objects" in result.mistakes[0].message


def test_objects_at_one_place_on_all_images_match_by_more_than_chance() -> None:
    """Detections of another image would do as well there, and yet these are right."""
    truth = data_set(objects=1)
    for one in truth["annotations"]:
        one["bbox"] = [200.0, 100.0, 120.0, 110.0]
    assert evaluate_coco(truth, results(truth)).mistakes == ()


def test_rows_without_suppression() -> None:
    truth, rng = data_set(), np.random.default_rng(0)
    rows = results(truth)
    again = [
        {**row, "score": row["score"] * 0.9, "bbox": [v + rng.normal(0, 0.1) for v in row["bbox"]]} for row in rows
    ]
    result = evaluate_coco(truth, rows + again)
    assert [(one.kind, one.decisive) for one in result.mistakes] == [("unsuppressed_detections", False)]
    assert "90 of 180 sampled rows" in result.mistakes[0].message
    other_class = [{**row, "category_id": row["category_id"] % 3 + 1, "score": row["score"] * 0.1} for row in rows]
    assert evaluate_coco(truth, rows + other_class).mistakes == ()  # several labels of one box are no repeats


def test_rows_that_repeat() -> None:
    truth = data_set()
    result = evaluate_coco(truth, [row for row in results(truth) for _ in (0, 1)])
    assert [one.kind for one in result.mistakes] == ["repeated_detections"]
    assert "90 of 180 rows" in result.mistakes[0].message


def test_a_bad_detector_is_not_called_a_mistake() -> None:
    """Boxes of nothing, boxes that are loose, objects that are missed, classes that are confused."""
    truth, rng = data_set(), np.random.default_rng(0)
    noise = [{**row, "bbox": [*rng.uniform(0, 400, 2), *rng.uniform(20, 200, 2)]} for row in results(truth)]
    result = evaluate_coco(truth, noise)
    assert [one.kind for one in result.mistakes] == ["no_match"] and diagnose_result(result).rule == "no_match"
    assert "almost nothing matches" in format_result(result)
    loose = results(truth, boxed(lambda x, y, w, h: [x + 8, y - 8, w * 1.2, h * 1.2]))
    confused = results(truth, lambda row: {**row, "category_id": int(rng.integers(1, 4))})
    missed = results(truth, lambda row: row if rng.uniform() < 0.4 else None)
    for rows in (loose, confused, missed):
        assert evaluate_coco(truth, rows).mistakes == ()
    single = data_set(objects=1)
    found = results(single, lambda row: row if rng.uniform() < 0.5 else None)
    assert evaluate_coco(single, found).mistakes == ()  # no image shows more than its one object


@pytest.mark.parametrize("name", ["cocoapi", "voc100"])
def test_no_false_alarm_on_published_results(test_data: Path, name: str) -> None:
    if name == "cocoapi":
        folder = test_data / "metrics" / name
        result = evaluate_coco(
            folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json"
        )
    else:
        folder = test_data / "data" / name
        truth = folder / "gts" / "coco_format_v1" / "instances_default.json"
        result = evaluate_coco(truth, folder / "dets" / "coco_format" / "coco_dets.json")
    assert result.mistakes == ()


# --- ids and names ---


def test_file_names_decide_where_ids_are_not_listed() -> None:
    truth = data_set()
    name_of = {one["id"]: one["file_name"] for one in truth["images"]}
    right = results(truth, lambda row: {**row, "file_name": name_of[row["image_id"]]})
    by_id, expected = evaluate_coco(truth, right), evaluate_coco(truth, results(truth))
    assert by_id.AP == expected.AP
    other_ids = [{**row, "image_id": 1000 + row["image_id"]} for row in right]
    assert evaluate_coco(truth, other_ids).AP == expected.AP


def test_a_file_name_that_contradicts_its_id_is_refused() -> None:
    truth = data_set()
    name_of = {one["id"]: one["file_name"] for one in truth["images"]}
    rows = results(
        truth, lambda row: {**row, "image_id": row["image_id"] % 30 + 1, "file_name": name_of[row["image_id"]]}
    )
    with pytest.raises(ResultError, match=r"row 0 .*says image_id 2 and file_name '1.jpg'.*--image-ids names"):
        evaluate_coco(truth, rows)
    joined = evaluate_coco(truth, rows, result_format=ResultFormat(image_ids="names"))
    assert joined.AP == evaluate_coco(truth, results(truth)).AP
    digits = [{**row, "image_id": str(row["image_id"])} for row in rows]
    assert evaluate_coco(truth, digits, result_format=ResultFormat(image_ids="names")).AP == joined.AP
    for row in rows:
        row["image_id"] = name_of[row["image_id"]]
    for options in ({}, {"result_format": ResultFormat(image_ids="names")}):
        with pytest.raises(ResultError, match=r"row 0 .*says image_id .* and file_name '1.jpg'"):
            evaluate_coco(truth, rows, **options)


@pytest.mark.parametrize("as_number", [int, float])
def test_ids_beyond_what_numbers_hold_are_refused(as_number, tmp_path) -> None:
    """Readers of JSON make floats of them, of which many are the same."""
    truth = data_set()
    rows = results(truth, lambda row: {**row, "image_id": as_number(2**70 + row["image_id"])})
    for image in truth["images"]:
        image["id"] = as_number(2**70 + image["id"])
    with pytest.raises(DataError, match=r"'id' is .*; give an integer below 2\^63, or a string"):
        evaluate_coco(truth, rows)
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(ResultError, match=r"'image_id' is .*give an integer below|does not list"):
        evaluate_coco(data_set(), file)


@pytest.mark.parametrize("key", ["file_name", "filename", "image_name"])
def test_a_file_name_in_some_rows_must_agree_too(key: str) -> None:
    truth = data_set()
    name_of = {one["id"]: one["file_name"] for one in truth["images"]}

    def row(r: dict[str, Any], step: int) -> dict[str, Any]:
        named = {key: name_of[r["image_id"]]} if r["category_id"] == 1 else {}
        return {**r, "image_id": (r["image_id"] + step - 1) % 30 + 1, **named}

    expected = evaluate_coco(truth, results(truth)).AP
    assert expected == evaluate_coco(truth, results(truth, lambda r: row(r, 0))).AP
    with pytest.raises(ResultError, match="contradict themselves"):
        evaluate_coco(truth, results(truth, lambda r: row(r, 1)))
    for image in truth["images"]:
        del image["file_name"]  # nothing to agree with
    assert expected == evaluate_coco(truth, results(truth, lambda r: row(r, 0))).AP


def test_names_take_the_place_of_ids_that_are_not_there() -> None:
    truth = data_set()
    name_of = {one["id"]: one["file_name"] for one in truth["images"]}
    rows = [
        {"file_name": name_of[r["image_id"]], "category_name": "abc"[r["category_id"] - 1], **r} for r in results(truth)
    ]
    bare = [{k: v for k, v in r.items() if k not in ("image_id", "category_id")} for r in rows]
    assert evaluate_coco(truth, bare).AP == evaluate_coco(truth, rows).AP == evaluate_coco(truth, results(truth)).AP
    with pytest.raises(ResultError, match="row 5 has no 'image_id'"):
        evaluate_coco(truth, [*rows[:5], *bare[5:]])


def test_a_class_name_that_contradicts_its_id_is_refused() -> None:
    truth = data_set()
    rows = results(truth, lambda r: {**r, "category_name": "abc"[r["category_id"] % 3]})
    with pytest.raises(ResultError, match=r"row 0 .*says category_id \d and the name '[abc]'.*90 of 90 rows"):
        evaluate_coco(truth, rows)


def test_a_number_that_no_file_bears_is_refused() -> None:
    truth = data_set()
    with pytest.raises(ResultError, match="77 is the name or the number in the name of no image"):
        evaluate_coco(truth, [{**results(truth)[0], "image_id": 77}], result_format=ResultFormat(image_ids="names"))


def test_backslashes_are_separators_in_names() -> None:
    truth = data_set()
    for image in truth["images"]:
        image["file_name"] = f"images\\{image['file_name']}"
    expected = evaluate_coco(truth, results(truth)).AP
    for form in ("images/{}", "images\\{}", "{}"):
        name_of = {one["id"]: form.format(one["file_name"].partition("\\")[2]) for one in truth["images"]}
        rows = results(truth, lambda row, name_of=name_of: {**row, "image_id": name_of[row["image_id"]]})
        assert expected == evaluate_coco(truth, rows).AP


def test_the_end_of_a_path_is_enough_where_one_image_has_it() -> None:
    truth = data_set()
    for image in truth["images"]:  # the same names in two folders
        image["file_name"] = f"images/{'ab'[image['id'] % 2]}/{image['id'] // 2}.jpg"
    name_of = {one["id"]: one["file_name"].removeprefix("images/") for one in truth["images"]}
    for form in ("{}", "/data/set/images/{}", "images\\{}"):
        rows = results(truth, lambda row, form=form: {**row, "image_id": form.format(name_of[row["image_id"]])})
        assert evaluate_coco(truth, rows).AP == evaluate_coco(truth, results(truth)).AP
    with pytest.raises(ResultError, match="does not list"):
        evaluate_coco(truth, [{**results(truth)[0], "image_id": "1.jpg"}])
    truth = data_set()  # names without folders
    for form in ("/data/set/images/{}.jpg", "C:\\images\\{}.jpg"):
        rows = results(truth, lambda row, form=form: {**row, "image_id": form.format(number_of_file(row)["image_id"])})
        assert evaluate_coco(truth, rows).AP == evaluate_coco(truth, results(truth)).AP
    for other in ("b/1.jpg", "1.jpg"):  # which of the two folders is meant?
        with pytest.raises(ResultError, match="does not list"):
            evaluate_coco(truth, [{**results(truth)[0], "image_id": one} for one in ("a/1.jpg", other)])


def test_unlisted_ids_come_with_a_guess() -> None:
    truth = data_set()
    zero = results(truth, lambda row: {**row, "category_id": row["category_id"] - 1})
    with pytest.raises(ResultError, match="--category-ids from-zero"):
        evaluate_coco(truth, zero)
    first = [{**one, "image_id": one["image_id"] - 1} for one in results(truth)]
    with pytest.raises(ResultError, match="positions counted from 0: write the ground truth's ids"):
        evaluate_coco(truth, first)
    background = [*results(truth), {**results(truth)[0], "category_id": 0}]
    with pytest.raises(ResultError) as raised:  # counted from 0, the ids of all others would be wrong
        evaluate_coco(truth, background)
    assert "--category-ids" not in str(raised.value)
    high = [{**one, "category_id": one["category_id"] + 1} for one in results(truth)]
    with pytest.raises(ResultError, match="--category-ids less-one"):
        evaluate_coco(truth, high)
    texts = [{**one, "category_id": str(one["category_id"])} for one in results(truth)]
    with pytest.raises(ResultError, match="texts in one list and numbers in the other"):
        evaluate_coco(truth, texts)
    texts = results(truth, lambda row: {**row, "image_id": f"x/{number_of_file(row)['image_id']}.PNG"})
    with pytest.raises(ResultError, match="only in folder, suffix or capitals"):
        evaluate_coco(truth, texts)
    texts = results(truth, lambda row: {**row, "category_id": " ABC"[row["category_id"]]})
    with pytest.raises(ResultError, match="only in capitals or blanks"):
        evaluate_coco(truth, texts)
    for image in truth["images"]:
        image["id"] += 500
    for one in truth["annotations"]:
        one["image_id"] += 500
    rows = [number_of_file({**row, "image_id": row["image_id"] - 500}) for row in results(truth)]
    with pytest.raises(ResultError, match="--image-ids names"):
        evaluate_coco(truth, rows)


# --- ground truth ---


def truth_mistakes(change) -> CocoResult:
    truth = data_set()
    rows = results(truth)
    for one in truth["annotations"]:
        change(one)
    return evaluate_coco(truth, rows)


@pytest.mark.parametrize("area", [1.0, 0, 0.5625, 9e9])
def test_placeholder_areas(area: float) -> None:
    result = truth_mistakes(lambda one: one.update(area=area))
    assert [(one.kind, one.decisive) for one in result.mistakes] == [("areas", False)]
    assert "APs, APm, APl" in result.mistakes[0].message and "90 of 90" in result.mistakes[0].message
    truth = data_set()
    for one in truth["annotations"]:
        one["area"] = area
    mended = evaluate_coco(truth, results(truth), areas="box")
    assert mended.mistakes == () and mended.APm == evaluate_coco(data_set(), results(data_set())).APm


def test_areas_of_masks_are_no_placeholders() -> None:
    assert truth_mistakes(lambda one: one.update(area=0.2 * one["area"])).mistakes == ()


def test_repeated_objects() -> None:
    truth = data_set()
    rows = results(truth)
    truth["annotations"] += [{**one, "id": one["id"] + 1000} for one in truth["annotations"]]
    result = evaluate_coco(truth, rows)
    assert result.mistakes[0].kind == "repeated_objects" and "90 of 180 objects" in result.mistakes[0].message


def test_objects_that_repeat_almost() -> None:
    truth = data_set()
    rows = results(truth)
    again = [
        {**one, "id": one["id"] + 1000, "bbox": [one["bbox"][0] + 0.3, *one["bbox"][1:]]}
        for one in truth["annotations"]
    ]
    truth["annotations"] += again
    result = evaluate_coco(truth, rows)
    assert result.mistakes[0].kind == "repeated_objects" and "90 of 180 sampled" in result.mistakes[0].message


def test_ground_truth_in_other_formats() -> None:
    def corners(one: dict[str, Any]) -> None:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x, y, x + w, y + h]

    def centres(one: dict[str, Any]) -> None:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x + w / 2, y + h / 2, w, h]

    def parts(one: dict[str, Any]) -> None:
        x, y, w, h = one["bbox"]
        one["bbox"] = [x / W, y / H, w / W, h / H]

    kinds = [one.kind for one in truth_mistakes(corners).mistakes]
    assert "objects_beyond_image" in kinds
    assert "look like corners" in truth_mistakes(corners).mistakes[kinds.index("objects_beyond_image")].message
    assert any("centre" in one.message for one in truth_mistakes(centres).mistakes)
    tiny = truth_mistakes(parts).mistakes[0]
    assert tiny.kind == "tiny_objects" and "parts of the image's width" in tiny.message


def test_boxes_at_a_corner_and_one_class() -> None:
    def change(one: dict[str, Any]) -> None:
        one["bbox"][:2] = [0.0, 0.0]
        one["category_id"] = 2

    kinds = {one.kind for one in truth_mistakes(change).mistakes}
    assert {"objects_at_corner", "one_class"} <= kinds


def test_no_objects_at_all() -> None:
    truth = data_set()
    rows = results(truth)
    assert [one.kind for one in evaluate_coco({**truth, "annotations": []}, rows).mistakes] == ["no_objects"]


def test_one_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, results(data_set()))))
    with pytest.raises(ResultError, match=r"one object a line: write them as one list, \[...\]"):
        evaluate_coco(data_set(), tmp_path / "rows.json")


def test_only_crowd_regions() -> None:
    result = truth_mistakes(lambda one: one.update(iscrowd=1))
    assert [one.kind for one in result.mistakes] == ["only_crowd"] and result.AP is None


def test_objects_that_nothing_can_match_are_counted() -> None:
    """pycocotools counts objects without area, and outside their image, as missed; the number says how many."""
    truth = data_set()
    truth["annotations"][0]["bbox"][2] = 0.0
    truth["annotations"][1]["bbox"][0] = 700.0
    result = evaluate_coco(truth, results(data_set()))
    assert result.counters.unmatchable_objects == 2
    assert "COCO's numbers" in format_result(result)


# --- what is refused ---


@pytest.mark.parametrize("score", [1e308, -1e7])
def test_scores_that_are_none(score: float) -> None:
    truth = data_set()
    with pytest.raises(ResultError, match="no confidence, logit or percentage"):
        evaluate_coco(truth, [{**results(truth)[0], "score": score}])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_ids_that_are_no_numbers(value: float) -> None:
    truth = data_set()
    with pytest.raises(ResultError, match="an id is an integer or a string"):
        evaluate_coco(truth, [{**results(truth)[0], "image_id": value}])
    truth["images"][0]["id"] = value
    with pytest.raises(DataError, match="an id is an integer or a string"):
        evaluate_coco(truth, [])


def test_keys_given_twice(tmp_path: Path) -> None:
    import json

    truth = data_set(images=3)
    text = json.dumps(truth)
    (tmp_path / "t.json").write_text(text[:-1] + ', "annotations": []}')
    with pytest.raises(DataError, match="the key 'annotations' more than once"):
        evaluate_coco(tmp_path / "t.json", [])
    (tmp_path / "d.json").write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.1, "score": 1}]'
    )
    with pytest.raises(ResultError, match="the key 'score' more than once"):
        evaluate_coco(truth, tmp_path / "d.json")
    truth["categories"][0]["name"] = 'the "bbox"'  # the word in a name is no key
    (tmp_path / "t.json").write_text(json.dumps(truth))
    assert evaluate_coco(tmp_path / "t.json", results(truth)).AP is not None


def test_addresses_are_no_files() -> None:
    with pytest.raises(DataError, match="is an address, not a file"):
        evaluate_coco("https://example.org/t.json", [])


def test_unused_grouping_category_with_the_name_of_a_class() -> None:
    truth = data_set()
    expected = evaluate_coco(truth, results(truth)).AP
    truth["categories"].insert(0, {"id": 0, "name": "a", "supercategory": "none"})
    result = evaluate_coco(truth, results(truth))
    assert expected == result.AP and result.counters.grouping_categories == 1


def test_formats_are_inverses_of_what_writers_do() -> None:
    box, size = np.array([[100.0, 50.0, 40.0, 20.0]]), np.array([[480, 640]])
    for name, written in (
        ("xyxy", [100, 50, 140, 70]),
        ("cxcywh", [120, 60, 40, 20]),
        ("yxyx", [50, 100, 70, 140]),
        ("cxcywhn", [120 / 640, 60 / 480, 40 / 640, 20 / 480]),
        ("letterbox320", [50, 25 + 40, 20, 10]),
        ("corner320", [50, 25, 20, 10]),
        ("stretch320", [50, 50 / 1.5, 20, 20 / 1.5]),
    ):
        np.testing.assert_allclose(convert_boxes(np.array([written], np.float64), name, size), box, atol=1e-9)


@pytest.mark.parametrize("name", ["xxyy", "letterbox0", "letterbox", "letterbox1000000", ""])
def test_unknown_formats(name: str) -> None:
    with pytest.raises(ConfigError, match="give one of xywh"):
        ResultFormat(box=name)


def test_formats_that_need_sizes() -> None:
    truth = data_set()
    for image in truth["images"]:
        del image["width"]
    with pytest.raises(ResultError, match="need the size of their image"):
        evaluate_coco(truth, results(truth), result_format=ResultFormat(box="xyxyn"))
