"""A short run of the fuzzer of all readers; CONTRIBUTING has the command of the long one."""

import pytest

from tests.fuzz_readers import SLOW, fuzz

DEAR = {"checkpoint": 25, "released": 25, "command_line": 12}
"""How many cases there are of those kinds of which one takes a tenth of a second."""


@pytest.mark.parametrize(
    "kind",
    [
        "coco",
        "truth",
        "results",
        "voc",
        "many_voc",
        "yaml",
        "txt",
        "many_txt",
        "image",
        "cfg",
        "safetensors",
        "onnx",
        "npz",
        *DEAR,
    ],
)
def test_mutated_files_end_in_data_or_in_a_named_error(kind, tmp_path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx", reason="the extra onnx is not installed")
    said: list[str] = []
    wrong, longest = fuzz(kind, DEAR.get(kind, 60), 0, tmp_path, said.append)
    assert wrong == 0 and longest < SLOW, said
