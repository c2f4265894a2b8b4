"""Reading published YOLOX weights: every form gives the same, and what is wrong is said by the file's own names."""

import json
import zipfile

import jax
import numpy as np
import pytest

from tests.weights import pytorch_files, test_onnx
from tests.zoo.yolox_arrays import golden, write_arrays
from yolojax import zoo
from yolojax.cli.model import choose_model
from yolojax.errors import CheckpointError
from yolojax.inference.loading import load_detector
from yolojax.training.initialise import load_init
from yolojax.weights.foreign import read_weight_file
from yolojax.weights.yolox import read_yolox, running_order

NAMES, SIZE = ("a", "b", "c"), (64, 64)


@pytest.mark.parametrize("name", ["plain", "depthwise"])
def test_sizes_are_told_by_the_arrays(name, tmp_path):
    weights = read_yolox(write_arrays(tmp_path / "w.npz", golden(name)))
    assert weights.folded == weights.depthwise == (name == "depthwise")
    assert (weights.width, weights.num_classes) == (2 / 64, 3)
    assert weights.depth == (0.67 if name == "depthwise" else 0.33)


def test_half_precision_and_counters_are_read(tmp_path):
    arrays = {k: v.astype(np.float16) for k, v in golden("plain").items()}
    arrays["backbone.backbone.stem.conv.bn.num_batches_tracked"] = np.array(7)
    _, variables = zoo.from_yolox(write_arrays(tmp_path / "w.npz", arrays), class_names=NAMES, input_size=SIZE)
    kernel = variables["params"]["backbone"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["backbone.backbone.stem.conv.conv.weight"].transpose(2, 3, 1, 0))
    assert kernel.dtype == np.float32


def pth(arrays: dict[str, np.ndarray], prefix: str = "") -> bytes:
    """A checkpoint as Megvii's trainer writes it, with weights under ``model``."""
    tensors = {f"{prefix}{name}": pytorch_files.whole(array, str(i)) for i, (name, array) in enumerate(arrays.items())}
    entries = {
        "start_epoch": pytorch_files.integer(300),
        "model": pytorch_files.dictionary(tensors, pytorch_files.EMPTY_ORDERED),
    }
    storages = {str(i): array.tobytes() for i, array in enumerate(arrays.values())}
    return pytorch_files.zip_file(pytorch_files.dictionary(entries), storages)


def onnx(arrays: dict[str, np.ndarray], blocks: int, style: str) -> bytes:
    """A graph of fused depthwise convolutions: nodes numbered and kernels nameless, as older exporters do, or named."""
    field = test_onnx.field
    nodes, tensors = [], []
    for i, name in enumerate(running_order(blocks, True)):
        named = "_preds" in name or style == "scoped"
        ports = (f"{name}.weight", f"{name}.bias") if named else (str(1000 + 2 * i), str(1001 + 2 * i))
        for port, leaf in zip(ports, ("weight", "bias"), strict=True):
            array = arrays[f"{name}.{leaf}"]
            tensors.append(test_onnx.tensor(array.shape, 1, port, raw=array.tobytes()))
        node = f"Conv_{3 * i + 40}" if style == "numbered" else f"/{name.replace('.', '/')}/Conv"
        inputs = b"".join(field(1, port.encode()) for port in ("x", *ports))
        nodes.append(inputs + field(2, b"y") + field(3, node.encode()) + field(4, b"Conv"))
    nodes[3], nodes[4] = nodes[4], nodes[3]  # a simplifier may write nodes in another order
    dimensions = b"".join(field(1, field(1, side)) for side in (1, 3, 64, 96))
    image = field(1, b"images") + field(2, field(1, field(1, 1) + field(2, dimensions)))
    constant = test_onnx.tensor((1,), 7, "shape", raw=np.array([-1]).tobytes())
    initialisers = b"".join(field(5, tensor) for tensor in (*tensors, constant))
    return field(1, 8) + field(7, b"".join(field(1, node) for node in nodes) + field(11, image) + initialisers)


@pytest.mark.parametrize("name", ["plain", "depthwise"])
def test_every_form_holds_the_same(name, tmp_path):
    arrays = golden(name)
    expected = read_yolox(write_arrays(tmp_path / "w.npz", arrays))
    files = {"w.pth": pth(arrays), "parallel.pth": pth(arrays, "module.")}
    if name == "depthwise":
        files |= {"numbered.onnx": onnx(arrays, 2, "numbered"), "scoped.onnx": onnx(arrays, 2, "scoped")}
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
        weights = read_yolox(tmp_path / file)
        assert weights.input_size == ((64, 96) if file.endswith("onnx") else None)
        assert weights.tensors.keys() == expected.tensors.keys()
        jax.tree.map(np.testing.assert_array_equal, dict(weights.tensors), dict(expected.tensors))
        same = ("folded", "blocks", "stem", "depthwise", "num_classes")
        assert [getattr(weights, key) for key in same] == [getattr(expected, key) for key in same]
        assert zoo.identify(read_weight_file(tmp_path / file)) == ("yolox", "")


def test_a_checkpoint_is_loaded_and_comes_back_byte_for_byte(tmp_path):
    arrays = golden("plain")
    (tmp_path / "w.pth").write_bytes(pth(arrays))
    (tmp_path / "abc.names").write_text("\n".join(NAMES))
    detector, variables = load_detector(tmp_path / "w.pth", tmp_path / "abc.names")
    assert (detector.spec.name, detector.spec.class_names, detector.spec.input_size) == ("yolox", NAMES, (416, 416))
    tensors = zoo.to_state_dict(detector, variables)
    assert tensors.keys() == arrays.keys()
    for key in arrays.keys() - {key for key in arrays if key.endswith("num_batches_tracked")}:
        np.testing.assert_array_equal(tensors[key], arrays[key])


def test_training_starts_from_a_checkpoint_whose_classes_have_no_names(tmp_path):
    (tmp_path / "w.pth").write_bytes(pth(golden("plain")))
    weights = load_init(tmp_path / "w.pth")
    assert weights.spec is None
    choice = choose_model(None, {}, str(tmp_path / "w.pth"))
    assert (choice.name, choice.size, choice.weights) == ("yolox", 416, str(tmp_path / "w.pth"))
    kernel = weights.variables["params"]["head"]["level0_predict_cls"]["kernel"]
    np.testing.assert_array_equal(kernel, golden("plain")["head.cls_preds.0.weight"].transpose(2, 3, 1, 0))


def test_an_export_that_is_not_fused_is_named(tmp_path):
    content = onnx(golden("depthwise"), 2, "numbered")
    (tmp_path / "w.onnx").write_bytes(content.replace(b"\n\x041001", b"\n\x040000"))
    with pytest.raises(CheckpointError, match=r"Conv_40 is backbone\.backbone\.stem\.conv by its place.*not fused"):
        zoo.from_pytorch(tmp_path / "w.onnx", class_names=NAMES)


def test_the_order_of_an_export_is_that_of_the_published_one(test_data):
    """The names that were found for the convolutions of a published ``yolox_nano.onnx``, in its order."""
    layers = json.loads((test_data / "weights" / "yolox-nano" / "yolox_nano_layers.json").read_text())
    assert [layer["name"] for layer in layers] == list(running_order(1, True))


def changed(name: str, **changes: object) -> dict[str, object]:
    arrays: dict[str, object] = dict(golden("depthwise"))
    first, second = "backbone.backbone.stem.conv.weight", "head.cls_preds.1.bias"
    match name:
        case "unknown":
            arrays["backbone.backbone.dark6.0.dconv.weight"] = arrays[first]
        case "leaf":
            arrays["head.cls_preds.1.running_mean"] = arrays[second]
        case "rank":
            arrays[first] = np.zeros((2, 12, 3), np.float32)
        case "integers":
            arrays[first] = np.zeros((2, 12, 3, 3), np.int32)
        case "shape":
            arrays[second] = np.zeros(4, np.float32)
        case "missing":
            del arrays[second]
        case "head":
            del arrays["head.cls_preds.0.weight"]
        case "nan":
            arrays[second] = np.full(3, np.nan, np.float32)
        case "pickle":
            arrays[first] = np.array([{"a": 1}], object)
    return arrays


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("unknown", r"1 tensors have no place .*dark6\.0\.dconv\.conv\.weight"),
        ("leaf", r"1 tensors have no place .*head\.cls_preds\.1\.running_mean"),
        ("rank", r"holds no YOLOX: backbone\.backbone\.stem\.conv\.conv\.weight and .* are not both"),
        ("integers", r"stem\.conv\.conv\.weight is int32"),
        ("shape", r"head\.cls_preds\.1\.bias is float32 of shape \[4\], this network needs .* \[3\]"),
        ("missing", r"head\.cls_preds\.1\.bias is missing"),
        ("head", r"holds no YOLOX: .*head\.cls_preds\.0\.weight are not both"),
        ("nan", r"head\.cls_preds\.1\.bias holds values that are not finite"),
        ("pickle", r"not a readable \.npz of plain arrays"),
    ],
)
def test_what_is_wrong_is_named(change, said, tmp_path):
    path = write_arrays(tmp_path / "w.npz", changed(change))  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match=said):
        zoo.from_yolox(path, class_names=("a", "b", "c"), input_size=(64, 64))


def test_files_that_are_no_archive_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_yolox(tmp_path / "nowhere.npz")
    whole = write_arrays(tmp_path / "w.npz", golden("plain"))
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:20000])
    (tmp_path / "text.npz").write_text("no archive")
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(damaged)
    for name in ("half.npz", "text.npz", "flipped.npz"):
        with pytest.raises(CheckpointError, match=f"{name}: not a readable"):
            read_yolox(tmp_path / name)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(CheckpointError, match="one array, not an archive"):
        read_yolox(tmp_path / "one.npz")


def test_a_member_that_is_no_array_is_named(tmp_path):
    """NumPy gives its bytes, whatever they are, in the place of an array."""
    path = write_arrays(tmp_path / "w.npz", golden("plain"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("head.stems.9.conv.weight.npy", b"no array")
    with pytest.raises(CheckpointError, match=r"w\.npz: its member 'head\.stems\.9\.conv\.weight' is no array"):
        read_yolox(path)
