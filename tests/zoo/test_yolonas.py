"""YOLO-NAS: published sizes, files there and back, merged blocks, the loss in float64, and a permissive peer."""

import importlib.util
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights import pytorch_files
from yolojax import zoo
from yolojax.assign import Predictions, task_aligned_assign
from yolojax.coding import cell_centres, decode_distributions, flatten_levels
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import place_on_input
from yolojax.models.heads import LevelPrediction
from yolojax.models.layers import Style
from yolojax.models.network import Network, init_variables
from yolojax.models.yolonas import BRANCHES, NASBackbone, NASHead, NASNeck, StageSize, fold_branches
from yolojax.structures import Hyper, Level, Targets
from yolojax.weights.foreign import read_weight_file
from yolojax.zoo.yolonas import PREPROCESS

NAMES = ("cat", "dog", "owl")
COCO = tuple(map(str, range(80)))


def spare(params) -> int:
    """Numbers of the unused copies of merged kernels that published files hold for every block."""
    if params.keys() == BRANCHES:
        kernel = params["spatial"]["conv"]["kernel"].shape
        return int(np.prod(kernel)) + kernel[-1]
    return sum(spare(value) for value in params.values() if isinstance(value, dict))


@pytest.mark.parametrize(
    ("scale", "published"),
    # The smallest by default: tracing a network takes seconds.
    [("s", 19_053_888), *(pytest.param(*row, marks=pytest.mark.slow) for row in (("m", 51.1e6), ("l", 66.9e6)))],
)
def test_has_the_published_size(scale, published):
    """S was counted in a permissive peer's table; M and L are stated in millions, cut after the first decimal."""
    detector = zoo.build("yolonas", COCO, (640, 640), scale=scale)
    shapes = variable_shapes(detector)
    count = zoo.parameter_count(shapes) + spare(shapes["params"])
    assert count == published if scale == "s" else published <= count < published + 0.1e6


def fill(shapes, seed=0):
    """Variables of these shapes with different numbers everywhere; variances are positive."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def built():
    detector = zoo.build("yolonas", NAMES, (64, 96))
    return detector, fill(variable_shapes(detector))


def test_tensors_come_back_byte_for_byte(built, tmp_path):
    detector, variables = built
    tensors = zoo.to_state_dict(detector, variables)
    save_file(tensors, tmp_path / "own.safetensors")
    assert zoo.identify(read_weight_file(tmp_path / "own.safetensors")) == ("yolonas", "s")
    assert zoo.identity(read_weight_file(tmp_path / "own.safetensors")) == "YOLO-NAS-S"
    again, loaded = zoo.from_pytorch(tmp_path / "own.safetensors", class_names=NAMES, input_size=(64, 96))
    assert again.spec.preprocess == PREPROCESS and again.spec.options == detector.spec.options
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    save_file(zoo.to_state_dict(again, loaded), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "own.safetensors").read_bytes()


def test_checkpoints_of_the_trainer_are_read(built, tmp_path):
    """The moving average under ``ema_net`` is taken, and the class names beside it."""
    detector, variables = built
    small = {k: np.zeros(1, np.float32) for k in ("a", "b")}
    tensors = zoo.to_state_dict(detector, variables)
    keys = {name: str(i) for i, name in enumerate(tensors)}
    held = {f"module.{name}": pytorch_files.whole(array, keys[name]) for name, array in tensors.items()}
    entries = {
        "net": pytorch_files.dictionary({k: pytorch_files.whole(v, "x") for k, v in small.items()}),
        "ema_net": pytorch_files.dictionary(held, pytorch_files.EMPTY_ORDERED),
        "processing_params": pytorch_files.dictionary(
            {"class_names": pytorch_files.listed(*map(pytorch_files.text, NAMES))}
        ),
    }
    storages = {keys[name]: array.tobytes() for name, array in tensors.items()} | {"x": bytes(4)}
    path = tmp_path / "ckpt_best.pth"
    path.write_bytes(pytorch_files.zip_file(pytorch_files.dictionary(entries), storages))
    again, loaded = zoo.from_pytorch(path)
    assert (again.spec.class_names, again.spec.input_size) == (NAMES, (640, 640))
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def without(tensors, *parts):
    return {name: array for name, array in tensors.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: without(t, "branch_"), "are merged into single convolutions"),
        (lambda t: {**t, "heads.head1.pose_pred.weight": t["heads.head1.cls_pred.weight"]}, "predicts poses"),
        (lambda t: {**t, "heads.head1.cls_pred.weight": np.zeros((3, 48, 1, 1), np.float32)}, "has 48 channels"),
        (lambda t: without(t, "neck2.upsample.bias"), "neck.neck2.upsample.bias is missing"),
        (lambda t: {**t, "neck.extra": np.zeros(3, np.float32)}, "1 tensors have no place .* neck.extra"),
    ],
    ids=["merged", "pose", "other size", "missing", "unknown"],
)
def test_wrong_files_get_one_error(change, said, built, tmp_path):
    save_file(change(zoo.to_state_dict(*built)), tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=said):
        zoo.from_pytorch(tmp_path / "wrong.safetensors", class_names=NAMES, input_size=(64, 96))


def test_merged_variables_have_no_published_names(built):
    detector, variables = built
    folded = jax.eval_shape(detector.fold, jax.tree.map(jnp.asarray, variables))
    with pytest.raises(CheckpointError, match="merged by fold"):
        zoo.to_state_dict(detector, folded)
    with pytest.raises(ConfigError, match="has no scale 'x'; it has s, m, l"):
        zoo.build("yolonas", NAMES, (64, 64), scale="x")


def test_photos_keep_away_from_the_border():
    """The published preparation: the longer side becomes 636 pixels, in the middle of 640."""
    assert place_on_input((480, 640), (640, 640), PREPROCESS).content == (2, 81, 638, 558)
    assert place_on_input((1272, 1000), (640, 640), PREPROCESS).content == (70, 2, 570, 638)


@pytest.fixture(scope="module")
def tiny():
    """A network of all blocks with few channels, and its variables."""
    style = Style(activation="relu", epsilon=1e-3)
    network = Network(
        NASBackbone((4, 6, 8, 10, 12), tuple(StageSize(1, 4, bool(i % 2)) for i in range(4)), style),
        NASNeck((6, 8, 10), (StageSize(1, 4), StageSize(1, 3)), (StageSize(1, 4), StageSize(2, 4)), style),
        NASHead(2, (6, 8, 10), 5, style=style),
    )
    variables = jax.jit(lambda key: init_variables(network, key, (64, 64)))(jax.random.key(0))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32), variables["batch_stats"])
    return network, {**variables, "batch_stats": stats}


def test_merged_blocks_compute_the_same(tiny):
    network, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    fold = jax.jit(lambda v: fold_branches(v, 1e-3))
    folded = fold(variables)
    assert folded["params"]["backbone"]["stem"].keys() == {"merged"}
    assert "stem" not in folded["batch_stats"]["backbone"]
    jax.tree.map(np.testing.assert_array_equal, fold(folded), folded)
    plain, merged = jax.jit(lambda a, b, x: (network.apply(a, x, False), network.apply(b, x, False)))(
        variables, folded, images
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain, merged)


def convolve(x, kernel, stride, padding):
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(size):
        for j in range(size):
            out += x[i : i + stride * rows : stride, j : j + stride * columns : stride] @ kernel[i, j]
    return out


def normalise(x, params, stats):
    return (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * params["scale"] + params["bias"]


def test_stem_and_first_bottleneck_equal_their_definition(tiny):
    """QARepVGG's figure (arXiv 2212.01593, S4) in float64: branches added, normalised again, ReLU."""
    network, variables = tiny
    params, stats = (
        jax.tree.map(lambda x: np.asarray(x, np.float64), variables[k]["backbone"]) for k in ("params", "batch_stats")
    )

    def block(x, own, running, stride):
        y = normalise(
            convolve(x, own["spatial"]["conv"]["kernel"], stride, 1), own["spatial"]["norm"], running["spatial"]["norm"]
        )
        y = y + convolve(x, own["pointwise"]["kernel"], stride, 0) + own["pointwise"]["bias"]
        y = y + (x if x.shape == y.shape else 0)
        return np.maximum(normalise(y, own["post"], running["post"]), 0)

    image = np.random.default_rng(2).uniform(size=(64, 64, 3))
    x = block(image, params["stem"], stats["stem"], 2)
    x = block(x, params["down1"], stats["down1"], 2)
    stage, running = params["stage1"], stats["stage1"]

    def conv(x, name):
        y = convolve(x, stage[name]["conv"]["kernel"], 1, 0)
        return np.maximum(normalise(y, stage[name]["norm"], running[name]["norm"]), 0)

    main = conv(x, "main")
    inner, inner_stats = stage["bottleneck0"], running["bottleneck0"]
    y = block(block(main, inner["conv1"], inner_stats["conv1"], 1), inner["conv2"], inner_stats["conv2"], 1)
    expected = conv(np.concatenate([inner["alpha"] * main + y, conv(x, "side")], -1), "join")
    found = jax.jit(lambda v, x: network.apply(v, x, False, method=lambda n, x, t: n.backbone(x, t)))(
        variables, jnp.asarray(image[None], jnp.float32)
    )[0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def giou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter, area = max(w, 0) * max(h, 0), lambda c: (c[2] - c[0]) * (c[3] - c[1])
    union = area(a) + area(b) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inter / union - (hull - union) / hull


def oracle(rows, targets, assigned, bins):
    """PP-YOLOE's loss (arXiv 2203.16250, equations 2 to 4) in float64, given who owns which point."""
    points, strides, distances, logits = rows
    sums = {part: np.zeros(len(logits)) for part in ("box", "cls", "dfl")}
    normaliser = np.zeros(len(logits))
    for b, i in np.ndindex(*logits.shape[:2]):
        score, p = np.zeros(logits.shape[-1]), 1 / (1 + np.exp(-logits[b, i]))
        if assigned.positive[b, i]:
            m, q = int(assigned.objects[b, i]), float(assigned.scores[b, i])
            score[targets.classes[b, m]] = q
            normaliser[b] += q
            sides = np.exp(distances[b, i].reshape(4, bins))
            sides /= sides.sum(-1, keepdims=True)
            far = (sides * np.arange(bins)).sum(-1)
            centre, truth = points[i] / strides[i], targets.boxes[b, m].astype(np.float64) / strides[i]
            box = np.concatenate([centre - far[:2], centre + far[2:]])
            sums["box"][b] += 2.5 * q * (1 - giou(box, truth))
            for side, y in enumerate(np.concatenate([centre - truth[:2], truth[2:] - centre])):
                y = min(max(y, 0), bins - 1 - 0.01)
                low = int(y)
                cross = (low + 1 - y) * np.log(sides[side, low]) + (y - low) * np.log(sides[side, low + 1])
                sums["dfl"][b] -= 0.5 * q * cross / 4
        weight = np.where(score > 0, score, 0.75 * p**2)
        sums["cls"][b] -= np.sum(weight * (score * np.log(p) + (1 - score) * np.log(1 - p)))
    return sums, normaliser


def test_the_loss_is_pp_yoloes():
    """Boxes reach beyond the last bin, one object has no point, one image has no object."""
    detector = zoo.build("yolonas", NAMES, (64, 64), reg_max=5)
    levels = (Level(8, 8, 8), Level(4, 4, 16), Level(2, 2, 32))
    rng = np.random.default_rng(0)
    outputs = tuple(
        LevelPrediction(*(jnp.asarray(rng.normal(0, 1.5, (3, v.h, v.w, d)), jnp.float32) for d in (20, 3)))
        for v in levels
    )
    boxes = np.zeros((3, 4, 4), np.float32)
    boxes[0] = [[3, 3, 60, 50], [20, 20, 41, 44], [9, 9, 10, 10], [30, 2, 62, 30]]
    boxes[1, :2] = [[0, 0, 64, 64], [5, 30, 25, 62]]
    valid = np.arange(4)[None] < np.array([[4], [2], [0]])
    classes = rng.integers(0, 3, (3, 4)).astype(np.int32)
    targets = Targets(boxes, classes, valid, np.zeros((3, 4), bool), np.zeros(3, np.int32))
    hyper = Hyper()._replace(**detector.spec.hyper)
    assert detector.spec.hyper == {"lambda_coord": 2.5, "lambda_cls": 1.0, "lambda_dfl": 0.5}

    points, strides = cell_centres(levels)
    distances, logits = flatten_levels([o.box for o in outputs]), flatten_levels([o.cls for o in outputs])

    @jax.jit
    def both(targets):
        given = Predictions(decode_distributions(distances, points, strides), logits)
        rule = partial(task_aligned_assign, alpha=1.0, k=13)
        return detector.loss(outputs, targets, hyper), rule(targets, levels, given)

    terms, assigned = both(targets)
    rows = [np.asarray(x, np.float64) for x in (points, strides, distances, logits)]
    sums, normaliser = oracle(rows, targets, jax.tree.map(np.asarray, assigned), 5)
    assert assigned.positive.sum(axis=1).tolist()[2] == 0 and float(terms.counts["unassigned"][0]) == 1
    for part, expected in sums.items():
        np.testing.assert_allclose(terms.sums[part], expected, rtol=2e-5, atol=1e-5, err_msg=part)
        np.testing.assert_allclose(terms.normalisers[part], normaliser, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*make_weights|unclosed file:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the reference's script leaves files open
def test_a_permissive_peer_computes_the_same(test_data, tmp_path):
    """libreyolo (MIT) with random weights: boxes, scores and logits; and the names of its file come back."""
    refs = test_data / "refs"
    spec = importlib.util.spec_from_file_location("make_weights", refs / "scripts" / "make_weights.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = tmp_path / "c_yolonas_s"
    shutil.copytree(refs / "c_yolonas_s", folder)
    tensors, _ = make.all_values(str(folder))
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "nas.safetensors")
    detector, variables = zoo.from_pytorch(tmp_path / "nas.safetensors")
    assert len(detector.spec.class_names) == 80 and detector.spec.options["scale"] == "s"
    ours = zoo.to_state_dict(detector, variables)
    assert ours.keys() == tensors.keys()
    for name, array in tensors.items():
        assert ours[name].shape == array.shape
        if not name.endswith("num_batches_tracked") and "rbr_reparam" not in name:
            np.testing.assert_array_equal(ours[name], array, err_msg=name)
    peer = np.load(folder / "output.npz")
    image = jnp.asarray(peer["input_uint8"][None] / np.float32(255))
    outputs, found = jax.jit(lambda v, x: (o := detector.forward(v, x), detector.decode(o)))(variables, image)
    np.testing.assert_allclose(found.boxes[0], peer["boxes_xyxy"], rtol=0, atol=0.05)
    np.testing.assert_allclose(
        found.scores[0],
        peer["scores"] if "scores" in peer else 1 / (1 + np.exp(-peer["cls_logits"])),
        rtol=0,
        atol=1e-3,
    )
    np.testing.assert_allclose(flatten_levels([o.cls for o in outputs])[0], peer["cls_logits"], rtol=0, atol=5e-3)
    folded = jax.jit(lambda v, x: detector.decode(detector.forward(detector.fold(v), x)))(variables, image)
    np.testing.assert_allclose(folded.boxes[0], peer["boxes_xyxy"], rtol=0, atol=0.1)


def test_names_are_those_of_the_peers_table(built, test_data):
    table = json.loads((test_data / "refs" / "c_yolonas_s" / "table.json").read_text())
    detector, variables = built
    ours = zoo.to_state_dict(detector, variables)
    assert ours.keys() == table.keys()
