"""PyTorch files: what comes out of every form, type and layout, for PyTorch's own files and hand-written ones."""

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.weights import pytorch_files as write
from yolojax.errors import CheckpointError
from yolojax.weights.foreign import (
    Module,
    WeightFile,
    class_names,
    count_parameters,
    input_size,
    read_weight_file,
    strides,
)
from yolojax.weights.pytorch import read_pytorch

ROOT = Path(__file__).resolve().parent.parent.parent
GOLDENS = ROOT / "tests" / "goldens"

TYPES = [np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name) for name in write.STORAGES]


def read(tmp_path: Path, content: bytes, root: str | None = None) -> WeightFile:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    return read_pytorch(path, root)


def refused(tmp_path: Path, content: bytes, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, content)
    for word in ("weights.pt", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["pytorch_zip.pt", "pytorch_legacy.pt", "pytorch_module.pt"])
def test_every_tensor_equals_what_pytorch_saved(name: str) -> None:
    file = read_pytorch(GOLDENS / name)
    expected = np.load(GOLDENS / "pytorch_expected.npz")
    part = "module/" if name == "pytorch_module.pt" else "state/"
    kinds = {key.removeprefix(part): kind for key, kind in json.loads(str(expected["kinds"])).items() if part in key}
    assert list(file.tensors) == list(kinds)
    for key, (dtype, shape) in kinds.items():
        array = file.tensors[key]
        assert [str(array.dtype), list(array.shape)] == [dtype, shape]
        assert array.tobytes() == expected[part + key].tobytes()
        assert not array.flags.writeable


@pytest.mark.parametrize("name", ["pytorch_zip.pt", "pytorch_legacy.pt"])
def test_a_checkpoint_tells_its_metadata(name: str) -> None:
    file = read_weight_file(GOLDENS / name)
    assert file.form == "pytorch " + name.removesuffix(".pt").removeprefix("pytorch_")
    assert (file.root, file.root_class, file.other_roots) == ("model", "collections.OrderedDict", ())
    assert file.metadata == {
        "epoch": 7,
        "date": "2026-11-28",
        "train_args": {"imgsz": 320, "lr0": 0.01, "names": ["a", "b"]},
    }
    assert input_size(file) == (320, 320)
    assert class_names(file) is None


def test_every_trainer_says_its_input_size_in_its_own_entry() -> None:
    """Ultralytics' in ``train_args`` of the file and ``args`` of the module, YOLOv5's in ``opt``; others say none."""

    def file(**metadata):
        return WeightFile(Path("best.pt"), "pytorch zip", "dict", {}, {"": Module("dict")}, metadata)

    assert input_size(file()) is None
    for entry in ("train_args", "args", "opt"):
        assert input_size(file(**{entry: {"imgsz": 416}})) == (416, 416)


def test_a_pickled_module_tells_its_modules() -> None:
    file = read_weight_file(GOLDENS / "pytorch_module.pt")
    assert (file.root, file.metadata) == ("ema", {"model": None, "version": "1.2"})
    assert file.root_class == "torch.nn.modules.container.Sequential"
    assert [module.class_path.rpartition(".")[2] for module in file.modules.values()] == [
        "Sequential",
        "Conv2d",
        "BatchNorm2d",
        "SiLU",
    ]
    assert file.modules["0"].attributes["kernel_size"] == (3, 1)
    assert file.modules["0"].attributes["stride"] == (2, 2)
    assert file.modules["1"].attributes["eps"] == 1e-3
    assert file.buffers == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert count_parameters(file) == 4 * 3 * 3 + 4 + 4
    assert class_names(file) == ("cat", "dog")
    assert strides(file) == (8, 16)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("byteorder", ["little", "big", None])
@pytest.mark.parametrize("compression", [0, 8], ids=["stored", "deflated"])
def test_types_and_byte_orders(tmp_path: Path, dtype: np.dtype, byteorder: str | None, compression: int) -> None:
    array = (np.arange(-5, 7) / 2).reshape(3, 4).astype(dtype)
    raw = array.tobytes()
    if byteorder == "big":
        size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
        raw = np.frombuffer(raw, np.uint8).reshape(-1, size)[:, ::-1].tobytes()
    content = write.dictionary({"w": write.whole(array, "0")})
    file = write.zip_file(content, {"0": raw}, byteorder=byteorder, root="any name", compression=compression)
    found = read(tmp_path, file).tensors["w"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_legacy_big_endian_and_views_of_storages(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    view = write.row(write.text("inner"), write.integer(2), write.integer(3))
    over = write.storage("FloatStorage", "k", 6, view)
    part = write.call(
        "torch._utils._rebuild_tensor", over, write.integer(1), write.integers((2,)), write.integers((1,))
    )
    value = write.dictionary({"w": write.whole(array, "k"), "part": part})
    file = read(tmp_path, write.legacy_file(value, {"k": (6, array.astype(">f4").tobytes())}, little_endian=False))
    np.testing.assert_array_equal(file.tensors["w"], array)
    np.testing.assert_array_equal(file.tensors["part"], array[3:5])
    outside = write.row(write.text("inner"), write.integer(4), write.integer(3))
    part = part.replace(view, outside)
    refused(tmp_path, write.legacy_file(part, {"k": (6, array.tobytes())}), "no weights")
    refused(tmp_path, write.legacy_file(write.dictionary({"w": part}), {"k": (6, array.tobytes())}), "'w'", "'k'")


def test_strided_shared_and_expanded_tensors_are_views(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float32)
    kind = "FloatStorage"
    value = write.dictionary(
        {
            "a": write.tensor(kind, "0", 24, (4, 6)),
            "t": write.tensor(kind, "0", 24, (6, 4), (1, 6)),
            "column": write.tensor(kind, "0", 24, (4,), (6,), 2),
            "expanded": write.tensor(kind, "0", 24, (3, 2), (0, 1), 22),
            "scalar": write.tensor(kind, "0", 24, (), (), 23),
            "empty": write.tensor(kind, "0", 24, (0, 5)),
        }
    )
    tensors = read(tmp_path, write.zip_file(value, {"0": array.tobytes()})).tensors
    np.testing.assert_array_equal(tensors["a"], array.reshape(4, 6))
    np.testing.assert_array_equal(tensors["t"], array.reshape(4, 6).T)
    np.testing.assert_array_equal(tensors["column"], array[2::6])
    np.testing.assert_array_equal(tensors["expanded"], [[22, 23]] * 3)
    assert tensors["scalar"] == 23 and tensors["scalar"].shape == ()
    assert tensors["empty"].shape == (0, 5)
    assert np.shares_memory(tensors["a"], tensors["t"])


def test_parameters_numpy_arrays_and_newer_calls(tmp_path: Path) -> None:
    array = np.arange(4, dtype=np.float32)
    inner = write.whole(array, "0")
    raw = write.call("_codecs.encode", write.text(array.tobytes().decode("latin1")), write.text("latin1"))
    dtype = write.call("numpy.dtype", write.text("f4"), b"\x89", b"\x88")
    dtype += write.row(write.integer(3), write.text("<")) + b"b"
    numpy_array = write.call(
        "numpy.core.multiarray._reconstruct", write.reference("numpy.ndarray"), b"K\0\x85", b"C\1b"
    )
    numpy_array += write.row(write.integer(1), write.integers((2, 2)), dtype, b"\x89", raw) + b"b"
    newer = write.call(
        "torch._utils._rebuild_tensor_v3",
        write.storage("UntypedStorage", "1", 6),
        write.integer(1),
        write.integers((2,)),
        write.integers((1,)),
        b"\x89",
        write.EMPTY_ORDERED,
        write.reference("torch.uint16"),
        b"N",
    )
    subclass = write.call(
        "torch._tensor._rebuild_from_type_v2",
        write.reference("torch._utils._rebuild_tensor_v2"),
        write.reference("my.Tensor"),
        inner.removeprefix(write.reference("torch._utils._rebuild_tensor_v2")).removesuffix(b"R"),
        write.dictionary({}),
    )
    value = {"p": write.parameter(inner), "n": numpy_array, "u": newer, "s": subclass}
    storages = {"0": array.tobytes(), "1": np.array([7, 8, 9], np.uint16).tobytes()}
    tensors = read(tmp_path, write.zip_file(write.dictionary(value), storages, protocol=4)).tensors
    for name in ("p", "s"):
        np.testing.assert_array_equal(tensors[name], array)
    np.testing.assert_array_equal(tensors["n"], array.reshape(2, 2))
    np.testing.assert_array_equal(tensors["u"], np.array([8, 9], np.uint16))


ARRAYS = {name: np.full(2, number, np.float32) for number, name in enumerate(("one", "two", "three"))}
STATES = {name: write.dictionary({"w": write.whole(array, name)}) for name, array in ARRAYS.items()}
BYTES = {name: array.tobytes() for name, array in ARRAYS.items()}


@pytest.mark.parametrize(
    ("value", "root", "others"),
    [
        (STATES["one"], "", ()),
        (write.dictionary({"model": STATES["one"]}), "model", ()),
        (write.dictionary({"state_dict": STATES["one"], "optimizer": STATES["two"]}), "state_dict", ()),
        (write.dictionary({"model": STATES["two"], "ema": STATES["one"]}), "ema", ("model",)),
        (write.dictionary({"model": STATES["one"], "ema": b"N"}), "model", ()),
        (write.dictionary({"net": STATES["two"], "ema_net": STATES["one"]}), "ema_net", ("net",)),
        (
            write.dictionary({"model": STATES["two"], "ema": write.dictionary({"module": STATES["one"]})}),
            "ema.module",
            ("model",),
        ),
        (write.dictionary({"ema": write.instance("my.EMA", {"ema": STATES["one"]})}), "ema.ema", ()),
        (write.module("my.Net", {"w": write.whole(ARRAYS["one"], "one")}, {}, {}), "", ()),
    ],
)
def test_weights_are_found(tmp_path: Path, value: bytes, root: str, others: tuple[str, ...]) -> None:
    content = write.zip_file(value, BYTES)
    file = read(tmp_path, content)
    assert (file.root, file.other_roots) == (root, others)
    np.testing.assert_array_equal(file.tensors["w"], ARRAYS["one"])
    for other in others:
        np.testing.assert_array_equal(read(tmp_path, content, other).tensors["w"], ARRAYS["two"])


def test_what_is_no_tensor_in_a_state_dict_is_told(tmp_path: Path) -> None:
    inner = write.dictionary({"w": write.whole(ARRAYS["one"], "one"), "scale": write.real(0.5)})
    value = write.dictionary({"backbone": inner, "names": write.listed(write.text("a"), write.text("b"))})
    file = read(tmp_path, write.zip_file(value, BYTES))
    assert list(file.tensors) == ["backbone.w"]
    assert file.modules[""].attributes == {"backbone.scale": 0.5, "names": ["a", "b"]}
    assert class_names(file) == ("a", "b")


def test_modules_leave_out_what_their_state_dict_leaves_out(tmp_path: Path) -> None:
    w = write.whole(ARRAYS["one"], "one")
    passing = write.call("__builtin__.set", write.listed(write.text("cache")))
    child = write.module(
        "my.Part", {"w": w, "bias": b"N"}, {"kept": w, "cache": w}, {}, _non_persistent_buffers_set=passing
    )
    shape = write.call("torch.Size", write.integers((2, 3)))
    space = write.instance(
        "types.SimpleNamespace",
        {"lr": write.real(0.1), "path": write.call("pathlib.PosixPath", write.text("/"), write.text("a"))},
    )
    number = write.call(
        "numpy.core.multiarray.scalar",
        write.call("numpy.dtype", write.text("f8"), b"\x89", b"\x88"),
        b"C\x08" + np.float64(2.5).tobytes(),
    )
    value = write.module(
        "my.Net",
        {},
        {},
        {"part": child, "none": b"N", "again": child},
        shape=shape,
        args=space,
        best=number,
        fn=write.reference("my.f"),
        anchors=w,
    )
    file = read(tmp_path, write.zip_file(value, BYTES))
    assert list(file.tensors) == ["part.w", "part.kept", "again.w", "again.kept"]
    assert file.buffers == {"part.kept", "again.kept"}
    assert list(file.modules) == ["", "part", "again"]
    assert file.modules[""].attributes == {
        "training": False,
        "shape": (2, 3),
        "args": {"lr": 0.1, "path": "/a"},
        "best": 2.5,
        "fn": "<my.f>",
        "anchors": [0.0, 0.0],
    }


def test_tensors_of_torchscript_programs_are_read(tmp_path: Path) -> None:
    tensor = write.whole(ARRAYS["one"], "one")
    part = write.instance("__torch__.torch.nn.modules.conv.Conv2d", {"w": tensor, "groups": write.integer(2)})
    value = write.instance("__torch__.Net", {"scale": tensor, "part": part, "training": b"\x89"})
    file = read(tmp_path, write.zip_file(value, BYTES))
    assert list(file.tensors) == ["scale", "part.w"]
    assert file.root_class == "__torch__.Net"
    assert file.modules["part"].attributes == {"groups": 2}


def test_archives_without_checksums_are_read(tmp_path: Path) -> None:
    content = bytearray(write.zip_file(STATES["one"], BYTES))
    for mark, place in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        start = content.find(mark)
        while start >= 0:
            content[start + place : start + place + 4] = bytes(4)
            start = content.find(mark, start + 4)
    np.testing.assert_array_equal(read(tmp_path, bytes(content)).tensors["w"], ARRAYS["one"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (write.dictionary({"w": write.call("torch._utils._rebuild_qtensor", b"N", b"N")}), ("'w'", "quantised")),
        (write.dictionary({"w": write.call("torch._utils._rebuild_sparse_tensor", b"N", b"N")}), ("'w'", "sparse")),
        (write.dictionary({"w": write.tensor("QInt8Storage", "one", 8, (2,))}), ("'w'", "torch.QInt8Storage")),
        (write.dictionary({"epoch": write.integer(3)}), ("no weights", "epoch")),
        (write.listed(), ("no weights", "list")),
        (b"N", ("no weights", "NoneType")),
        (write.module("my.Net", {}, {}, {}), ("no tensors",)),
        (write.module("my.Net", {"w": write.integer(1)}, {}, {}), ("'w'", "int")),
        (
            write.dictionary(
                {
                    "a.b": write.whole(ARRAYS["one"], "one"),
                    "a": write.dictionary({"b": write.whole(ARRAYS["one"], "one")}),
                }
            ),
            ("two tensors", "'a.b'"),
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, value: bytes, words: tuple[str, ...]) -> None:
    refused(tmp_path, write.zip_file(value, BYTES), *words)


def test_unknown_roots_and_missing_files_are_named(tmp_path: Path) -> None:
    content = write.zip_file(write.dictionary({"model": STATES["one"]}), BYTES)
    with pytest.raises(CheckpointError, match=r"no weights under 'ema'.*'model'"):
        read(tmp_path, content, "ema")
    with pytest.raises(CheckpointError, match="no such file"):
        read_pytorch(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weight_file(tmp_path / "none.pt")
    (tmp_path / "other").write_bytes(b"TFL3 something else")
    with pytest.raises(CheckpointError, match="no PyTorch, safetensors or ONNX file"):
        read_weight_file(tmp_path / "other")


def test_class_names_that_leave_numbers_open_are_refused(tmp_path: Path) -> None:
    names = b"}(" + write.integer(0) + write.text("a") + write.integer(2) + write.text("c") + b"u"
    file = read(tmp_path, write.zip_file(write.dictionary({"model": STATES["one"], "names": names}), BYTES))
    with pytest.raises(CheckpointError, match="not numbered"):
        class_names(file)


REAL = {
    "weights/yolov5n-v7.0_verification-only/yolov5n.pt": "real_yolov5n",
    "weights/yolov8s-fall_verification-only/best.pt": "real_yolov8s_fall",
    **{
        f"refs/b_{name}/{name}.pt": name
        for name in ("yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo26n")
    },
}


READ_REAL = """
import json, sys
from yolojax.weights.foreign import class_names, read_weight_file, strides
file = read_weight_file(sys.argv[1])
kinds = {"float16": "Half", "int64": "Long"}
print(json.dumps({
    "tensors": {
        name: [list(array.shape), kinds[str(array.dtype)], "buffer" if name in file.buffers else "parameter"]
        for name, array in file.tensors.items()
    },
    "modules": {name: [m.class_path.rpartition(".")[2], m.attributes.get("eps")] for name, m in file.modules.items()},
    "strides": strides(file),
    "classes": [len(class_names(file)), file.modules[""].attributes["nc"]],
}))
"""


@pytest.mark.parametrize("place", REAL)
def test_real_checkpoints(test_data: Path, place: str) -> None:
    """Names, shapes, types, kinds, classes and eps as an inert unpickler of others tells them.

    A process of its own reads the file: the checks of shapes and types would make it take thirty times as long.
    """
    facts = test_data / "refs" / "d_facts" / REAL[place]
    table, modules = (facts.with_name(f"{facts.name}.{end}") for end in ("table.json", "modules.jsonl"))
    if not (test_data / place).is_file() or not table.is_file():
        pytest.skip("these files are not in the folder of real data")
    ended = subprocess.run(
        [sys.executable, "-c", READ_REAL, test_data / place], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    file = json.loads(ended.stdout)
    assert file["tensors"] == {name: row[:3] for name, row in json.loads(table.read_text()).items()}
    for line in modules.read_text().splitlines():
        name, kind, attributes = json.loads(line)
        assert file["modules"][name] == [kind, attributes.get("eps", file["modules"][name][1])]
    assert file["strides"] == [8, 16, 32]
    assert file["classes"][0] == file["classes"][1]
