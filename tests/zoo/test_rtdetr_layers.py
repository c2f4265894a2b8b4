"""RT-DETR-L and X from files of Ultralytics' layout: their names, what they say, and the way there and back."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.weights.detr_layers import from_layers, to_layers
from yolojax.weights.foreign import Module, WeightFile, read_weight_file
from yolojax.zoo.rtdetr import rtdetr_weights

NAMES, SIZE = ("cat", "dog", "owl"), (64, 64)
BLOCKS = {"l": (1, 1, 3, 1), "x": (1, 2, 5, 2)}

CONVOLUTION = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked")
AFFINE = ("weight", "bias")
NECK = [
    "conv",
    "aifi",
    "conv",
    "-",
    "conv",
    "-",
    "join",
    "conv",
    "-",
    "conv",
    "-",
    "join",
    "conv",
    "-",
    "join",
    "conv",
    "-",
    "join",
    "decoder",
]
"""The layers behind the backbone, those without tensors as ``-``."""


def below(path, names):
    return [f"{path}.{name}" for name in names]


def attention(path):
    return [f"{path}.in_proj_weight", f"{path}.in_proj_bias", *below(f"{path}.out_proj", AFFINE)]


def mlp(path, count):
    return [name for i in range(count) for name in below(f"{path}.layers.{i}", AFFINE)]


def published_names(scale):
    """Every name of a file, layer by layer; the number of tensors was counted in files: 941 and 1241."""
    names = [n for part in ("1", "2a", "2b", "3", "4") for n in below(f"model.0.stem{part}", CONVOLUTION)]
    layer = 1
    for stage, count in enumerate(BLOCKS[scale]):
        if stage:
            names += below(f"model.{layer}", CONVOLUTION)
            layer += 1
        inside = ("",) if stage < 2 else (".conv1", ".conv2")
        for _ in range(count):
            parts = [*(f"m.{i}{one}" for i in range(6) for one in inside), "sc", "ec"]
            names += [n for part in parts for n in below(f"model.{layer}.{part}", CONVOLUTION)]
            layer += 1
    for number, kind in enumerate(NECK, layer):
        path = f"model.{number}"
        if kind == "conv":
            names += below(path, CONVOLUTION)
        elif kind == "aifi":
            names += attention(f"{path}.ma")
            names += [n for part in ("fc1", "fc2", "norm1", "norm2") for n in below(f"{path}.{part}", AFFINE)]
        elif kind == "join":
            parts = ["cv1", "cv2", *(f"m.{i}.conv{j}" for i in range(3) for j in (1, 2))]
            names += [n for part in parts for n in below(f"{path}.{part}", CONVOLUTION)]
    names.append(f"{path}.denoising_class_embed.weight")
    for i in range(3):
        names += [f"{path}.input_proj.{i}.0.weight"]
        names += [f"{path}.input_proj.{i}.1{name.removeprefix('bn')}" for name in CONVOLUTION[1:]]
    single = ["enc_output.0", "enc_output.1", "enc_score_head", *(f"dec_score_head.{i}" for i in range(6))]
    names += mlp(f"{path}.query_pos_head", 2) + mlp(f"{path}.enc_bbox_head", 3)
    names += [n for i in range(6) for n in mlp(f"{path}.dec_bbox_head.{i}", 3)]
    for i in range(6):
        names += attention(f"{path}.decoder.layers.{i}.self_attn")
        cross = (f"cross_attn.{one}" for one in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"))
        single += [f"decoder.layers.{i}.{one}" for one in (*cross, "linear1", "linear2", "norm1", "norm2", "norm3")]
    return names + [n for one in single for n in below(f"{path}.{one}", AFFINE)]


@pytest.mark.parametrize(("scale", "count"), [("l", 941), ("x", 1241)])
def test_every_name_goes_to_the_authors_and_back(scale, count):
    names = published_names(scale)
    assert len(names) == len(set(names)) == count
    tensors = {name: np.full((2, 3), i, np.float32) for i, name in enumerate(names)}
    authors = from_layers(tensors, "", BLOCKS[scale])
    assert len(authors) == count and all(name.startswith(("backbone.", "encoder.", "decoder.")) for name in authors)
    table = authors["decoder.denoising_class_embed.weight"]  # and a row for queries that do not exist
    assert table.shape == (3, 3) and not table[-1].any()
    back = to_layers(authors, BLOCKS[scale])
    assert list(back) == names and all(np.array_equal(back[name], tensors[name]) for name in names)


def file_of(tensors, *, epsilon=1e-3, **metadata):
    norm = Module("torch.nn.modules.batchnorm.BatchNorm2d", {"eps": epsilon})
    modules = {"": Module("RTDETRDetectionModel", {"names": dict(enumerate(NAMES))}), "model.2.bn": norm}
    return WeightFile(Path("rtdetr-l.pt"), "pytorch zip", "RTDETRDetectionModel", tensors, modules, metadata)


HEAD = {
    "model.0.stem1.conv.weight": np.zeros((32, 3, 3, 3), np.float32),
    "model.28.enc_score_head.weight": np.zeros((3, 256), np.float32),
}


def test_a_file_tells_scale_classes_and_input_size():
    weights = rtdetr_weights(file_of(HEAD, train_args={"imgsz": 600}))
    assert (weights.scale, weights.num_classes, weights.class_names) == ("l", 3, NAMES)
    assert weights.size == (608, 608)
    assert rtdetr_weights(file_of({f"module.{name}": array for name, array in HEAD.items()})).size is None
    assert zoo.identity(file_of(HEAD)) == "RT-DETR-L"
    assert zoo.identity(file_of({name.replace(".28.", ".32."): array for name, array in HEAD.items()})) == "RT-DETR-X"


def test_another_backbone_or_program_is_named():
    head = dict(list(HEAD.items())[1:])
    for tensors in (head, {name.replace(".28.", ".17."): array for name, array in HEAD.items()}):
        with pytest.raises(CheckpointError, match=r"rtdetr-l\.pt: .* backbone is no HGNetv2 of a published size"):
            zoo.identify(file_of(tensors))
    build = zoo.FAMILIES["rtdetr"].build
    with pytest.raises(CheckpointError, match=r"model\.2\.bn adds 1e-05 to the variance, these families add 0\.001"):
        build(rtdetr_weights(file_of(HEAD, epsilon=1e-5)), None, None, "float32", None)
    with pytest.raises(ConfigError, match="options: RT-DETR from a file has no option scale; it has"):
        build(rtdetr_weights(file_of(HEAD)), None, None, "float32", {"scale": "x"})


@pytest.mark.slow  # the network is traced several times
def test_tensors_come_back_byte_for_byte(tmp_path):
    detector = zoo.build("rtdetr-l", NAMES, SIZE)
    rng = np.random.default_rng(0)
    shapes = variable_shapes(detector)
    variables = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)
    tensors = zoo.to_state_dict(detector, variables)
    assert tensors.keys() == set(published_names("l"))
    assert tensors["model.28.denoising_class_embed.weight"].shape == (3, 256)
    path = tmp_path / "own.safetensors"
    save_file(tensors, path)
    again, loaded = zoo.from_pytorch(path, class_names=NAMES, input_size=SIZE, options={"queries": 50})
    assert again.spec.options == {**detector.spec.options, "queries": 50}
    assert again.spec.preprocess == replace(detector.spec.preprocess, filter="bilinear")
    assert again.spec.postprocess.prediction.confidence == 0.25
    assert zoo.from_description(json.loads(json.dumps(zoo.describe(again)))).spec == again.spec
    table = variables["params"]["head"]["denoising"]
    table[-1] = 0
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    save_file(zoo.to_state_dict(again, loaded), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert zoo.identity(read_weight_file(path)) == "RT-DETR-L"
    save_file({name: array for name, array in tensors.items() if name != "model.9.sc.conv.weight"}, path)
    with pytest.raises(
        CheckpointError, match=r"backbone\.stages\.3\.blocks\.0\.aggregation\.0\.conv\.weight is missing"
    ):
        zoo.from_pytorch(path, class_names=NAMES)
