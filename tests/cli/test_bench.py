"""``yolojax bench``: the numbers agree with each other and with what is known apart; wrong input costs one line."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from tests.cli.small_run import DATA
from yolojax import zoo
from yolojax.bench import peak
from yolojax.bench.peak import bandwidth_of, peak_of, sheet_of
from yolojax.bench.prediction import generated_photos, measure_prediction
from yolojax.geometry import Preprocess
from yolojax.progress import Quiet
from yolojax.sharding.devices import all_devices
from yolojax.structures import Detections

OPTIONS = {"widths": [4, 4, 8], "depths": [0, 0, 0], "head_width": 8, "reg_max": 4, "shared_head": True}


@pytest.mark.parametrize("parts", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bench_train(parts, yolojax, tmp_path):
    settings = ["--option", *(f"{name}={json.dumps(value)}" for name, value in OPTIONS.items())]
    settings += [
        "--size",
        "32",
        "--batch",
        "4",
        "--seconds",
        ".2",
        "--peak",
        ".001",
        "--json",
        "found.json",
        *(["--parts"] * parts),
    ]
    ended = yolojax("bench", "train", DATA, *settings)
    assert ended.code == 0, ended.err
    assert [line.split()[0] for line in ended.out.splitlines()] == [
        *("detector", "devices", "speed", "program", "work", "traffic", *(["parts"] * parts))
    ]
    found = json.loads((tmp_path / "found.json").read_text())
    detector = zoo.build("compact", ("a", "b", "c", "d", "e", "f"), (32, 32), **OPTIONS)
    assert found["forward_flops"] == zoo.forward_flops(detector)
    assert found["parameters"] == zoo.parameter_count(detector.init(jax.random.key(0)))
    assert found["input_size"] == [32, 32] and found["devices"] == len(jax.devices()) and found["programs"] == 1
    assert found["steps"] >= 3 and found["compile_seconds"] > 0 and found["memory"] > 0
    # The clock ran for at least as long as was asked for, and the rate is that of all timed steps.
    assert found["steps"] * found["batch_size"] / found["images_per_second"] >= 0.1
    assert 0 <= found["waiting_share"] < 1
    peak = 1e9 * len(jax.devices())
    assert found["peak_flops"] == pytest.approx(peak)
    assert found["utilisation"] == pytest.approx(3 * found["forward_flops"] * found["images_per_second"] / peak)
    # A step at least reads the parameters and their four companions (gradient, moments, average), and writes them.
    assert found["traffic"] > 2 * 4 * 4 * found["parameters"]
    moved = found["traffic"] * found["images_per_second"] / found["batch_size"]
    assert found["bandwidth_share"] == pytest.approx(moved / found["peak_bandwidth"])
    assert list(found["parts"]) == ["augmentation", "forward", "loss", "backward", "optimiser"] * parts
    assert all(seconds > 0 for name, seconds in found["parts"].items() if name != "backward")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "50"], "multiple of 32"),
        (["--seconds", "0"], "positive number"),
        (["--peak", "nan"], "positive number"),
        (["--batch", "0"], "at least 1"),
        (["--option", "x"], "NAME=VALUE"),
        (["--json", "no/such/found.json"], "no such folder"),
        (["nowhere"], "nowhere: no such"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(yolojax, arguments, message):
    ended = yolojax("bench", "train", *arguments)
    assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1 and not ended.out


def test_bench_predict(yolojax, trained, tmp_path):
    settings = ["--runtime", "jax", "--batch", "2", "--seconds", ".05", "--json", "found.json"]
    ended = yolojax("bench", "predict", "--model", trained, *settings)
    assert ended.code == 0, ended.err
    head, row, *_ = (line.split() for line in ended.out.splitlines())
    parts = ["decode", "preprocess", "network", "postprocess", "program"]
    assert head == ["runtime", "batch", "first", *parts, "latency", "images/s"]
    assert row[:2] == ["jax", jax.__version__] and row[2] == "2"
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert found["input_size"] == [64, 64] and found["batch_size"] == 2 and found["rounds"] >= 3
    milliseconds = [found[f"{name}_ms"] for name in parts]
    assert min(milliseconds) > 0 and found["first_ms"] > sum(milliseconds)
    # The whole holds its parts: two photos are decoded, fitted to the input and detected on, one after another.
    least = min(found["network_ms"], found["program_ms"]) + found["decode_ms"] + found["preprocess_ms"]
    assert found["latency_ms"] > least and found["images_per_second"] > 0


@pytest.mark.slow  # two exports, and programs of prediction for two runtimes: over 10 s of one core
def test_other_runtimes_run_the_same_detector(yolojax, trained, tmp_path):
    """All that are installed are measured in turns, and find the same; an exported file is run by them alone."""
    pytest.importorskip("onnxruntime")
    settings = ["--batch", "1", "--seconds", ".05", "--json", "found.json"]
    ended = yolojax("bench", "predict", "--model", trained, "--runtime", "onnxruntime", "jax", *settings)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["runtime"] for row in found] == ["onnxruntime", "jax"]
    assert found[0]["detections"] == found[1]["detections"] and found[0]["network_ms"] > 0
    assert yolojax("export", "--model", trained, "--format", "onnx", "--out", "x.onnx").code == 0
    ended = yolojax("bench", "predict", "--model", "x.onnx", "--runtime", "jax")
    assert ended.code == 2 and "x.onnx is not run by JAX" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "-1"], "positive number"),
        (["--batch", "1", "1"], "different numbers"),
        (["--batch", "0"], "at least 1"),
        (["--runtime", "abacus"], "--runtime abacus: known are jax"),
        (["--json", "no/such/found.json"], "no such folder"),
        (["--model", "nowhere"], "nowhere: no such"),
        (["--size", "50"], "multiple"),
        (["missing.jpg"], "missing.jpg: No such file"),
    ],
)
def test_what_cannot_be_predicted_is_refused_in_one_line(yolojax, arguments, message):
    ended = yolojax("bench", "predict", *arguments)
    assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1 and not ended.out


def test_runtimes_are_measured_in_turns():
    """A runtime of another library needs no more than the protocol."""
    calls = []

    class Counted:
        version, device, input_size, preprocess = "1", "cpu", (32, 48), Preprocess()

        def __init__(self, name, batch_size):
            self.name, self.batch_size = name, batch_size

        def network(self, images):
            assert images.shape == (self.batch_size, 32, 48, 3) and images.dtype == np.uint8
            calls.append(self.name)
            return images

        def postprocess(self, outputs):
            n, k = len(outputs), 5
            valid = np.arange(k)[None] < 2
            columns = np.zeros((n, k), np.float32), np.zeros((n, k), np.int32), np.repeat(valid, n, 0)
            arrays: Any = (np.zeros((n, k, 4), np.float32), *columns, np.zeros(n, int), np.zeros(n, int))
            return Detections(*arrays)

        def detect(self, images):
            return self.postprocess(images)

    runtimes = [Counted("a", 1), Counted("b", 3)]
    found = measure_prediction(runtimes, generated_photos(2, 64), Quiet(), seconds=1e-3)
    assert [times.runtime for times in found] == ["a", "b"] and {times.rounds for times in found} == {3}
    assert calls == ["a", "a", "b", "b", *("a", "b") * 3]  # first calls and a round that is not counted, then turns
    assert [times.detections for times in found] == [2.0, 2.0]


def test_a_processors_peak_is_measured_and_a_stated_one_is_of_each_device():
    devices = all_devices()
    assert peak_of(devices, 2e12) == (2e12 * devices.number, "as given")
    measured = peak_of(devices)
    assert measured is not None and 1e8 < measured.value < 1e14 and "measured" in measured.source
    bandwidth = bandwidth_of(devices)
    assert bandwidth is not None and 1e8 < bandwidth.value < 1e13 and "measured" in bandwidth.source


def test_what_is_measured_is_work_over_seconds(monkeypatch):
    def two_seconds(run):
        run()
        return 2.0

    monkeypatch.setattr(peak, "_fastest", two_seconds)
    devices = all_devices()
    # A product of n x n matrices is n^3 multiplications and as many additions; four bytes are read and four written.
    assert peak.measure_peak(devices, side=16) == 2 * 16**3 * devices.number / 2
    assert peak.measure_bandwidth(devices, length=1000) == 8 * 1000 * devices.number / 2


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("TPU v5 lite", "TPU v5 lite"),
        ("TPU v5e", "TPU v5e"),
        ("TPU v5p", "TPU v5p"),
        ("TPU v4 lite", "TPU v4 lite"),
        ("TPU v4", "TPU v4"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA T400 4GB", ""),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", ""),
        ("cpu", ""),
    ],
)
def test_a_device_is_known_by_a_part_of_its_name(kind, name):
    found, sheet = sheet_of(kind)
    assert found == name and (sheet is None) == (name == "")
