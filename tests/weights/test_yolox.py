"""Reading published YOLOX arrays: what is wrong with a file is said, by the name that the file uses."""

import numpy as np
import pytest

from tests.zoo.yolox_arrays import golden, write_arrays
from yolojax import zoo
from yolojax.errors import CheckpointError
from yolojax.weights.yolox import read_yolox


@pytest.mark.parametrize("name", ["plain", "depthwise"])
def test_sizes_are_told_by_the_arrays(name, tmp_path):
    weights = read_yolox(write_arrays(tmp_path / "w.npz", golden(name)))
    assert weights.folded == weights.depthwise == (name == "depthwise")
    assert (weights.width, weights.num_classes) == (2 / 64, 3)
    assert weights.depth == (0.67 if name == "depthwise" else 0.33)


def test_half_precision_and_counters_are_read(tmp_path):
    arrays = {k: v.astype(np.float16) for k, v in golden("plain").items()}
    arrays["backbone.backbone.stem.conv.bn.num_batches_tracked"] = np.array(7)
    weights = read_yolox(write_arrays(tmp_path / "w.npz", arrays))
    assert weights.params["backbone"]["stem"]["conv"]["kernel"].dtype == np.float32


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
        ("unknown", r"dark6\.0\.dconv\.weight is no array of a YOLOX"),
        ("leaf", r"head\.cls_preds\.1\.running_mean is no array of a YOLOX"),
        ("rank", r"stem\.conv\.weight has shape \(2, 12, 3\); a kernel is needed"),
        ("integers", r"stem\.conv\.weight holds int32"),
        ("shape", r"head/level1_predict_cls/bias is float32 of shape \(4,\), the detector needs .* \(3,\)"),
        ("missing", r"head/level1_predict_cls/bias is missing"),
        ("head", r"head/level0_predict_cls/kernel is missing; the file is not the whole of a YOLOX"),
        ("nan", r"head/level1_predict_cls/bias holds values that are not finite"),
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
    with pytest.raises(CheckpointError, match="one array, not an archive"):
        read_yolox(tmp_path / "one.npy")
