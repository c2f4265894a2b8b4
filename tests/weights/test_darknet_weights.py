"""Weight files: sizes, both headers, round trips, and what is said of files that do not belong to the network."""

import math
import re
import struct

import numpy as np
import pytest

from tests import darknet_cases
from yolojax.errors import CheckpointError, WriteError
from yolojax.weights.class_names import read_class_names
from yolojax.weights.darknet import (
    Header,
    format_cfg,
    parse_cfg,
    read_cfg,
    read_weights,
    stored_arrays,
    write_weights,
)

CFG = parse_cfg(darknet_cases.NARROW["yolov3-tiny"])


@pytest.fixture(scope="module")
def arrays():
    return darknet_cases.random_weights(stored_arrays(CFG), 2)


@pytest.fixture
def whole(tmp_path, arrays):
    path = tmp_path / "net.weights"
    write_weights(path, CFG, arrays, Header(seen=640))
    return path


@pytest.mark.parametrize(
    ("name", "size", "header"),
    [
        ("yolov2", 203_934_260, 16),
        ("yolov3", 248_007_048, 20),
        ("yolov3_tiny", 35_434_956, 20),
        ("yolov4", 257_717_640, 20),
        ("yolov4_tiny", 24_251_276, 20),
    ],
)
def test_the_published_files_have_the_size_that_the_network_implies(name, size, header):
    """Sizes in bytes of the weight files on the authors' pages; v2's has the older header."""
    cfg = parse_cfg(getattr(darknet_cases, name)())
    assert header + 4 * sum(math.prod(one.shape) for one in stored_arrays(cfg)) == size


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (Header(0, 1, 0, 7), 16),
        (Header(0, 2, 5, 2**40), 20),
        (Header(1, 0, 0, 9), 20),
        (Header(0, 2000, 0, 9), 16),
    ],
)
def test_both_headers_are_read_and_written(tmp_path, arrays, header, size):
    path, again = tmp_path / "a.weights", tmp_path / "b.weights"
    write_weights(path, CFG, arrays, header)
    found = read_weights(path, CFG)
    assert found.header == header
    write_weights(again, CFG, found.layers, found.header)
    content = path.read_bytes()
    assert content == again.read_bytes()
    assert len(content) == size + 4 * sum(math.prod(one.shape) for one in stored_arrays(CFG))
    assert struct.unpack_from("<iii", content) == header[:3]


def test_values_come_in_darknets_order(whole, arrays):
    """Beta, gamma, mean, variance, weights; a convolution without normalisation has its bias first."""
    content = np.frombuffer(whole.read_bytes()[20:], "<f4")
    first = arrays[0]
    expected = np.concatenate([first[k].ravel() for k in ("bias", "scale", "mean", "var", "kernel")])
    np.testing.assert_array_equal(content[: len(expected)], expected)
    last = arrays[CFG.detections[-1] - 1]
    np.testing.assert_array_equal(content[-last["kernel"].size :], last["kernel"].ravel())
    np.testing.assert_array_equal(content[-last["kernel"].size - 24 :][:24], last["bias"])


def test_every_shorter_file_names_the_layer_that_ran_short(tmp_path, whole):
    content = whole.read_bytes()
    path = tmp_path / "short.weights"
    rng = np.random.default_rng(0)
    for length in [0, 11, 12, 19, 20, 21, *rng.integers(22, len(content), 40).tolist(), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError) as caught:
            read_weights(path, CFG)
        wanted = r"less than a header" if length < 20 else r"ends in layer \d+ \[convolutional\], line \d+: \d+ of the"
        assert re.search(wanted, str(caught.value)), (length, caught.value)


def test_a_backbones_file_is_recognised_and_read(tmp_path, whole):
    content = whole.read_bytes()
    cut = 20 + 4 * sum(math.prod(one.shape) for one in stored_arrays(CFG) if one.layer < 13)
    path = tmp_path / "net.conv.13"
    path.write_bytes(content[:cut])
    with pytest.raises(CheckpointError, match=r"layer 13 .* 0 of .* values of bias .*before 13 are whole: a backbone"):
        read_weights(path, CFG)
    assert sorted(read_weights(path, CFG, upto=13).layers) == [0, 2, 4, 6, 8, 10, 12]


def test_too_much_too_little_sense_and_other_networks(tmp_path, whole):
    content = bytearray(whole.read_bytes())
    path = tmp_path / "other.weights"

    def refused(data: bytes, message: str) -> None:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            read_weights(path, CFG)

    refused(content + b"\0" * 10, r"10 bytes \(2.5 values\) are left over")
    refused(struct.pack("<i", -1) + content[4:], "makes no sense")
    refused(content[:20] + struct.pack("<f", math.nan) + content[24:], r"layer 0 .*bias holds values that are not fin")
    damaged, filters = content[:], CFG.layers[0].filters
    damaged[20 + 12 * filters : 24 + 12 * filters] = struct.pack("<f", -1.0)
    refused(bytes(damaged), r"layer 0 .*var holds values that are negative")
    damaged[20 + 12 * filters : 24 + 12 * filters] = struct.pack("<f", -7e-44)  # as in MobileNetV2-YOLO-Fastest
    path.write_bytes(damaged)
    assert read_weights(path, CFG).layers[0]["var"][0] == 0
    with pytest.raises(CheckpointError, match=r"ends in|left over|negative"):
        read_weights(whole, parse_cfg(darknet_cases.NARROW["yolov4-tiny"]))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "none.weights", CFG)


def test_the_writer_refuses_what_does_not_fit_and_leaves_the_old_file(whole, arrays):
    before = whole.read_bytes()
    number = CFG.detections[0] - 1
    for wrong, message in (
        ({**arrays, 99: {"bias": np.zeros(1, np.float32)}}, "layer 99 has no array 'bias'"),
        ({k: v for k, v in arrays.items() if k != number}, rf"layer {number} .*bias is missing"),
        ({**arrays, number: {**arrays[number], "bias": np.zeros(1, np.float32)}}, r"of shape \(1,\), not float32"),
        ({**arrays, number: {k: v.astype(np.float64) for k, v in arrays[number].items()}}, "is float64"),
    ):
        with pytest.raises(CheckpointError, match=message):
            write_weights(whole, CFG, wrong, Header())
    assert whole.read_bytes() == before and [p.name for p in whole.parent.iterdir()] == [whole.name]
    with pytest.raises(WriteError, match="cannot write"):
        write_weights(whole.parent / "none" / "x.weights", CFG, arrays, Header())


def test_class_names(tmp_path):
    path = tmp_path / "a.names"
    path.write_bytes(b"\xef\xbb\xbfdog\r\n hot dog\n\n")
    assert read_class_names(path) == ("dog", "hot dog")
    for content, message in (
        (b"", "no class name"),
        (b"a\n\nb\n", r"a\.names, line 2: an empty line"),
        (b"a\r\nb\r\na\r\n", r"line 3: 'a' is also the class of line 1"),
        (b"\xff\xfe\x00", "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_class_names(path)


@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "yolo-fastest-1.1-xl"])
def test_real_files_survive_a_round_trip_byte_by_byte(test_data, tmp_path, name):
    folder = test_data / "weights" / "yolo-fastest-1.1_coco"
    cfg = read_cfg(folder / f"{name}.cfg")
    found = read_weights(folder / f"{name}.weights", cfg)
    write_weights(tmp_path / "again.weights", parse_cfg(format_cfg(cfg)), found.layers, found.header)
    assert (tmp_path / "again.weights").read_bytes() == (folder / f"{name}.weights").read_bytes()
    assert found.header[:3] == (0, 2, 5) and len(read_class_names(folder / "coco.names")) == cfg.classes
