"""Released weights: bit for bit what was saved, or an error that names what is wrong."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from yolojax.errors import CheckpointError, WriteError
from yolojax.weights.released import (
    complete_release,
    fit_tree,
    flatten,
    load_description,
    load_weights,
    save_released,
    unflatten,
)

RNG = np.random.default_rng(0)
VARIABLES = {
    "params": {
        "backbone": {"stem": {"kernel": RNG.normal(size=(3, 3, 3, 8)).astype(np.float32)}},
        "neck": {},
        "head": {"bias": np.array([-0.0, np.finfo(np.float32).tiny / 2, 1e30], np.float32)},
    },
    "batch_stats": {"backbone": {"count": np.int32([3])}},
}
DESCRIPTION = {"detector": {"name": "compact", "class_names": ["cell"]}, "training": {"seed": 1}}


def test_flatten_and_back():
    flat = flatten(VARIABLES)
    assert sorted(flat) == ["batch_stats/backbone/count", "params/backbone/stem/kernel", "params/head/bias"]
    assert flat["params/head/bias"] is VARIABLES["params"]["head"]["bias"]
    without_empty = {**VARIABLES, "params": {k: v for k, v in VARIABLES["params"].items() if v}}
    assert unflatten(flat) == without_empty


def test_round_trip_bit_for_bit(tmp_path):
    save_released(tmp_path / "best", {**VARIABLES, "batch_stats": {"backbone": {"count": jnp.int32([3])}}}, DESCRIPTION)
    description = load_description(tmp_path / "best")
    assert description == {"format": 1, **DESCRIPTION}
    loaded = fit_tree(load_weights(tmp_path / "best" / "weights.safetensors"), VARIABLES, "weights")
    assert loaded["params"]["neck"] == {} and set(loaded) == set(VARIABLES)
    for name, value in flatten(VARIABLES).items():
        assert flatten(loaded)[name].dtype == value.dtype
        assert flatten(loaded)[name].tobytes() == value.tobytes()
    assert sorted(p.name for p in (tmp_path / "best").iterdir()) == ["detector.json", "weights.safetensors"]


def test_saving_again_replaces(tmp_path):
    save_released(tmp_path, VARIABLES, DESCRIPTION)
    save_released(tmp_path, {"params": {"head": {"bias": np.ones(2, np.float32)}}}, {"detector": {"name": "other"}})
    assert flatten(load_weights(tmp_path / "weights.safetensors")).keys() == {"params/head/bias"}
    assert load_description(tmp_path)["detector"] == {"name": "other"}


def test_arrays_in_any_memory_order_are_saved_by_value(tmp_path):
    strided = np.arange(24, dtype=np.float32).reshape(4, 6).T[::2]
    save_released(tmp_path, {"params": {"head": {"kernel": strided}}}, DESCRIPTION)
    np.testing.assert_array_equal(load_weights(tmp_path / "weights.safetensors")["params"]["head"]["kernel"], strided)


def test_a_flipped_byte_anywhere_is_noticed(tmp_path):
    """The format has no checksum of its own: without ours a damaged weight would be read as another weight."""
    save_released(tmp_path, VARIABLES, DESCRIPTION)
    path = tmp_path / "weights.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for at in [*range(0, header, 37), *range(header, len(whole), 101), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            loaded = load_weights(path)
        except CheckpointError as error:
            assert "weights.safetensors" in str(error)
        else:  # the name of the checksum's own entry was hit, or spaces that fill the header up: no array may differ
            assert at < header
            assert {k: v.tobytes() for k, v in flatten(loaded).items()} == {
                k: v.tobytes() for k, v in flatten(VARIABLES).items()
            }
    path.write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_weights(path)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["x", "x/y"], "lies below another array"),
        (["x/y/z", "x/y"], "lies below another array"),
        (["/".join("a" * 20_000)], "lies below 19999 others; at most 100 levels"),
    ],
)
def test_names_that_make_no_tree(tmp_path, names, match):
    save_file({name: np.ones(2, np.float32) for name in names}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors: .*{match}") as caught:
        load_weights(tmp_path / "weights.safetensors")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "BF16", "I4"])
def test_number_formats_that_numpy_lacks(tmp_path, kind):
    """An array of 8 bytes of each; bfloat16 is one of JAX's."""
    shape = [8] if kind.startswith("F8") else [4] if kind == "BF16" else [16]
    header = json.dumps({"w": {"dtype": kind, "shape": shape, "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    try:
        assert load_weights(path)["w"].shape == tuple(shape)
    except CheckpointError as error:
        assert "weights.safetensors: not a readable safetensors file" in str(error)


@pytest.mark.parametrize(
    "entry",
    ["[" * 100_000, '{"sha256": "", "description": "\\ud800"}', '{"sha256": [], "description": {}}', "\x00", "7"],
)
def test_metadata_that_states_nothing(tmp_path, entry):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "weights.safetensors", {"yolojax": entry})
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="detector"):
        load_description(tmp_path)


def test_a_named_pipe_is_not_waited_for(tmp_path):
    for name in ("weights.safetensors", "detector.json"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_weights(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="there is no such file"):
        load_description(tmp_path)


def test_a_detector_json_that_is_no_text_is_written_again(tmp_path):
    save_released(tmp_path, VARIABLES, DESCRIPTION)
    whole = (tmp_path / "detector.json").read_bytes()
    (tmp_path / "detector.json").write_bytes(b"\xff\xfe")
    complete_release(tmp_path)
    assert (tmp_path / "detector.json").read_bytes() == whole


def test_files_written_elsewhere_state_no_checksum(tmp_path):
    save_file({"params/head/bias": np.ones(3, np.float32)}, tmp_path / "other.safetensors")
    np.testing.assert_array_equal(load_weights(tmp_path / "other.safetensors")["params"]["head"]["bias"], np.ones(3))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 a pickle or a zip", b"\xff" * 64])
def test_what_is_no_weight_file_is_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: not a readable safetensors file"):
        load_weights(path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "no 'detector' entry"),
        ('{"format": 1}', "no 'detector' entry"),
        ('{"format": 2, "detector": {}}', "format 2, this version reads 1; update yolojax"),
        ('{"detector": {}}', "format None"),
        ("[" * 100_000, "not valid JSON"),
        ('{"format": 1, "detector": {}, "training": [1]}', r"'training' is \[1\], not named values"),
    ],
)
def test_descriptions_that_cannot_be_used(tmp_path, text, match):
    if text is not None:
        (tmp_path / "detector.json").write_text(text)
    with pytest.raises(CheckpointError, match=match) as caught:
        load_description(tmp_path)
    assert "detector.json" in str(caught.value)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*file.*; free space or give another --out"):
        save_released(tmp_path / "file" / "best", VARIABLES, DESCRIPTION)


def changed(name: str, value: np.ndarray | None) -> dict:
    flat = {k: v for k, v in flatten(VARIABLES).items() if k != name or value is not None}
    return unflatten(flat | ({} if value is None else {name: value}))


@pytest.mark.parametrize(
    ("loaded", "match"),
    [
        (changed("params/head/bias", None), "parameter params/head/bias is missing"),
        (changed("params/head/scale", np.ones(3, np.float32)), "parameter params/head/scale is unknown"),
        (changed("params/head/bias", np.ones(4, np.float32)), r"params/head/bias is float32 of shape \(4,\)"),
        (changed("params/head/bias", np.ones(3, np.float16)), r"params/head/bias is float16 .* needs float32"),
        (changed("params/head/bias", np.float32([1, np.nan, 2])), "params/head/bias holds values that are not finite"),
        (changed("params/head/bias", np.float32([1, np.inf, 2])), "params/head/bias holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(loaded, match):
    with pytest.raises(CheckpointError, match=f"somewhere: parameter .*{match.removeprefix('parameter ')}"):
        fit_tree(loaded, VARIABLES, "somewhere")


def test_descriptions_are_plain_text(tmp_path):
    save_released(tmp_path, VARIABLES, DESCRIPTION)
    assert json.loads((tmp_path / "detector.json").read_text())["training"] == {"seed": 1}
