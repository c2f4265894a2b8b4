"""Hostile and damaged PyTorch files end in a named error or in inert data: nothing is called, and memory is bounded."""

import pickle
import pickletools
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.weights import pytorch_files as write
from yolojax.errors import CheckpointError
from yolojax.weights.foreign import WeightFile
from yolojax.weights.pytorch import read_pytorch
from yolojax.weights.pytorch._interpreter import _NAMES

ROOT = Path(__file__).resolve().parent.parent.parent

W = np.arange(6, dtype=np.float32)
STORAGES = {"0": W.tobytes()}
TENSOR = write.whole(W, "0")
STATE = write.dictionary({"w": TENSOR})


def attempt(tmp_path: Path, content: bytes) -> WeightFile | str:
    """What is read, or the message of the error."""
    path = tmp_path / "hostile.pt"
    path.write_bytes(content)
    try:
        return read_pytorch(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return str(error)


def with_value(value: bytes) -> bytes:
    """A file that holds a tensor, and beside it the value of some opcodes."""
    return write.zip_file(write.dictionary({"w": TENSOR, "evil": value}), STORAGES)


class _Reduced:
    """Pickles as a call, as `pickle` itself writes it."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple:
        return self.parts


MARKER = "touched-by-a-pickle"


@pytest.mark.parametrize("protocol", range(6))
def test_calls_that_pickle_writes_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    command = f"touch {MARKER}"
    for evil in (
        _Reduced(os.system, (command,)),
        _Reduced(eval, (f"open({MARKER!r}, 'w')",)),
        _Reduced(_Reduced, (_Reduced(os.system, (command,)),), {"a": _Reduced(exec, ("import this",))}),
        _Reduced(list, (), None, iter([_Reduced(os.system, (command,))])),
        _Reduced(dict, (), None, None, iter([("a", _Reduced(os.system, (command,)))])),
    ):
        dumped = pickle.dumps(evil, protocol)
        bare = dumped[2:-1] if protocol >= 2 else dumped[:-1]
        read = attempt(tmp_path, with_value(bare))
        assert not (tmp_path / MARKER).exists()
        assert isinstance(read, WeightFile)
        assert "<" in str(read.modules[""].attributes["evil"])  # Inert data become texts such as <posix.system>.
    pickle.loads(pickle.dumps(_Reduced(os.system, (command,)), protocol))
    assert (tmp_path / MARKER).exists()  # So the corpus is one that would have done harm.


SYSTEM = b"cos\nsystem\n"
COMMAND = write.text("true")

OPCODE_EXAMPLES = {
    "INT": b"I1\n", "BININT": b"J\1\0\0\0", "BININT1": b"K\1", "BININT2": b"M\1\0", "LONG": b"L1L\n",
    "LONG1": b"\x8a\1\1", "LONG4": b"\x8b\1\0\0\0\1", "STRING": b"S'a\\x41\\n'\n", "BINSTRING": b"T\1\0\0\0a",
    "SHORT_BINSTRING": b"U\1a", "BINBYTES": b"B\1\0\0\0a", "SHORT_BINBYTES": b"C\1a",
    "BINBYTES8": b"\x8e\1\0\0\0\0\0\0\0a", "BYTEARRAY8": b"\x96\1\0\0\0\0\0\0\0a", "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"C\1a\x98", "NONE": b"N", "NEWTRUE": b"\x88", "NEWFALSE": b"\x89", "UNICODE": b"Va\\u00e9\n",
    "SHORT_BINUNICODE": b"\x8c\1a", "BINUNICODE": b"X\1\0\0\0a", "BINUNICODE8": b"\x8d\1\0\0\0\0\0\0\0a",
    "FLOAT": b"F1.5\n", "BINFLOAT": b"G?\xf8\0\0\0\0\0\0", "EMPTY_LIST": b"]", "APPEND": b"]Na", "APPENDS": b"](NNe",
    "LIST": b"(NNl", "EMPTY_TUPLE": b")", "TUPLE": b"(NNt", "TUPLE1": b"N\x85", "TUPLE2": b"NN\x86",
    "TUPLE3": b"NNN\x87", "EMPTY_DICT": b"}", "DICT": b"(NNd", "SETITEM": b"}NNs", "SETITEMS": b"}(NNu",
    "EMPTY_SET": b"\x8f", "ADDITEMS": b"\x8f(NK\1\x90", "FROZENSET": b"(NK\1\x91", "POP": b"NN0", "DUP": b"N20",
    "MARK": b"(t", "POP_MARK": b"N(NN1", "GET": b"Np9\n0g9\n", "BINGET": b"Nq\x090h\x09",
    "LONG_BINGET": b"Nr\x09\2\0\x000j\x09\2\0\0", "PUT": b"Np9\n", "BINPUT": b"Nq\x09",
    "LONG_BINPUT": b"Nr\x09\0\0\0",
    "MEMOIZE": b"N\x94", "EXT1": b"\x82\1", "EXT2": b"\x83\1\0", "EXT4": b"\x84\1\0\0\0", "GLOBAL": SYSTEM,
    "STACK_GLOBAL": b"\x8c\2os\x8c\6system\x93", "REDUCE": SYSTEM + COMMAND + b"\x85R",
    "BUILD": SYSTEM + COMMAND + b"\x85R}b", "INST": b"(" + COMMAND + b"ios\nsystem\n",
    "OBJ": b"(" + SYSTEM + COMMAND + b"o", "NEWOBJ": SYSTEM + COMMAND + b"\x85\x81",
    "NEWOBJ_EX": SYSTEM + COMMAND + b"\x85}\x92", "PROTO": b"\x80\5N", "STOP": b"N", "FRAME": b"\x95" + bytes(8) + b"N",
    "PERSID": b"Pelsewhere\n", "BINPERSID": COMMAND + b"Q",
}  # fmt: skip


def test_every_opcode_is_known() -> None:
    assert set(_NAMES.values()) == {opcode.name for opcode in pickletools.opcodes} == set(OPCODE_EXAMPLES)
    assert {ord(op.code): op.name for op in pickletools.opcodes} == _NAMES


@pytest.mark.parametrize("name", OPCODE_EXAMPLES)
def test_every_opcode_is_read_or_refused_by_name(tmp_path: Path, name: str) -> None:
    read = attempt(tmp_path, with_value(OPCODE_EXAMPLES[name]))
    if name in ("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
        assert isinstance(read, str) and f"({name})" in read and "archive/data.pkl, byte" in read
        return
    assert isinstance(read, WeightFile)
    value = read.modules[""].attributes["evil"]
    calls = ("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")
    if name in calls:
        assert value == "<os.system>"
    elif name in ("PERSID", "BINPERSID"):
        assert value == "<storage>"
    elif "PROTO" not in name and name not in ("FRAME",):  # Python forbids these two in the middle of a program.
        expected = pickle.loads(b"\x80\5" + OPCODE_EXAMPLES[name] + b".")
        if isinstance(expected, bytes | bytearray):
            assert value == "<1 bytes>"
        else:
            assert set(value) == expected if isinstance(expected, set | frozenset) else value == expected


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"N}b", "state"),
        (b"]}b", "state"),
        (b"}N}b", "state"),
        (b")Na", "appended"),
        (b"K\1(Ne", "appended"),
        (b"](NNu", "key is set"),
        (b"}(Nu", "without a value"),
        (b"(Nd", "without a value"),
        (b"K\1)R", "would be called"),
        (b"X\1\0\0\0a)R", "would be called"),
        (SYSTEM + b"]R", "arguments"),
        (SYSTEM + b")N\x92", "keyword"),
        (b"(o", "without a class"),
        (b"NN\x93", "not a text"),
        (b"(N", "STOP leaves"),
        (b"NN", "no tensors"),
        (b"t", "no tensors"),
        (b"0000", "stack is empty"),
        (b"h\x63", "never written"),
        (b"g-1\n", "not an index"),
        (b"p99999999999\n", "not an index"),
        (b"\x80\x06", "protocol 6"),
        (b"\x95" + b"\xff" * 8, "frame"),
        (b"X\xff\xff\xff\x7fa", "text of 2147483647 bytes"),
        (b"B\xff\xff\xff\x7fa", "announced"),
        (b"\x8d" + b"\xff" * 8, "text of"),
        (b"\x8b\xff\xff\xff\xff", "integer of"),
        (b"L" + b"9" * 3000 + b"\n", "digits"),
        (b"I" + b"9" * 5000 + b"\n", "line end"),
        (b"Ix\n", "INT"),
        (b"Fx\n", "FLOAT"),
        (b"Sx\n", "quotation"),
        (b"\xff", "no opcode"),
        (b"(" * 3000, "open marks"),
        (b"V\\u12\n", "UNICODE"),
    ],
)  # fmt: skip
def test_broken_programs_are_refused_with_their_place(tmp_path: Path, value: bytes, word: str) -> None:
    message = attempt(tmp_path, write.zip_file(b"0" * (value == b"0000") + value, STORAGES))
    if word == "no tensors":
        message = attempt(tmp_path, write.zip_file(value, STORAGES))
        word = "archive/data.pkl, byte"
    assert isinstance(message, str) and word in message, message


def test_cycles_shared_references_and_deep_nesting_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolojax.weights._bounds.SMALLEST_ALLOWANCE", 1 << 19)  # So that it is used up soon.
    itself = b"]q\x05h\x05a"
    read = attempt(tmp_path, with_value(itself))
    assert isinstance(read, WeightFile)
    deep = b"]" * 2_000 + b"a" * 1_999
    read = attempt(tmp_path, with_value(deep))
    assert isinstance(read, WeightFile) and "nested too deep" in str(read.modules[""].attributes["evil"])
    deep_objects = SYSTEM + b"q\1" + b")R" * 2_000
    assert isinstance(attempt(tmp_path, with_value(deep_objects)), WeightFile)
    again = [b"h" + bytes([level]) for level in range(30)]
    laughs = b"]q\0" + b"".join(b"0](" + again[level - 1] * 10 + b"eq" + bytes([level]) for level in range(1, 30))
    message = attempt(tmp_path, with_value(laughs))
    assert isinstance(message, str) and "allowed" in message
    in_itself = b"cm\nNet\n)\x81q\2}" + write.text("_modules") + b"}" + write.text("a") + b"h\2ssb"
    message = attempt(tmp_path, write.zip_file(in_itself, STORAGES))
    assert isinstance(message, str) and "nested deeper" in message
    module = write.module("m.Net", {"w": TENSOR}, {}, {})
    for level in range(30):  # Each module holds the one before it twice.
        module += b"q%c0" % level + write.module("m.Net", {}, {}, {"a": again[level], "b": again[level]})
    message = attempt(tmp_path, write.zip_file(module, STORAGES))
    assert isinstance(message, str) and "allowed" in message


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (write.tensor("FloatStorage", "0", 6, (7,)), "reach out"),
        (write.tensor("FloatStorage", "0", 6, (2,), (5,), 1), "reach out"),
        (write.tensor("FloatStorage", "0", 6, (1,), (1,), 6), "reach out"),
        (write.tensor("FloatStorage", "0", 7, (6,)), "claims 7"),
        (write.tensor("FloatStorage", "0", 5, (5,)), "claims 5"),
        (write.tensor("DoubleStorage", "0", 6, (6,)), "claims 6"),
        (write.tensor("FloatStorage", "0", 1 << 61, (6,)), "claims"),
        (write.tensor("FloatStorage", "0", -6, (6,)), "whole number"),
        (write.tensor("FloatStorage", "0", 6, (-1,)), "shape"),
        (write.tensor("FloatStorage", "0", 6, (3,), (-1,), 5), "strides"),
        (write.tensor("FloatStorage", "0", 6, (3,), (1,), -1), "offset"),
        (write.tensor("FloatStorage", "0", 6, (2, 3), (1,)), "2 sizes and 1 strides"),
        (write.tensor("FloatStorage", "0", 6, (1,) * 17, (1,) * 17), "at most 16"),
        (write.tensor("FloatStorage", "0", 6, (1 << 40,), (0,)), "copied"),
        (write.tensor("FloatStorage", "0", 6, (1 << 30, 1 << 30), (0, 0)), "too large"),
        (write.tensor("FloatStorage", "0", 6, (0, 1 << 50), (0, 0)), "too large"),
        (write.tensor("FloatStorage", "0", 6, ((1 << 70),), (0,)), "shape"),
        (write.tensor("FloatStorage", "1", 6, (6,)), "not in the file"),
        (write.tensor("FloatStorage", "../version", 6, (6,)), "not in the file"),
        (write.tensor("FloatStorage", "/etc/passwd", 6, (6,)), "not in the file"),
        (write.tensor("BoolStorage", "0", 24, (24,)), "truth values"),
        (write.tensor("system", "0", 6, (6,)), "torch.system"),
        (TENSOR.replace(b"Xt", b"Xs").replace(write.text("storage"), write.text("network")), "no storage"),
        (TENSOR.replace(write.storage("FloatStorage", "0", 6), b"N"), "no storage"),
        (TENSOR.replace(write.storage("FloatStorage", "0", 6), b"Phttp://elsewhere\n"), "no storage"),
        (TENSOR.replace(write.text("0"), b"]"), "not in the file"),
        (TENSOR.replace(write.integers((6,)), b"N"), "shape"),
        (TENSOR.replace(b"c" + b"torch._utils\n_rebuild_tensor_v2", b"ctorch._utils\n_rebuild_evil"), "_rebuild_evil"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_their_storage_are_refused(tmp_path: Path, tensor: bytes, word: str) -> None:
    message = attempt(tmp_path, write.zip_file(write.dictionary({"weight": tensor}), STORAGES))
    assert isinstance(message, str) and word in message and "'weight'" in message, message


def test_a_small_file_cut_or_damaged_at_every_byte(tmp_path: Path) -> None:
    whole_zip = write.zip_file(STATE, STORAGES)
    whole_legacy = write.legacy_file(STATE, {"0": (6, W.tobytes())})
    for content in (whole_zip, whole_legacy):
        assert isinstance(attempt(tmp_path, content), WeightFile)
        for place in range(len(content)):
            assert isinstance(attempt(tmp_path, content[:place]), str)
        assert isinstance(attempt(tmp_path, content + b"\0"), str)
    for place in range(0, len(whole_zip), 5):
        damaged = bytearray(whole_zip)
        damaged[place] ^= 0x41
        read = attempt(tmp_path, bytes(damaged))
        if isinstance(read, WeightFile):  # A field that nobody needs, such as a member's date.
            np.testing.assert_array_equal(read.tensors["w"], W)


def members(content: bytes = b"") -> dict[str, bytes]:
    return {"a/data.pkl": write.program(STATE), "a/data/0": content or W.tobytes()}


def test_damaged_and_hostile_archives_are_refused(tmp_path: Path) -> None:
    good = write.zip_archive(members())
    directory = good.index(b"PK\1\2")
    second = good.index(b"PK\1\2", directory + 4)
    end = good.index(b"PK\5\6")
    renamed = good.replace(b"a/data/0", b"a/data/1")

    def patched(place: int, layout: str, *values: int) -> bytes:
        data = bytearray(good)
        struct.pack_into(layout, data, place, *values)
        return bytes(data)

    header_of_second = good.index(b"PK\3\4", 4)
    cases = {
        "data.pkl; one is": write.zip_archive({"a/data.pkl": b"N.", "b/data.pkl": b"N."}),
        "0 members data.pkl": write.zip_archive({"a/other": b""}),
        "two members": write.zip_archive(members() | {"a/data/1": b""}).replace(b"a/data/1", b"a/data/0"),
        "not in the file": renamed,
        "encrypted": patched(directory + 8, "<H", 1),
        "compressed by method 14": patched(directory + 10, "<H", 14),
        "overlap": patched(second + 42, "<L", 10),
        "out of the file": patched(directory + 20, "<2L", 1 << 30, 1 << 30),
        "not where": patched(second + 42, "<L", header_of_second + 1),
        "two sizes": patched(directory + 24, "<L", 5),
        "CRC-32": patched(header_of_second + 40, "<B", 7),
        "another name": patched(header_of_second + 30, "<B", 7),
        "contradicts": patched(end + 10, "<H", 9),
        "directory is damaged": patched(second, "<B", 7),
        "behind the end": good + b"junk",
        "no end record": good[:end],
        "neither little nor big": write.zip_file(STATE, STORAGES, byteorder="middle"),
        "goes on behind": write.zip_archive({"a/data.pkl": write.program(STATE) + b"N."}),
    }
    for word, content in cases.items():
        message = attempt(tmp_path, content)
        assert isinstance(message, str) and word in message, (word, message)


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    import zipfile

    bomb = write.zip_archive(members(bytes(50 << 20)), zipfile.ZIP_DEFLATED)
    message = attempt(tmp_path, bomb)
    assert isinstance(message, str) and "more than the whole file" in message
    size = struct.pack("<L", 50 << 20)
    lying = bomb.replace(size, struct.pack("<L", 1000))
    message = attempt(tmp_path, lying)
    assert isinstance(message, str) and "larger than the 1000 bytes" in message
    shared = write.zip_archive(members() | {f"a/data/{n}": bytes(9000) for n in range(1, 9)}, zipfile.ZIP_DEFLATED)
    assert isinstance(attempt(tmp_path, shared), str)


def test_hostile_legacy_files_are_refused(tmp_path: Path) -> None:
    good = write.legacy_file(STATE, {"0": (6, W.tobytes())})
    cases = {
        "magic number": write.program(b"K\1") + good,
        "protocol 1001": good.replace(write.program(write.integer(1001)), write.program(write.integer(1002)), 1),
        "order of bytes": good.replace(b"little_endian", b"midget_endian"),
        "listed twice": good.replace(write.listed(write.text("0")), write.listed(write.text("0"), write.text("0"))),
        "of no tensor": good.replace(write.listed(write.text("0")), write.listed(write.text("1"))),
        "no list of texts": good.replace(write.listed(write.text("0")), b"N"),
        "reaches out": write.legacy_file(STATE, {"0": (1 << 40, W.tobytes())}),
        "behind the last storage": good + b"x",
        "unknown type": good.replace(b"torch\nFloatStorage", b"os\nsystem"),
        "two types": write.legacy_file(
            write.dictionary({"w": TENSOR, "v": write.tensor("HalfStorage", "0", 12, (12,))}), {"0": (6, W.tobytes())}
        ),
        "tar form": b"sys_info" + bytes(249) + b"ustar" + bytes(300),
        "neither a zip": b"hello",
        "empty": b"",
    }
    for word, content in cases.items():
        message = attempt(tmp_path, content)
        assert isinstance(message, str) and word in message, (word, message)


def run(module: str, *arguments: str) -> str:
    """Runs a module in a process without the checks of shapes and types, which cost memory and time of their own."""
    command = [sys.executable, "-m", f"tests.weights.{module}", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_reading_takes_at_most_twice_the_size_of_the_file() -> None:
    run("measure_pytorch_memory", "--bytes", "400000")


@pytest.mark.slow
def test_reading_large_files_takes_at_most_twice_their_size() -> None:
    run("measure_pytorch_memory", "--bytes", "12000000")


def test_mutated_files_end_in_errors_or_data_and_nothing_is_imported_or_called() -> None:
    assert "forbidden events: {}" in run("fuzz_pytorch", "--count", "3000")


@pytest.mark.slow
def test_many_mutated_files() -> None:
    assert "forbidden events: {}" in run("fuzz_pytorch", "--count", "1000000", "--seed", "1")
