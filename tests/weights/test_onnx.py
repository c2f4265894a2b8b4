"""Initialisers of ONNX models, against the package ``onnx`` (a golden) and against damage."""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from yolojax.errors import CheckpointError
from yolojax.weights._bounds import Budget, Malformed
from yolojax.weights._literal import parse_literal
from yolojax.weights.foreign import WeightFile, class_names, input_size, read_weight_file
from yolojax.weights.onnx import read_onnx

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
MODEL = GOLDENS / "onnx_initialisers.onnx"


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def model(*initialisers: bytes) -> bytes:
    return field(1, 8) + field(7, b"".join(field(5, tensor) for tensor in initialisers))


def tensor(shape: tuple[int, ...] = (2,), kind: int = 1, name: str = "w", **fields: bytes | int) -> bytes:
    numbers = {"raw": 9, "floats": 4, "external": 13, "location": 14}
    start = b"".join(field(1, size) for size in shape) + field(2, kind) + field(8, name.encode())
    return start + b"".join(field(numbers[key], content) for key, content in fields.items())


def attempt(tmp_path: Path, content: bytes) -> WeightFile | str:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        return read_onnx(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return str(error)


def test_every_way_of_storing_numbers_is_read() -> None:
    file = read_weight_file(MODEL)
    assert file.form == "onnx"
    expected = np.load(GOLDENS / "onnx_expected.npz")
    kinds = json.loads(str(expected["kinds"]))
    assert list(file.tensors) == list(kinds)
    for name, (dtype, shape) in kinds.items():
        array = file.tensors[name]
        assert [str(array.dtype), list(array.shape)] == [dtype, shape]
        assert array.tobytes() == expected[name].tobytes()
        assert not array.flags.writeable


def test_metadata_nodes_inputs_and_outputs_are_told() -> None:
    file = read_weight_file(MODEL)
    assert class_names(file) == ("cat", "dog's")
    assert input_size(file) == (64, 96)
    root = file.modules[""].attributes
    assert (root["stride"], root["task"], root["date"]) == (32, "detect", "2026-11-28")
    assert root["inputs"] == {"images": ["batch", 3, 64, 96]}
    assert root["outputs"] == {"output0": [1, 6, 126]}
    node = file.modules["/model.0/conv/Conv"]
    assert node.class_path == "onnx.Conv"
    assert node.attributes == {"inputs": ["images", "float32.raw"], "outputs": ["features"]}
    assert file.metadata == {"producer": "maker"}


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    raw = struct.pack("<2f", 1, 2)
    assert isinstance(attempt(tmp_path, model(tensor(raw=raw))), WeightFile)
    cases = {
        "two initialisers": model(tensor(raw=raw), tensor(raw=raw)),
        "another file": model(tensor(raw=raw, location=1)),
        "in another file": model(tensor(external=b"x")),
        "type 8": model(tensor(kind=8, raw=raw)),
        "has 8 bytes": model(tensor((3,), raw=raw)),
        "has 2 numbers": model(tensor((3,), floats=raw)),
        "has the shape": model(tensor(((1 << 64) - 1,), raw=raw)),
        "has the shape [0, 1099511627776]": model(tensor((0, 1 << 40), raw=b"")),
        "truth values": model(tensor((8,), 9, raw=raw)),
        "allowed": model(tensor((1 << 50,), floats=raw)),
        "0 graphs": field(1, 8),
        "2 graphs": model() + model(),
        "sparse": field(1, 8) + field(7, field(15, b"")),
        "wire type 3": b"\x0b",
        "reaches out": field(1, 8) + b"\x3a\x7f",
        "cut off": b"\x08",
        "ten bytes": b"\xff" * 12,
        "number stands where": field(1, 8) + field(7, 3),
        "empty": b"",
    }
    for word, content in cases.items():
        message = attempt(tmp_path, content)
        assert isinstance(message, str) and word in message, (word, message)


def test_cut_and_damaged_models_end_in_errors_or_data(tmp_path: Path) -> None:
    content, rng = MODEL.read_bytes(), random.Random(0)
    for place in rng.sample(range(len(content)), 60):
        attempt(tmp_path, content[:place])
        damaged = bytearray(content)
        damaged[place] = rng.randrange(256)
        attempt(tmp_path, bytes(damaged))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{0: 'a', 1: \"b's\"}", {0: "a", 1: "b's"}),
        ("[640, 640]", [640, 640]),
        ("(1, -2.5, 1e3, True, None)", (1, -2.5, 1000.0, True, None)),
        ("32", 32),
        ("8.3", "8.3"),
        ("8.3.202", "8.3.202"),
        ("2026-11-28", "2026-11-28"),
        ("__import__('os')", "__import__('os')"),
        ("[__import__('os')]", "[__import__('os')]"),
        ("{0: 'a'", "{0: 'a'"),
        ("[" * 9 + "]" * 9, "[" * 9 + "]" * 9),
        ("[9**9]", "[9**9]"),
        ("['\\x41']", "['\\x41']"),
        ("[" + "1" * 70000, "[" + "1" * 70000),
        ("[" + "1" * 60000 + "!", "[" + "1" * 60000 + "!"),
        ("{[]: 1}", "{[]: 1}"),
    ],
)
def test_literals_are_parsed_and_nothing_else(text: str, value: object) -> None:
    assert parse_literal(text, Budget(1 << 20, "the text")) == value


def test_the_memory_of_a_literal_is_charged() -> None:
    """Eight texts of 20,000 empty dictionaries fit into 16 MB; the ninth does not."""
    budget, text = Budget(16 << 20, "the texts"), "[" + "{}," * 20_000 + "]"
    for _ in range(8):
        assert len(parse_literal(text, budget)) == 20_000
    with pytest.raises(Malformed, match="the texts would take more"):
        parse_literal(text, budget)
