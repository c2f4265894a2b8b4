"""What ``yolojax info FILE`` says of a weight file."""

import json
from pathlib import Path

import numpy as np

from tests.weights import pytorch_files as write
from yolojax.weights.describe import describe, summarise
from yolojax.weights.foreign import read_weight_file

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"


def test_a_pickled_network_is_summarised() -> None:
    facts = summarise(read_weight_file(GOLDENS / "pytorch_module.pt"), "Tiny")
    assert facts["identity"] == "Tiny"
    assert (facts["form"], facts["root"]) == ("pytorch zip", "ema")
    assert (facts["class_names"], facts["strides"], facts["input_size"]) == (["cat", "dog"], [8, 16], None)
    assert (facts["parameters"], facts["numbers"]) == (44, 53)
    assert facts["types"] == {"float16": 5, "int64": 1}
    assert facts["module_types"] == {"Conv2d": 1, "BatchNorm2d": 1, "SiLU": 1}
    assert facts["tensors"][0] == ["0.weight", "float16", [4, 3, 3, 1]]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_the_text_lists_the_tensors_of_an_unknown_network_only() -> None:
    file = read_weight_file(GOLDENS / "pytorch_module.pt")
    unknown, known = describe(file), describe(file, "Tiny")
    assert "network     unknown" in unknown and "network     Tiny" in known
    assert "0.weight" in unknown and "0.weight" not in known
    assert "0.weight" in describe(file, "Tiny", list_tensors=True)
    for word in ("classes     2: cat, dog", "parameters  44", "under ema", "Sequential", "version     1.2"):
        assert word in known


def test_training_arguments_are_listed() -> None:
    text = describe(read_weight_file(GOLDENS / "pytorch_zip.pt"), list_tensors=False)
    assert "input size  320 x 320" in text
    assert "train_args\n  imgsz  320\n  lr0    0.01" in text
    assert "date        2026-11-28" in text


def test_control_characters_and_infinities_of_a_file_do_not_reach_the_terminal_or_json(tmp_path: Path) -> None:
    w = np.zeros(2, np.float32)
    value = {"model": write.dictionary({"w\x1b[2J": write.whole(w, "0")}), "date": write.text("a\x1b]0;b\a\nc")}
    value |= {"best": write.real(float("inf")), "long": write.text("x" * 300)}
    path = tmp_path / "evil.pt"
    path.write_bytes(write.zip_file(write.dictionary(value), {"0": w.tobytes()}))
    file = read_weight_file(path)
    text = describe(file)
    assert "\x1b" not in text and "\a" not in text and "\\x1b[2J" in text
    assert "x" * 101 not in text
    json.dumps(summarise(file), allow_nan=False)
