"""Safetensors files with names of other programs."""

import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from yolojax.errors import CheckpointError
from yolojax.weights.foreign import class_names, count_parameters, read_weight_file
from yolojax.weights.safetensors import read_safetensors


def test_names_types_and_metadata_are_kept(tmp_path: Path) -> None:
    tensors = {
        "backbone.conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "backbone.bn.running_mean": np.ones(3, np.float16),
        "backbone.bn.num_batches_tracked": np.array(7),
        "half": np.arange(4).astype(ml_dtypes.bfloat16),
    }
    path = tmp_path / "weights"
    save_file(tensors, path, metadata={"tied.weight": "backbone.conv.weight", "names": "{0: 'cat', 1: 'dog'}"})
    file = read_weight_file(path)
    assert (file.form, file.root) == ("safetensors", "")
    assert file.metadata == {"tied.weight": "backbone.conv.weight", "names": {0: "cat", 1: "dog"}}
    assert class_names(file) == ("cat", "dog")
    assert set(file.tensors) == set(tensors)
    for name, array in tensors.items():
        assert file.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(file.tensors[name], array)
    assert count_parameters(file) == 6 + 4


def test_a_header_of_any_length_is_one(tmp_path: Path) -> None:
    """One of 32 files begins with the byte 0x80, like a pickle: that is the last byte of its header's length."""
    begins = set()
    for length in range(0, 256, 8):
        path = tmp_path / "weights.safetensors"
        save_file({"w": np.ones(3, np.float32)}, path, metadata={"filler": "x" * length})
        begins.add(path.read_bytes()[0])
        assert list(read_weight_file(path).tensors) == ["w"]
    assert 0x80 in begins


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.ones(3, np.float32)}, path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place])
        with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
            read_safetensors(path)
    header = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"abcd")
    with pytest.raises(CheckpointError, match="'w' holds numbers of type F8_E4M3"):
        read_safetensors(path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_safetensors(tmp_path / "none")
    with pytest.raises(CheckpointError, match="only a PyTorch file"):
        path.write_bytes(content)
        read_weight_file(path, root="model")
