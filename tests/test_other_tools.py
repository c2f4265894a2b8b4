"""Files of other annotation tools are named for what they are, and files of the formats that are read are not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset
from yolojax.errors import DataError, ResultError
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.result_format import ResultFormat
from yolojax.other_tools import name_other_results, name_other_tool

POINTS = [[1, 1], [9, 8]]
LABELME = {"version": "5.0", "flags": {}, "shapes": [{"label": "cat", "points": POINTS}], "imagePath": "a.jpg"}
REGION = {"shape_attributes": {"name": "rect", "x": 1, "y": 1}, "region_attributes": {"type": "cat"}}
VIA = {"a.jpg1": {"filename": "a.jpg", "regions": [REGION]}}
OBJECT = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": POINTS, "interior": []}}
SUPERVISELY = {"description": "", "tags": [], "size": {"height": 10, "width": 20}, "objects": [OBJECT]}
BOX = {"id": 0, "type": "bbox", "label_id": 0, "bbox": [1, 1, 8, 7]}
ITEM = {"id": "a", "annotations": [BOX], "image": {"path": "a.jpg"}}
DATUMARO = {"dm_format_version": "1.0", "categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [ITEM]}
CVAT = (
    "<?xml version='1.0'?>\n<annotations><version>1.1</version><meta><task/></meta>\n"
    "<image id='0' name='a.jpg' width='20' height='10'><box label='cat' xtl='1' ytl='1' xbr='9' ybr='8'/></image>"
    "</annotations>"
)
KITTI = "Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
DOTA = "imagesource:GoogleEarth\ngsd:0.146\n937 913 921 912 923 874 940 875 small-vehicle 0\n"
OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded\na,xclick,/m/01,1,.1,.5,.2,.6,0\n"
TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,20,10,cat,1,1,9,8\n"

FILES = {
    "LabelMe": ("images/a.json", LABELME),
    "LabelMe among annotations": ("annotations/a.json", LABELME),
    "VIA": ("via_region_data.json", VIA),
    "VIA project": ("via_project.json", {"_via_settings": {}, "_via_img_metadata": VIA}),
    "Supervisely": ("ds0/ann/a.jpg.json", SUPERVISELY),
    "Supervisely without objects": ("ds0/ann/a.jpg.json", {**SUPERVISELY, "objects": []}),
    "Datumaro": ("annotations/default.json", DATUMARO),
    "CVAT": ("annotations.xml", CVAT),
    "CVAT in a folder": ("Annotations/annotations.xml", CVAT),
    "KITTI": ("training/label_2/000000.txt", KITTI),
    "DOTA": ("labelTxt/P0000.txt", DOTA),
    "a table of boxes (CSV)": ("train/_annotations.csv", TENSORFLOW),
    "a table of boxes (CSV) as of OpenImages": ("train.csv", OPEN_IMAGES),
}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((10, 20, 3), 90, np.uint8)).save(path)


@pytest.mark.parametrize("tool", FILES)
def test_data_sets_of_other_tools_are_named(tmp_path, tool):
    name, content = FILES[tool]
    picture(tmp_path / "images" / "a.jpg")
    file = write(tmp_path / name, content)
    for place in (tmp_path, file):
        with pytest.raises(DataError) as caught:
            open_dataset(place)
        said = str(caught.value)
        assert f"looks like {tool.split(' ')[0]}" in said and "COCO" in said.replace("coco", "COCO"), said
        assert len(said) < 800, said
    if file.suffix == ".json":
        with pytest.raises(DataError, match=f"looks like {tool.split(' ')[0]}"):
            evaluate_coco(file, [])


def test_many_files_of_another_tool_are_named_once(tmp_path):
    for k in range(30):
        write(tmp_path / "annotations" / f"{k}.json", LABELME)
    with pytest.raises(DataError, match=r"looks like LabelMe") as caught:
        open_dataset(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("tool", "rows"), [("KITTI", KITTI), ("DOTA", DOTA), ("DOTA", DOTA.splitlines()[2])])
def test_label_files_with_rows_of_other_formats_are_named(tmp_path, tool, rows):
    picture(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.txt", rows)
    data = write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    with pytest.raises(DataError, match=f"line 1.*looks like {tool}"):
        open_dataset(data)


def test_images_whose_labels_are_of_another_tool_are_named(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    write(tmp_path / "labels" / "a.json", LABELME)
    write(tmp_path / "data.yaml", "train: images\nval: images\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"not one image has a label file.*a.json looks like LabelMe"):
        open_dataset(tmp_path)


def test_formats_that_are_read_and_other_files_have_no_other_name(tmp_path):
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 7]}],
        "categories": [{"id": 1, "name": "shapes"}],
        "info": {"items": [], "description": "objects"},
    }
    for name, content in {
        "coco.json": coco,
        "results.json": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 7], "score": 0.5}],
        "voc.xml": "<annotation><object><name>cat</name></object></annotation>",
        "yolo.txt": "0 .5 .5 .2 .2\n",
        "polygon.txt": "0 .1 .1 .2 .2 .3 .1 .4 .4 .1\n",
        "list.txt": "images/a.jpg\n",
        "classes.txt": "cat\ndog\n",
        "sums.csv": "name,value\na,1\n",
        "empty.json": "",
        "odd.json": "\x00\x01",
    }.items():
        assert name_other_tool(write(tmp_path / name, content)) == "", name
    assert name_other_tool(tmp_path) == ""


def test_results_of_darknet_are_named_and_the_mend_reads_them():
    box = {"center_x": 0.25, "center_y": 0.5, "width": 0.2, "height": 0.4}
    objects = [{"class_id": 0, "name": "cat", "relative_coordinates": box, "confidence": 0.9}]
    frames = [
        {"frame_id": 1, "filename": "data/b.jpg", "objects": []},
        {"frame_id": 2, "filename": "data/a.jpg", "objects": objects},
    ]
    truth = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 10}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [3, 3, 4, 4], "area": 16, "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    with pytest.raises(ResultError, match=r"Darknet's result.json.*--box-format cxcywhn"):
        evaluate_coco(truth, frames)
    assert name_other_results([]) == name_other_results([{"image_id": 1}, 3]) == ""
    rows = [
        {
            "file_name": frame["filename"],
            "category_name": one["name"],
            "score": one["confidence"],
            "bbox": [one["relative_coordinates"][key] for key in ("center_x", "center_y", "width", "height")],
        }
        for frame in frames
        for one in frame["objects"]
    ]
    result = evaluate_coco(truth, rows, result_format=ResultFormat("cxcywhn"))
    assert pytest.approx(1) == result.AP and not result.mistakes
