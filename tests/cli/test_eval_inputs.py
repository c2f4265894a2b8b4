"""``yolojax eval`` on data sets without ids of their own, on folders and files of the same set, and its options."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def yolo_set(tmp_path) -> Path:
    """Twelve images 1.jpg to 12.jpg in YOLO layout, which the data set numbers in the order 1, 10, 11, 12, 2, ..."""
    rng, rows = np.random.default_rng(5), []
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for k in range(1, 13):
        Image.new("RGB", (200, 160), (k, 90, 90)).save(tmp_path / "set" / "images" / f"{k}.jpg")
        x, y, w, h = (int(rng.integers(*ends)) for ends in ((5, 90), (5, 70), (30, 90), (30, 80)))
        line = f"0 {(x + w / 2) / 200:.8f} {(y + h / 2) / 160:.8f} {w / 200:.8f} {h / 160:.8f}\n"
        (tmp_path / "set" / "labels" / f"{k}.txt").write_text(line)
        rows.append({"image_id": k, "category_id": 1, "bbox": [x, y, w, h], "score": round(0.5 + k / 30, 3)})
    (tmp_path / "set" / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    (tmp_path / "d.json").write_text(json.dumps(rows))
    return tmp_path / "set"


def ap(out: str) -> str:
    return next(line for line in out.splitlines() if line.startswith("AP ")).split()[1]


def test_integer_ids_go_by_file_name_where_the_data_set_has_none(yolo_set, yolojax, tmp_path):
    rows = json.loads((tmp_path / "d.json").read_text())
    forms = {
        "numbers": rows,
        "names": [{**row, "image_id": str(row["image_id"])} for row in rows],
        "files": [{**row, "file_name": f"{row['image_id']}.jpg", "image_id": 7} for row in rows],
    }
    for name, form in forms.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(form))
        ended = yolojax("eval", yolo_set, tmp_path / f"{name}.json")
        assert ended.code == 0 and ap(ended.out) == "1.000" and "warning" not in ended.out, name
    (tmp_path / "strange.json").write_text(json.dumps([{**rows[0], "image_id": 77}]))
    ended = yolojax("eval", yolo_set, tmp_path / "strange.json")
    assert ended.code == 2 and "joined by file name here, and 77 is" in ended.err


def test_options_read_other_conventions(yolo_set, yolojax, tmp_path):
    rows = json.loads((tmp_path / "d.json").read_text())
    corners = [
        {**row, "bbox": [*row["bbox"][:2], *(np.add(row["bbox"][:2], row["bbox"][2:]).tolist())]} for row in rows
    ]
    shifted = [{**row, "category_id": 0, "score": 100 * row["score"]} for row in corners]
    (tmp_path / "d.json").write_text(json.dumps(shifted))
    options = ("--box-format", "xyxy", "--category-ids", "from-zero", "--score-format", "percent")
    ended = yolojax("eval", yolo_set, tmp_path / "d.json", *options)
    assert ended.code == 0 and ap(ended.out) == "1.000" and "warning" not in ended.out
    ended = yolojax("eval", yolo_set, tmp_path / "d.json", *options[2:])
    assert ended.code == 0 and "--box-format xyxy" in ended.out
    ended = yolojax("eval", yolo_set, tmp_path / "d.json", "--box-format", "yolo")
    assert ended.code == 2 and "give one of xywh" in ended.err


def test_a_coco_folder_and_its_file_give_one_number(yolojax, tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "set" / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 200)).save(tmp_path / "set" / "images" / name)
    boxes = [(1, [10, 10, 50, 50]), (1, [100, 100, 0, 50]), (2, [150, 150, 100, 100]), (2, [300, 300, 50, 50])]
    truth = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 200, "height": 200} for k in (1, 2)],
        "annotations": [
            {"id": k + 1, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for k, (image, box) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "set" / "annotations").mkdir()
    file = tmp_path / "set" / "annotations" / "instances_val.json"
    file.write_text(json.dumps(truth))
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": [150, 150, 50, 50], "score": 0.8},
    ]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    by_file, by_folder = yolojax("eval", file, "d.json"), yolojax("eval", "set", "d.json")
    assert by_file.code == by_folder.code == 0 and ap(by_file.out) == ap(by_folder.out) == "0.257"
    assert "2 objects have no area or lie outside their image" in by_folder.out


def test_backends_are_named_and_agree(yolo_set, yolojax, tmp_path):
    pytest.importorskip("hotcoco", reason="the optional backend (extra fast-eval) is not installed")
    fast, slow = (yolojax("eval", yolo_set, tmp_path / "d.json", *o) for o in ((), ("--backend", "pycocotools")))
    assert "numbers by hotcoco" in fast.out and "numbers by pycocotools" in slow.out
    assert fast.out.replace("hotcoco", "pycocotools") == slow.out


def test_an_address_is_no_file(yolojax, tmp_path):
    ended = yolojax("eval", "https://example.org/truth.json", "d.json")
    assert ended.code == 2 and "is an address, not a file" in ended.err and ended.err.count("\n") == 1


def test_an_interrupted_report_leaves_no_part_of_it(yolo_set, yolojax, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("yolojax.eval.report.write.render_page", fail)
    ended = yolojax("eval", yolo_set, tmp_path / "d.json", "--out", "report", "--samples", "0")
    assert ended.code == 130 and not any((tmp_path / "report").iterdir())


def test_a_voc_folder_is_evaluated_without_its_images(yolojax, tmp_path):
    box = "<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
    size = "<size><width>200</width><height>200</height></size>"
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    for name in ("a", "b"):
        text = f"<annotation><filename>{name}.jpg</filename>{size}<object><name>cat</name>{box}</object></annotation>"
        (tmp_path / "voc" / "Annotations" / f"{name}.xml").write_text(text)
    rows = [{"image_id": name, "category_id": 1, "bbox": [10, 10, 50, 50], "score": 0.9} for name in ("a", "b")]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    ended = yolojax("eval", "voc", "d.json", "--out", "report", "--samples", "0")
    assert ended.code == 0 and ap(ended.out) == "1.000"
