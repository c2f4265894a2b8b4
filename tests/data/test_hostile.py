"""Files that are made, or broken, so that readers hang, fill the memory or end in a traceback: one short error each."""

import json
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from yolojax.data import open_dataset
from yolojax.data.documents import load_json, load_yaml
from yolojax.errors import ConfigError, DataError, YolojaxError, shown
from yolojax.weights.class_names import read_class_names
from yolojax.weights.darknet import parse_cfg, read_cfg, read_weights

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    return tmp_path


def refused(path, *says):
    """Opening raises one short `DataError` soon; returns its text."""
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    text = str(caught.value)
    assert time.process_time() - start < 3 and len(text) < 1000 and "\n" not in text
    assert all(part in text for part in says), text
    return text


@pytest.mark.parametrize("key", ["names", "nc", "train", "val", "path", "kpt_shape", "other"])
def test_aliases_that_stand_for_billions_are_not_written_out(folder, key):
    content = {"names": "[a]", "train": "images"} | {key: "*a8"}
    (folder / "data.yaml").write_text(BOMB + "".join(f"{name}: {value}\n" for name, value in content.items()))
    if key == "other":
        assert open_dataset(folder).object_count == 1
    else:
        refused(folder, "data.yaml")


def test_a_name_that_no_file_system_takes(folder):
    (folder / "data.yaml").write_text(f"path: {'a' * 300}\ntrain: images\nnames: [a]\n")
    assert open_dataset(folder / "data.yaml").object_count == 1  # the folder was moved
    (folder / "data.yaml").write_text(f"train: {'a' * 300}\nnames: [a]\n")
    refused(folder / "data.yaml", "data.yaml", "aaa...")


@pytest.mark.parametrize("entry", ["/", "\\", "//", "../" * 40])
def test_the_root_of_the_file_system_is_no_folder_of_images(folder, entry):
    (folder / "data.yaml").write_text(f"train: {entry}\nnames: [a]\n")
    refused(folder / "data.yaml", "data.yaml train", "the root of the file system; name the folder")
    (folder / "data.yaml").write_text(f"train: images\nmore: {entry}\nnames: [a]\n")
    refused(folder / "data.yaml", "data.yaml more")


def test_merge_keys_that_multiply(folder):
    lines = ["a0: &a0 {" + ", ".join(f"k{i}: 1" for i in range(9)) + "}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 9)]
    (folder / "data.yaml").write_text("\n".join([*lines, "names: [a]", "train: images"]))
    start = time.process_time()
    try:  # newer versions of PyYAML merge each key once
        assert open_dataset(folder).object_count == 1
    except DataError as error:
        assert "merge keys" in str(error)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("names: [a]\ntrain: images\nnc: 0x" + "f" * 9000, "nc is an integer of 36000 bits"),
        ("names: [a]\ntrain: images\nnc: " + "1:" * 3000 + "1", "nc is an integer of"),
        ("names: [a]\ntrain: 1:30", "train is 90, not a path"),
        ("names: [0x" + "f" * 9000 + "]\ntrain: images", "class 0 is an integer of 36000 bits"),
        ("names: [a]\ntrain: images\nnc: " + "9" * 5000, "malformed YAML"),
        ("names: [a]\ntrain: images\nnc: " + "9" * 10**6, "a value of 1000000 characters"),
        ("names: ['" + "x" * 600 + "']\ntrain: images", "class 0 is called 'xxx"),
        ('names: ["\\ud800"]\ntrain: images', "data.yaml"),
        ("names: {? [a] : b}\ntrain: images", "data.yaml"),
        ("names: {? {a: 1} : b}\ntrain: images", "malformed YAML"),
        ("? [names]\n: x\nnames: [a]\ntrain: " + "[" * 5000, "malformed YAML"),
        ("names: [a]\ntrain: !!binary aW1hZ2Vz", "train is"),
        ("names: [a]\ntrain: !!set {images}", "train is"),
        ("names: [a]\ntrain: 2020-01-01", "train is a date, not a path"),
        ("names: [a]\ntrain: .nan", "train is nan, not a path"),
        ("names: &n [*n]\ntrain: images", "data.yaml"),
        ("names: [a]\npath: {a: b}\ntrain: images", "path is {'a': 'b'}, not a path"),
        ("names: [a]\nkpt_shape: [1e9, 3]\ntrain: images", "kpt_shape is"),
        ("names: [a]\ntrain: 'images\\0x'", "data.yaml"),
        ("names: [a]\ntrain: " + "x" * 5000, "train is 'xxx"),
        ("names: [a]\ntrain: images\nnames: [b]", "the key 'names' stands twice"),
    ],
)
def test_values_of_other_kinds_in_yaml(folder, text, says):
    (folder / "data.yaml").write_text(text)
    refused(folder / "data.yaml", says)


def test_yaml_of_hundreds_of_megabytes_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr("yolojax.data.documents.LARGEST_YAML", 1000)
    (folder / "data.yaml").write_text("names: [a]\ntrain: images\n# " + "x" * 1000)
    refused(folder, "characters of YAML, while 1000 are the most")


@pytest.mark.parametrize(
    "text",
    [
        '<?xml version="1.0" encoding="nonsense"?><annotation/>',
        '<?xml version="1.0" encoding="utf-7"?><annotation/>',
        '<?xml version="1.0" encoding="rot13"?><annotation/>',
        '<?xml version="1.0" encoding="gb2312"?><annotation>\u0100',
        "<annotation>" + "<a>" * 50_000,
        "<annotation><size><width>" + "9" * 10**5 + "</width><height>1</height></size></annotation>",
        "<annotation><filename>" + "x/" * 10**5 + "</filename></annotation>",
        "<annotation><object><name>" + "x" * 10**6 + "</name></object></annotation>",
        "<annotation><object><name>a</name><bndbox><xmin>" + "1" * 10**6 + "</xmin></bndbox></object></annotation>",
    ],
)
def test_odd_xml(tmp_path, text):
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(text, encoding="utf-8")
    good = "<annotation><object><name>b</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"
    (tmp_path / "Annotations" / "b.xml").write_text(f"{good}</object></annotation>")
    # A file name too long for any file is none: the photo of the same stem counts, and the next file is at fault.
    at_fault = "b.xml" if "<filename>" in text else "a.xml"
    refused(tmp_path, at_fault if "<name>x" not in text else "class 1 is called")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"' + "x" * 10**6 + '": 1, "' + "x" * 10**6 + '": 2}', "stands twice"),
        ("[" * 10**5, "nested too deeply"),
        ("9" * 10**5, "malformed JSON"),
        ("{" * 3, "malformed JSON"),
    ],
)
def test_odd_json(tmp_path, text, says):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError) as caught:
        load_json(tmp_path / "x.json")
    assert says in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX")
@pytest.mark.parametrize(
    "name",
    ["data.yaml", "x.json", "obj.data", "Annotations/a.xml", "a.xml", "images/a.txt", "annotations/instances_a.json"],
)
def test_named_pipes_are_not_waited_for(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    ended = threading.Event()

    def run() -> None:
        for path in (folder, folder / name):
            try:
                open_dataset(path)
            except YolojaxError:
                continue
        for read in (read_cfg, read_class_names, lambda path: read_weights(path, parse_cfg(CFG))):
            with pytest.raises(YolojaxError, match="no ordinary file"):
                read(folder / name)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    assert ended.wait(20)


CFG = """[net]
width=32
height=32
channels=3
[convolutional]
filters=18
[yolo]
anchors=1,2,3,4,5,6
num=3
classes=1
"""


def test_values_are_shown_shortly():
    assert shown("x" * 10**7) == "'" + "x" * 76 + "..."
    assert shown(10**5000).startswith("an integer of") and shown(b"\0" * 10**6).endswith("...")
    assert shown({"a": [1, 2, 3, 4, 5]}) == "{'a': [1, 2, 3, 4, ...]}"
    assert len(shown([[["y" * 1000] * 100] * 100] * 100)) <= 80
    assert shown(np.int64(-3)) == "-3" and shown([np.float32(0.5), np.bool_(True)]) == "[0.5, True]"
    assert shown(np.zeros((2, 3))) == "an array of shape [2, 3]"
    assert shown(object()) == "a object" and shown(None) == "None" and shown(True) == "True"


def test_messages_have_an_end():
    text = str(ConfigError("a" * 10**6 + "the mend"))
    assert len(text) < 1600 and text.endswith("the mend")


@pytest.mark.parametrize("name", ["\ud800", "a\x1b[31m", "a\0"])
def test_class_names_that_are_no_text(tmp_path, name):
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": name}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    refused(tmp_path / "x.json", "class 0 is called")


def test_yaml_keeps_its_meaning(tmp_path):
    """What the stricter loader reads, the plain one reads alike."""
    import yaml

    text = 'names: {0: "a", 1: b}\n"0": 1\n0: 2\nbase: &b {x: 1}\nmore: {<<: *b, y: 2}\n'
    (tmp_path / "a.yaml").write_text(text)
    assert load_yaml(tmp_path / "a.yaml") == yaml.safe_load(text)
