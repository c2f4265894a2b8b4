"""Faster R-CNN and RetinaNet: published sizes, torchvision's outputs and losses, files there and back, the record."""

import dataclasses
import importlib.util
import json
import re
import shutil
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.goldens.seeded_regions import BOXES, LABELS, SIZE, images, seeded
from tests.weights import pytorch_files
from yolojax import zoo
from yolojax.detector import prepare_images, variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.inference.loading import load_detector
from yolojax.postprocess import postprocess
from yolojax.structures import Hyper, Targets
from yolojax.training.initialise import load_init, take_matching
from yolojax.weights.foreign import read_weight_file
from yolojax.weights.torchvision import modern_names
from yolojax.zoo.fasterrcnn import take_torchvision

GOLDEN = Path(__file__).parent.parent / "goldens" / "regions_torchvision.npz"
NAMES = ("cat", "dog", "owl", "hen")
SMALL = {
    "fasterrcnn": {
        "depth": 18,
        "width": 4,
        "channels": 8,
        "hidden": 8,
        "anchor_sizes": [8.0, 16.0, 32.0, 64.0, 128.0],
        "proposals": 12,
        "training_proposals": 16,
        "first_sample": 32,
        "second_sample": 16,
    },
    "retinanet": {
        "depth": 18,
        "width": 4,
        "channels": 8,
        "anchor_sizes": [8.0, 16.0, 32.0, 64.0, 128.0],
        "candidates": 20,
    },
}
SEVERAL = pytest.mark.slow
"""Networks that differ in little from one that is tested by default; each takes seconds of tracing."""

BACKBONE_NORMS = 53_120
"""Gains and biases of ResNet-50's BatchNorm, which torchvision counts where they are not frozen."""


@pytest.mark.parametrize(
    ("name", "version", "published", "frozen"),
    [
        ("fasterrcnn", "v2", 43_712_278, 0),
        pytest.param("fasterrcnn", "v1", 41_755_286, BACKBONE_NORMS, marks=SEVERAL),
        pytest.param("retinanet", "v2", 38_198_935, 0, marks=SEVERAL),
        pytest.param("retinanet", "v1", 34_014_999, BACKBONE_NORMS, marks=SEVERAL),
    ],
)
def test_has_the_published_size(name, version, published, frozen):
    detector = zoo.build(name, zoo.COCO_CLASSES_90, (64, 64), version=version)
    assert zoo.parameter_count(variable_shapes(detector)) == published + frozen


def test_classes_of_published_files_are_cocos_by_their_ids():
    names = zoo.COCO_CLASSES_90
    assert len(names) == len(set(names)) == 90 and (names[0], names[12], names[89]) == (
        "person",
        "stop sign",
        "toothbrush",
    )
    assert set(zoo.COCO_CLASSES) < set(names)


def targets(batch: int = 2) -> Targets:
    boxes = jnp.broadcast_to(jnp.array([[8.0, 8, 40, 30], [20, 10, 60, 60], [np.nan, 0, 1, 1]]), (batch, 3, 4))
    valid = jnp.broadcast_to(jnp.array([True, True, False]), (batch, 3))
    classes = jnp.broadcast_to(jnp.array([0, 2, 0], jnp.int32), (batch, 3))
    return Targets(boxes, classes, valid, jnp.zeros((batch, 3), bool), jnp.zeros(batch, jnp.int32))


@pytest.fixture(
    scope="module",
    params=[
        "fasterrcnn v2",
        pytest.param("fasterrcnn v1", marks=SEVERAL),
        "retinanet v2",
        pytest.param("retinanet v1", marks=SEVERAL),
    ],
)
def built(request):
    """A narrow detector, and variables that are no two alike."""
    name, version = request.param.split()
    detector = zoo.build(name, NAMES, (64, 64), version=version, frozen_norm=version == "v1", **SMALL[name])
    rng = np.random.default_rng(0)
    shapes = variable_shapes(detector)
    return detector, jax.tree.map(lambda x: jnp.asarray(rng.normal(0.5, 0.2, x.shape), jnp.float32), shapes)


def test_tensors_come_back_byte_for_byte(built, tmp_path):
    detector, variables = built
    tensors = zoo.to_state_dict(detector, variables)
    counters = [name for name in tensors if name.endswith("num_batches_tracked")]
    assert any(name.startswith("backbone.body") for name in counters) != detector.spec.options["frozen_norm"]
    save_file(tensors, tmp_path / "own.safetensors")
    version = detector.spec.options["version"]
    assert zoo.identify(read_weight_file(tmp_path / "own.safetensors")) == (detector.spec.name, f"R18 {version}")
    load = partial(zoo.from_pytorch, tmp_path / "own.safetensors", class_names=NAMES, input_size=(64, 64))
    again, loaded = load(options={"momentum": 0.5})
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert again.spec.options["momentum"] == 0.5
    with pytest.raises(ConfigError, match=r"options: (Faster R-CNN|RetinaNet) from a file has no option depth; it has"):
        load(options={"depth": 50})
    with pytest.raises(ConfigError, match="momentum = 'high'"):
        load(options={"momentum": "high"})
    kept = {"version", "depth", "width", "channels", "frozen_norm"}
    assert {k: again.spec.options[k] for k in kept} == {k: detector.spec.options[k] for k in kept}
    assert again.spec.options["epsilon"] == (0.0 if version == "v1" else 1e-5)
    save_file(zoo.to_state_dict(again, loaded), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "own.safetensors").read_bytes()


def test_a_description_in_json_builds_the_same_detector(built):
    detector, _ = built
    again = zoo.from_description(json.loads(json.dumps(zoo.describe(detector))))
    assert json.dumps(dataclasses.asdict(again.spec)) == json.dumps(dataclasses.asdict(detector.spec))
    assert zoo.custom_parts(again) == {}


@pytest.fixture(scope="module")
def small():
    """Faster R-CNN v2 with its own initial variables."""
    detector = zoo.build("fasterrcnn", NAMES, (64, 64), **SMALL["fasterrcnn"])
    return detector, detector.init(jax.random.key(0))


@pytest.mark.slow  # training and inference of both stages in one program: a minute and a half of compilation
def test_contract_of_the_record(small):
    """Fixed shapes; an image does not depend on its batch; the order of the objects does not matter."""
    detector, variables = small
    pixels = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    hyper, order = Hyper()._replace(**detector.spec.hyper), jnp.array([2, 1, 0])
    whole = targets()
    turned = jax.tree.map(lambda x: x[:, order] if x.ndim > 1 else x, whole)

    @jax.jit
    def everything(variables, pixels):
        def loss_of(params, targets):
            outputs, state = detector.forward_train({**variables, "params": params}, pixels, targets, jax.random.key(2))
            terms = detector.loss(outputs, targets, hyper)
            return terms.reduce()[0], (terms, state)

        (_, (terms, state)), slope = jax.value_and_grad(loss_of, has_aux=True)(variables["params"], whole)
        outputs = detector.forward(variables, pixels)
        folded = detector.decode(detector.forward(detector.fold(variables), pixels))
        measured = detector.loss(outputs, whole, hyper)
        alone = detector.decode(detector.forward(variables, pixels[1:]))
        return (
            terms,
            state,
            slope,
            loss_of(variables["params"], turned)[0],
            detector.decode(outputs),
            folded,
            measured,
            alone,
        )

    terms, state, slope, other, found, folded, measured, alone = everything(variables, pixels)
    assert found.boxes.shape == (2, 36, 4) and found.scores.shape == (2, 36, 4)
    assert float(found.boxes.min()) >= 0 and float(found.boxes.max()) <= 64
    assert set(terms.sums) == {"objectness", "anchor", "cls", "box"} and terms.normalisers["cls"].tolist() == [16, 16]
    assert all(jax.tree.leaves(jax.tree.map(lambda x: bool(jnp.isfinite(x).all()), (terms, slope, measured))))
    assert all(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(slope["backbone"]["stem"]))
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    np.testing.assert_allclose(terms.reduce()[0], other, rtol=1e-5)
    np.testing.assert_allclose(found.boxes[1], alone.boxes[0], atol=1e-3)
    np.testing.assert_allclose(found.scores[1], alone.scores[0], atol=1e-5)
    np.testing.assert_allclose(np.sort(folded.scores.max(-1)), np.sort(found.scores.max(-1)), atol=1e-3)
    assert terms.counts["positives"].min() >= 2  # the objects themselves are proposals


@pytest.mark.slow  # half a minute of compilation
def test_frozen_normalisation_stays(small):
    detector = zoo.build("fasterrcnn", NAMES, (64, 64), frozen_norm=True, **SMALL["fasterrcnn"])
    variables = small[1]
    pixels = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))

    @jax.jit
    def step(params):
        def loss(params):
            outputs, state = detector.forward_train(
                {**variables, "params": params}, pixels, targets(1), jax.random.key(2)
            )
            return detector.loss(outputs, targets(1), Hyper()).reduce()[0], state

        return jax.grad(loss, has_aux=True)(params)

    slope, state = step(variables["params"])
    stem = slope["backbone"]["stem"]
    assert not np.any(stem["norm"]["scale"]) and np.any(stem["conv"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"]["backbone"], variables["batch_stats"]["backbone"])
    assert np.any(slope["neck"]["output0"]["norm"]["scale"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {**t, "roi_heads.mask_head.0.0.weight": np.zeros(3, np.float32)}, "predicts masks or keypoints"),
        (
            lambda t: {n: a for n, a in t.items() if "layer_blocks.2.1.bias" not in n},
            "layer_blocks.2.1.bias is missing",
        ),
        (lambda t: {**t, "backbone.extra": np.zeros(3, np.float32)}, "1 tensors have no place .* backbone.extra"),
        (lambda t: {**t, "roi_heads.box_head.5.weight": np.zeros((8, 9), np.float32)}, "box_head.5.weight is .*8, 9"),
    ],
    ids=["masks", "missing", "unknown", "other shape"],
)
def test_wrong_files_get_one_error(change, said, small, tmp_path):
    save_file(change(zoo.to_state_dict(*small)), tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=said):
        zoo.from_pytorch(tmp_path / "wrong.safetensors", class_names=NAMES, input_size=(64, 64))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "v3"}, "version = 'v3': give v1 or v2"),
        ({"depth": 20}, "depth = 20: give one of 18, 34, 50, 101"),
        ({"anchor_sizes": [1.0]}, "give five positive numbers"),
        ({"epsilon": 2.0}, "epsilon = 2.0"),
    ],
)
def test_options_out_of_range_are_named(name, options, said):
    with pytest.raises(ConfigError, match=said):
        zoo.build(name, NAMES, (64, 64), **options)


def test_a_pth_of_pytorch_is_loaded_and_detects(small, tmp_path):
    """The state dict under ``model``, as torchvision's training script saves it, by the names of 2020."""
    detector = zoo.build("fasterrcnn", NAMES, (64, 64), version="v1", frozen_norm=True, **SMALL["fasterrcnn"])
    variables = detector.init(jax.random.key(3))
    tensors = {
        re.sub(r"((?:inner|layer)_blocks\.\d|rpn\.head\.conv)\.0(?:\.0)?\.", r"\1.", name): np.ascontiguousarray(array)
        for name, array in zoo.to_state_dict(detector, variables).items()
    }
    assert "rpn.head.conv.weight" in tensors and "backbone.fpn.inner_blocks.3.bias" in tensors
    assert modern_names(tensors).keys() == zoo.to_state_dict(detector, variables).keys()
    keys = {name: str(i) for i, name in enumerate(tensors)}
    held = {name: pytorch_files.whole(array, keys[name]) for name, array in tensors.items()}
    whole = pytorch_files.dictionary({"model": pytorch_files.dictionary(held, pytorch_files.EMPTY_ORDERED)})
    path = tmp_path / "model_25.pth"
    path.write_bytes(pytorch_files.zip_file(whole, {keys[n]: a.tobytes() for n, a in tensors.items()}))
    (tmp_path / "my.names").write_text("\n".join(NAMES))
    again, loaded = load_detector(path, tmp_path / "my.names", size=64)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    assert again.spec.postprocess.prediction == dataclasses.replace(again.spec.postprocess.validation)
    assert dataclasses.astuple(again.spec.postprocess.prediction) == (0.05, 0.5, 100)


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=SEVERAL)])
def test_imagenets_weights_start_a_backbone(depth, tmp_path):
    """A classifier's file gives the backbone of any detector that has this ResNet, and nothing else."""
    detector = zoo.build("retinanet", NAMES, (64, 64), **SMALL["retinanet"] | {"depth": depth})
    shapes = variable_shapes(detector)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.5, 0.2, x.shape), jnp.float32), shapes)
    body = "backbone.body."
    tensors = {
        name.removeprefix(body): array
        for name, array in zoo.to_state_dict(detector, variables).items()
        if name.startswith(body)
    }
    tensors |= {"fc.weight": np.zeros((10, 32), np.float32), "fc.bias": np.zeros(10, np.float32)}
    save_file(tensors, tmp_path / "resnet.safetensors")
    given = load_init(tmp_path / "resnet.safetensors")
    assert given.spec is None and set(given.variables["params"]) == {"backbone"}
    own = jax.tree.map(lambda x: jnp.zeros(x.shape), shapes)
    taken, summary = take_matching(own, given.variables, "resnet.safetensors", detector.spec, given.spec)
    jax.tree.map(np.testing.assert_array_equal, taken["params"]["backbone"], variables["params"]["backbone"])
    jax.tree.map(np.testing.assert_array_equal, taken["batch_stats"]["backbone"], variables["batch_stats"]["backbone"])
    assert "unused" not in summary and "freshly initialised" in summary
    save_file(tensors | {"layer1.0.se.weight": np.zeros(3, np.float32)}, tmp_path / "se.safetensors")
    with pytest.raises(CheckpointError, match=r"no place in this network, such as layer1\.0\.se"):
        load_init(tmp_path / "se.safetensors")


NETWORKS = {
    "faster": (
        "fasterrcnn",
        {
            "version": "v1",
            "proposals": 60,
            "training_proposals": 60,
            "first_sample": 8192,
            "second_sample": 256,
        },
        {
            "cls": "loss_classifier",
            "box": "loss_box_reg",
            "objectness": "loss_objectness",
            "anchor": "loss_rpn_box_reg",
        },
    ),
    "retina1": ("retinanet", {"version": "v1"}, {"cls": "classification", "box": "bbox_regression"}),
    "retina2": ("retinanet", {"version": "v2"}, {"cls": "classification", "box": "bbox_regression"}),
}


@pytest.mark.slow  # networks of 256 channels
@pytest.mark.parametrize("network", NETWORKS)
def test_outputs_and_losses_are_torchvisions(network):
    """ResNet-18 with seeded weights: every part of the loss of two images, and the detections of both."""
    name, options, parts = NETWORKS[network]
    golden = np.load(GOLDEN)
    sizes = SMALL[name]["anchor_sizes"]
    detector = zoo.build(name, NAMES, SIZE, depth=18, frozen_norm=True, anchor_sizes=sizes, **options)
    tensors = {}
    for entry in golden[f"{network}_names"]:
        tensor, _, shape = str(entry).partition(" ")
        tensors[tensor] = seeded(tensor, tuple(json.loads(shape)), network)
    variables = take_torchvision(tensors, detector, "the golden")
    rows = max(map(len, BOXES))
    boxes = np.array([own + [[0, 0, 0, 0]] * (rows - len(own)) for own in BOXES], np.float32)
    labels = np.array([own + [1] * (rows - len(own)) for own in LABELS], np.int32) - 1
    valid = np.arange(rows)[None] < np.array([[len(own)] for own in BOXES])
    truth = Targets(*map(jnp.asarray, (boxes, labels, valid, np.zeros_like(valid), np.zeros(2, np.int32))))
    pixels = jnp.asarray(images().transpose(0, 2, 3, 1))

    @jax.jit
    def losses(variables, pixels):
        outputs, _ = detector.forward_train(variables, pixels, truth, jax.random.key(0))
        return detector.loss(outputs, truth, Hyper()._replace(**detector.spec.hyper)).reduce()[1]

    found = losses(variables, pixels)
    for ours, theirs in parts.items():
        np.testing.assert_allclose(found[ours], golden[f"{network}_{theirs}"], rtol=2e-4, err_msg=ours)
    limits = detector.spec.postprocess.prediction

    @jax.jit
    def detections_of(variables, pixels):
        candidates = detector.decode(detector.forward(variables, pixels))
        return postprocess(candidates, limits.confidence, limits.iou, max_detections=limits.max_detections)

    detections = detections_of(variables, pixels)
    for i in range(2):
        # torchvision's RetinaNet also reports class 0, which nobody is of.
        labels = golden[f"{network}_labels{i}"]
        real, count = labels > 0, int((labels > 0).sum())
        assert int(detections.valid[i].sum()) == (count if name == "fasterrcnn" else limits.max_detections)
        np.testing.assert_allclose(detections.scores[i, :count], golden[f"{network}_scores{i}"][real], atol=1e-4)
        np.testing.assert_allclose(detections.boxes[i, :count], golden[f"{network}_boxes{i}"][real], atol=0.02)
        np.testing.assert_array_equal(detections.classes[i, :count] + 1, labels[real])


@pytest.mark.slow  # the whole network at 800 x 1088 pixels
@pytest.mark.filterwarnings("ignore:.*make_weights|unclosed file:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the reference's script leaves files open
def test_the_published_network_computes_the_same(test_data, tmp_path):
    """torchvision 0.29 with random weights; proposals as sets, since rounding exchanges some of equal rank."""
    refs = test_data / "refs"
    spec = importlib.util.spec_from_file_location("make_weights", refs / "scripts" / "make_weights.py")
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = tmp_path / "reference"
    shutil.copytree(refs / "c_fasterrcnn_resnet50_fpn_v2", folder)
    tensors, _ = make.all_values(str(folder))
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "v2.safetensors")
    detector, variables = zoo.from_pytorch(tmp_path / "v2.safetensors", input_size=(800, 1088))
    ours = zoo.to_state_dict(detector, variables)
    assert ours.keys() == tensors.keys() and all(ours[n].shape == a.shape for n, a in tensors.items())
    peer = np.load(folder / "output.npz")
    image = prepare_images(jnp.asarray(peer["input1_uint8"][None]), detector.spec.preprocess)
    out = jax.jit(detector.forward)(variables, image)
    for i in range(5):
        np.testing.assert_allclose(
            out.objectness[i][0].transpose(2, 0, 1), peer[f"rpn_objectness1_{i}"], rtol=0, atol=1e-3
        )
        rows, columns = out.deltas[i].shape[1:3]
        deltas, every = out.deltas[i][0].reshape(rows, columns, 12).transpose(2, 0, 1), 4 if columns > 99 else 1
        np.testing.assert_allclose(deltas[:, ::every, ::every], peer[f"rpn_deltas1_{i}"], rtol=0, atol=1e-3)
    distance = np.abs(np.asarray(out.proposals.boxes[0])[:, None] - peer["proposals1"][None]).max(-1)
    same = distance.min(0) < 0.01
    assert same.mean() > 0.85 and bool(out.proposals.valid.all())
    same = distance.min(0) < 3e-4  # logits move by about one for each pixel that a box is off
    assert same.sum() > 5
    rows = distance.argmin(0)[same]
    cls, box = np.asarray(out.class_logits[0])[rows], np.asarray(out.box_deltas[0])[rows].reshape(len(rows), -1)
    assert np.median(np.abs(cls - peer["class_logits1"][same]).max(-1)) < 1e-3
    assert np.median(np.abs(box - peer["box_regression1"][same]).max(-1)) < 1e-3
