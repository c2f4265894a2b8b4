"""What the files and pictures of a report say, for every kind of input that a stranger may have."""

import io
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from yolojax.errors import DataError
from yolojax.eval.analysis import analyse, compare
from yolojax.eval.coco import METRICS
from yolojax.eval.matching import overlaps
from yolojax.eval.report.gallery import FOUND, IGNORED, Limits, build_gallery, errors_per_image
from yolojax.eval.report.markdown import plain
from yolojax.eval.report.pictures import PICTURE_FILES, report_pictures
from yolojax.eval.report.write import REPORT_FILES, write_report
from yolojax.eval.tide import KINDS, tide_errors

HOSTILE = (
    "</script><script>window.broken=1</script>",
    "a|b\n# c",
    "<img src=x onerror=alert(1)>",
    "犬 собака كلب",
    "{{7*7}}",
)


def read(folder: Path) -> tuple[dict, str, str]:
    facts = json.loads((folder / "metrics.json").read_text())
    return facts, (folder / "report.md").read_text("utf-8"), (folder / "index.html").read_text("utf-8")


def data_of(page: str) -> dict:
    """The JSON that the page's script reads."""
    block = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block.group(1))


def test_three_files_that_agree(make_case, tmp_path: Path) -> None:
    truth, found = make_case(1)
    analysis = analyse(truth, found, samples=20)
    worse = analyse(truth, found[::2], samples=20)
    write_report(tmp_path, analysis, comparison=compare(analysis, worse), provenance={"command": "a b"}, title="T")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(REPORT_FILES)
    facts, text, page = read(tmp_path)
    assert list(facts)[:14] == [*METRICS, "precision", "recall"]
    assert facts["AP"] == analysis.result.AP and facts["intervals"]["AP"]["low"] == analysis.interval("AP").low
    assert facts["provenance"]["command"] == "a b" and "pycocotools" in facts["provenance"]["versions"]
    assert facts["comparison"]["numbers"][0]["difference"] == analysis.result.AP - worse.result.AP
    assert sum(map(sum, facts["confusions"]["counts"][:-1])) == analysis.result.counters.objects
    for name in METRICS:
        assert f"{analysis.value(name):.3f}" in text and f"{analysis.value(name):.3f}" in page
    for line in (analysis.reading.diagnosis, analysis.reading.next):
        assert plain(line) in text
    assert analysis.reading.rule == facts["diagnosis"]["rule"]
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/2000/svg", "", page)  # nothing is loaded from anywhere


def test_no_name_breaks_out(make_case, tmp_path: Path) -> None:
    truth, found = make_case(2, classes=5)
    for record, name in zip(truth["categories"], HOSTILE, strict=True):
        record["name"] = name
    for record, name in zip(truth["images"], HOSTILE, strict=False):
        record["file_name"] = name
    write_report(tmp_path, analyse(truth, found, samples=0), provenance={"command": HOSTILE[0]}, title=HOSTILE[0])
    _, text, page = read(tmp_path)
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<img" not in page
    assert data_of(page)["classes"] == list(HOSTILE)
    assert "49" not in re.findall(r"<th scope=\"row\">([^<]*)</th>", page)
    assert HOSTILE[3] in page and HOSTILE[3] in text
    assert "\n# c" not in text and "<script" not in re.sub(r"\\<", "", text)
    widths = {
        line.replace(r"\|", "").count("|") for line in text.split("## Classes")[1].split("##")[0].splitlines() if line
    }
    assert len(widths) == 1  # no name adds a column


@pytest.mark.parametrize(
    "kind", ["no detections", "no objects", "no images", "one class", "eighty classes", "no sizes"]
)
def test_every_kind_of_data_set(kind: str, make_case, tmp_path: Path) -> None:
    truth, found = make_case(3, classes={"one class": 1, "eighty classes": 80}.get(kind, 3))
    if kind == "no detections":
        found = []
    elif kind == "no objects":
        truth["annotations"] = []
    elif kind == "no images":
        truth, found = {"images": [], "categories": [], "annotations": []}, []
    elif kind == "no sizes":
        truth["images"] = [{"id": r["id"]} for r in truth["images"]]
    analysis = analyse(truth, found, samples=4)
    write_report(tmp_path, analysis)
    facts, text, page = read(tmp_path)
    shown = data_of(page)
    assert len(shown["images"]) == len(truth["images"]) and all(one["width"] > 1 for one in shown["images"])
    nothing = kind in ("no objects", "no images")
    assert (facts["AP"] is None, facts["diagnosis"] is None) == (nothing, nothing)
    assert ("nothing to diagnose" in page) == nothing
    assert "nan" not in re.findall(r"[a-z]+", text.lower()) and ">nan<" not in page.lower() and ">-1" not in page
    if kind == "no detections":
        assert (
            facts["AP"] == 0
            and facts["precision"] is None
            and facts["calibration"]["expected_calibration_error"] is None
        )


def test_gallery_holds_the_worst_and_every_kind(make_case) -> None:
    truth, found = make_case(5, images=40, classes=6)
    analysis = analyse(truth, found, samples=0)
    counts = errors_per_image(analysis)
    gallery = build_gallery(analysis, limits=Limits(images=12, worst=4, per_kind=1, boxes=3))
    assert len(gallery.images) == 12 and gallery.total == 40
    assert [g["errors"] for g in gallery.images] == sorted((g["errors"] for g in gallery.images), reverse=True)
    assert [g["errors"] for g in gallery.images[:4]] == sorted(counts.sum(axis=1).tolist(), reverse=True)[:4]
    names = {g["name"] for g in gallery.images}
    for k, kind in enumerate(KINDS):
        assert gallery.with_errors[kind] == np.sum(counts[:, k] > 0)
        assert analysis.truth.file_names[int(counts[:, k].argmax())] in names
    assert all(len(g["found"]) <= 3 for g in gallery.images) and gallery.cut > 0
    whole = build_gallery(analysis)
    assert len(whole.images) == 40 and whole.cut == 0 and whole.cut_objects == 0


def test_images_of_the_gallery_are_bounded_and_overlaps_are_those_of_the_pairs(make_case) -> None:
    truth, found = make_case(5, images=6, classes=2)
    analysis = analyse(truth, found, samples=0)
    whole, few = build_gallery(analysis), build_gallery(analysis, limits=Limits(objects=2))
    assert all(len(g["truth"]) <= 2 for g in few.images)
    assert few.cut_objects == sum(max(len(g["truth"]) - 2, 0) for g in whole.images) > 0
    pointing = [(row, g["truth"][row[7]]) for g in whole.images for row in g["found"] if row[7] >= 0]
    for row, about in pointing:
        table = overlaps(np.array([row[:4]], float), np.array([about[:4]], float), np.zeros(1, bool))
        assert abs(row[8] - table[0, 0]) < 0.02  # boxes of the page are rounded
    assert pointing


def test_errors_at_a_confidence_are_those_of_what_scores_more(make_case) -> None:
    """An independent way to the counts: throw away what scores less, and let the breakdown look at the rest."""
    truth, found = make_case(6, crowd=0.2)
    for confidence in (0.25, 0.6):
        analysis = analyse(truth, found, confidence=confidence, samples=0)
        rest = analyse(truth, [d for d in found if d["score"] >= confidence], samples=0)
        errors = tide_errors(rest.truth, rest.found)
        assert errors_per_image(analysis).sum(axis=0).tolist() == [getattr(errors, kind).count for kind in KINDS]


def test_boxes_of_an_image_say_what_they_are(make_case) -> None:
    truth, found = make_case(7, images=3, crowd=0.3)
    analysis = analyse(truth, found, samples=0)
    for image in build_gallery(analysis).images:
        number = truth["images"][[r["file_name"] for r in truth["images"]].index(image["name"])]["id"]
        mine = [a for a in truth["annotations"] if a["image_id"] == number]
        np.testing.assert_allclose([r[:4] for r in image["truth"]], [a["bbox"] for a in mine], atol=0.05)
        assert [r[5] for r in image["truth"]] == [a["iscrowd"] for a in mine]
        for row in image["found"]:
            about = image["truth"][row[7]] if row[7] >= 0 else None
            if row[6] == FOUND:
                assert about[4] == row[4] and about[6] == row[5] and row[8] >= 0.5
            elif row[6] != IGNORED:
                kind = KINDS[row[6]]
                assert (about is None) == (kind == "background")
                if about is not None:
                    assert (about[4] == row[4]) == (kind in ("localisation", "duplicate"))
                    assert (row[8] >= 0.5) == (kind in ("classification", "duplicate"))


def test_photos_and_photos_that_are_not_there(make_case, tmp_path: Path) -> None:
    truth, found = make_case(8)
    bad = truth["images"][2]["id"]

    def photo(image_id):
        if image_id == bad:
            raise DataError("b.jpg is not there")
        return np.full((800, 400, 3), 128, np.uint8)

    write_report(tmp_path, analyse(truth, found, samples=0), photo=photo)
    page = read(tmp_path)[2]
    images = {one["id"]: one for one in data_of(page)["images"]}
    assert images[str(bad)]["thumbnail"] is None and "1 images are shown as boxes alone" in page
    assert "b.jpg is not there" in page
    others = [one for key, one in images.items() if key != str(bad)]
    assert all(one["thumbnail"].startswith("data:image/jpeg;base64,") for one in others)


@pytest.mark.parametrize("kind", ["hostile names", "no objects", "no images"])
def test_pictures_of_every_kind_of_data_set(kind: str, make_case, tmp_path: Path) -> None:
    truth, found = make_case(2, images=4, classes=5)
    if kind == "hostile names":
        for record, name in zip(truth["categories"], (*HOSTILE[:2], HOSTILE[3], "$x_1$", "_hidden"), strict=True):
            record["name"] = name
    elif kind == "no objects":
        truth["annotations"] = []
    else:
        truth, found = {"images": [], "categories": [], "annotations": []}, []
    write_report(tmp_path / "page", analyse(truth, found, samples=0), pictures=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "page").iterdir()) == sorted(REPORT_FILES)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(PICTURE_FILES)
    for name in PICTURE_FILES:
        with Image.open(tmp_path / "run" / name) as picture:
            pixels = np.asarray(picture.convert("L"))
        # Something is drawn, and nothing is cut off at the border.
        assert (pixels < 128).any() and all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0]))


def test_pictures_follow_the_settings_of_matplotlib(make_case) -> None:
    """Titles stand in the middle, and a frame without an upper line stays without it in every picture."""
    truth, found = make_case(6, images=12)
    analysis = analyse(truth, found, samples=0)
    usual = report_pictures(analysis)
    with matplotlib.rc_context({"axes.titlelocation": "left", "axes.spines.top": False}):
        own = report_pictures(analysis)
    for name in ("PR_curve.png", "F1_curve.png"):
        one, other = (np.asarray(Image.open(io.BytesIO(files[name])).convert("L")) for files in (usual, own))
        upper = int(np.argmax((one < 50).sum(axis=1) > 400))  # the upper line of the frame
        np.testing.assert_array_equal(one[: upper - 2], other[: upper - 2])  # the title
        assert (one[:upper] < 128).any() and (other[upper] < 50).sum() < 100


def test_differences_are_the_objects_that_one_finds(make_case, tmp_path: Path) -> None:
    truth, found = make_case(6, images=12)
    first = analyse(truth, found, samples=2)
    second = analyse(truth, found[1::2], samples=2)
    write_report(tmp_path, first, comparison=compare(first, second))
    facts, _, page = read(tmp_path)

    def objects_found(analysis) -> set[int]:
        confidence = analysis.result.at_confidence.confidence
        pairs = zip(analysis.matches.object_of, analysis.found.scores, strict=True)
        return {int(k) for k, score in pairs if k >= 0 and score >= confidence}

    a, b = objects_found(first), objects_found(second)
    objects = {k for k, crowd in enumerate(first.truth.crowd) if not crowd}
    wanted = {"both": a & b, "only_A": a - b, "only_B": b - a, "neither": objects - a - b}
    assert facts["comparison"]["objects"] == {name: len(some) for name, some in wanted.items()} and a - b
    shown = data_of(page)["differences"]
    assert sum(pair["only_A"] for pair in shown) == len(a - b) and sum(pair["only_B"] for pair in shown) == len(b - a)
    assert len(shown) == len({int(first.truth.images[k]) for k in a ^ b})
    sums = [pair["only_A"] + pair["only_B"] for pair in shown]
    assert sums == sorted(sums, reverse=True)
    assert f"only A {len(a - b)}, only B {len(b - a)}" in page


def test_history_and_heat_maps(make_case, tmp_path: Path) -> None:
    truth, found = make_case(6, images=12)
    analysis = analyse(truth, found, samples=0)
    rows = [{"epoch": k, "train/loss": 9.0 / k, "learning_rate": 0.1, "val/AP": k / 9, "val/APl": None} for k in (1, 2)]
    write_report(tmp_path, analysis, history=rows)
    page = read(tmp_path)[2]
    assert re.findall(r"<h3>((?:train|val)/\w+|learning_rate)</h3>", page) == ["train/loss", "learning_rate", "val/AP"]
    assert "<title>2: 4.5</title>" in page
    objects = int(np.sum(~analysis.truth.crowd))
    # Every object has a place and a size.
    assert sum(int(n) for n in re.findall(r"<title>(\d+) objects</title>", page)) == 2 * objects
    write_report(tmp_path, analysis)
    assert '<section id="training">' not in read(tmp_path)[2]
