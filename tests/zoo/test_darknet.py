"""Detectors read from Darknet files are detectors like any other: they train, fold, describe themselves, go back."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import darknet_cases
from tests.darknet_cases import Writer
from yolojax import zoo
from yolojax.detector import Detector, variable_shapes
from yolojax.errors import CheckpointError, ConfigError, WriteError
from yolojax.inference.predict import load_detector
from yolojax.models.darknet_parts import backbone_length, split_parts
from yolojax.structures import Hyper, Targets
from yolojax.weights.darknet import Header, parse_cfg, read_cfg, read_weights, stored_arrays, write_weights
from yolojax.weights.released import save_released
from yolojax.zoo.coco import COCO_CLASSES

NAMES = ("circle", "square", "star")


def small() -> str:
    """Two levels with one and two anchors, a residual block, dropout."""
    w = Writer((64, 96), 1.0, 3)
    for c in (4, 8, 8):
        w.conv(c, 3, 2)
    w.conv(4, 1)
    w.conv(8, 3)
    w.add("dropout", probability=0.5)
    w.add("shortcut", from_=-4)
    fine = w.count - 1
    w.conv(8, 3, 2)
    w.yolo("1,2", "9,9, 20,30, 50,40", scale_x_y=1.05, iou_loss="ciou")
    w.route(-3)
    w.add("upsample", stride=2)
    w.route(-1, fine)
    w.yolo("0", "9,9, 20,30, 50,40", scale_x_y=1.2, iou_loss="ciou", ignore_thresh=0.6)
    return w.text()


def targets() -> Targets:
    boxes = jnp.array([[[8.0, 8, 17, 17], [50, 10, 90, 60], [0, 0, 1, 1]]])
    flags = jnp.array([[True, True, False]])
    classes = jnp.array([[0, 2, 0]], jnp.int32)
    return Targets(boxes, classes, flags, jnp.zeros((1, 3), bool), jnp.zeros(1, jnp.int32))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    cfg = parse_cfg(small())
    (folder / "net.cfg").write_text(small())
    (folder / "net.names").write_text("\n".join(NAMES))
    arrays = darknet_cases.random_weights(stored_arrays(cfg), 4)
    write_weights(folder / "net.weights", cfg, arrays, Header(seen=128))
    return folder


@pytest.fixture(scope="module")
def loaded(files):
    return zoo.from_darknet(files / "net.cfg", files / "net.weights", class_names=files / "net.names")


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(darknet_cases.random_image((64, 96), 1))[None]


def test_description_and_parts(loaded):
    detector, variables = loaded
    spec = detector.spec
    assert (spec.class_names, spec.input_size, spec.strides) == (NAMES, (64, 96), (8, 16))
    assert spec.preprocess.resize == "stretch" and spec.hyper == {"ignore_iou": 0.5}
    names = {part: sorted(own) for part, own in variables["params"].items()}
    assert names == {
        "backbone": ["conv0", "conv1", "conv2", "conv3", "conv4", "conv7"],
        "neck": [],
        "head": ["conv13", "conv8"],
    }


@pytest.mark.parametrize(("threshold", "positives"), [("1.0", 2), ("0.2", 3), ("0.1", 4)])
def test_anchors_above_the_files_iou_thresh_answer_as_well(threshold, positives):
    """By hand: 9 x 9 has with 9,9 / 20,30 / 50,40 the shape IoU 1 / .135 / .04, 40 x 50 has .04 / .3 / .67."""
    cfg = small().replace("iou_loss=ciou", f"iou_loss=ciou\niou_thresh={threshold}")
    detector = zoo.build("darknet", NAMES, (64, 96), cfg=cfg)
    assert ("iou_thresh" in detector.spec.options["cfg"]) == (positives > 2)
    outputs = (jnp.zeros((1, 8, 12, 1, 8)), jnp.zeros((1, 4, 6, 2, 8)))
    terms = jax.jit(detector.loss)(outputs, targets(), Hyper())
    assert float(terms.counts["positives"][0]) == positives


def test_one_step_of_training_lowers_the_loss_in_every_part(loaded, images):
    """Gradients reach every parameter, dropout draws anew for every key, and running statistics move."""
    detector, variables = loaded
    hyper = Hyper()._replace(**detector.spec.hyper)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(params, key):
        outputs, state = detector.forward_train({**variables, "params": params}, images, targets(), key)
        loss, parts = detector.loss(outputs, targets(), hyper).reduce()
        return loss, (parts, state)

    (loss, (parts, state)), gradient = loss_of(variables["params"], jax.random.key(0))
    assert set(parts) == {"box", "obj", "noobj", "cls"} and all(float(v) > 0 for v in parts.values())
    assert all(bool(jnp.any(g != 0)) and bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    stepped = jax.tree.map(lambda p, g: p - 1e-3 * g, variables["params"], gradient)
    assert float(loss_of(stepped, jax.random.key(0))[0][0]) < float(loss)
    assert float(loss_of(variables["params"], jax.random.key(1))[0][0]) != float(loss)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


def test_folding_changes_no_output_and_needs_no_dropout(loaded, images):
    detector, variables = loaded
    folded = detector.fold(variables)
    plain, merged = jax.jit(detector.forward)(variables, images), jax.jit(detector.forward)(folded, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, merged)
    assert not folded["batch_stats"]


def test_a_description_in_json_builds_the_same_detector_on_any_input(loaded):
    detector, variables = loaded
    description = json.loads(json.dumps(zoo.describe(detector)))
    again = zoo.from_description(description)
    assert dataclasses.asdict(again.spec) == dataclasses.asdict(detector.spec)
    larger = zoo.from_description({**description, "input_size": [128, 96]})
    shapes = jax.eval_shape(larger.forward, variables, jnp.zeros((1, 128, 96, 3)))
    assert [s.shape for s in shapes] == [(1, 16, 12, 1, 8), (1, 8, 6, 2, 8)]


def test_a_released_detector_is_loaded_from_its_folder(loaded, tmp_path):
    """All that a run directory keeps is enough: no cfg and no weights beside it."""
    detector, variables = loaded
    save_released(tmp_path, jax.device_get(variables), {"detector": zoo.describe(detector)})
    again, restored = load_detector(tmp_path)
    assert dataclasses.asdict(again.spec) == dataclasses.asdict(detector.spec)
    jax.tree.map(np.testing.assert_array_equal, restored, variables)


def test_other_classes_change_only_the_head(loaded):
    detector, variables = loaded
    other = zoo.build("darknet", ("cell",), (64, 96), **detector.spec.options)
    new = variable_shapes(other)
    shapes = jax.tree.map(lambda x: x.shape, variables["params"])
    for part in ("backbone", "neck"):
        assert jax.tree.map(lambda x: x.shape, new["params"][part]) == shapes[part]
    assert new["params"]["head"]["conv8"]["conv"]["kernel"].shape[-1] == 2 * 6
    started = jax.jit(other.init)(jax.random.key(0))["params"]["head"]["conv8"]["conv"]["bias"].reshape(2, 6)
    np.testing.assert_allclose(jax.nn.sigmoid(started[:, 4]), 0.01, rtol=1e-5)


def test_back_to_darknets_files(loaded, files, tmp_path):
    detector, variables = loaded
    zoo.to_darknet(detector, variables, tmp_path / "b.cfg", tmp_path / "b.weights", header=Header(seen=128))
    assert (tmp_path / "b.weights").read_bytes() == (files / "net.weights").read_bytes()
    strip = lambda cfg: [dataclasses.replace(layer, line=0) for layer in cfg.layers]  # noqa: E731
    assert strip(read_cfg(tmp_path / "b.cfg")) == strip(read_cfg(files / "net.cfg"))
    trained = {**variables, "params": jax.tree.map(lambda x: x * 2, variables["params"])}
    zoo.to_darknet(detector, trained, tmp_path / "c.cfg", tmp_path / "c.weights")
    cfg = read_cfg(tmp_path / "c.cfg")
    before, after = read_weights(files / "net.weights", cfg), read_weights(tmp_path / "c.weights", cfg)
    np.testing.assert_array_equal(after.layers[0]["kernel"], 2 * before.layers[0]["kernel"])
    np.testing.assert_array_equal(after.layers[0]["mean"], before.layers[0]["mean"])


def test_neither_file_is_there_unless_both_are(loaded, tmp_path):
    """Nor is one of them written over."""
    detector, variables = loaded
    (tmp_path / "a.weights").mkdir()
    (tmp_path / "a.cfg").write_text("old")
    with pytest.raises(WriteError, match=r"a\.weights: it is a folder; .*give another path"):
        zoo.to_darknet(detector, variables, tmp_path / "a.cfg", tmp_path / "a.weights")
    for cfg, weights in (("a.cfg", "gone/b.weights"), ("gone/b.cfg", "b.weights")):
        with pytest.raises(WriteError, match=r"gone/b\.\w+: No such file or directory"):
            zoo.to_darknet(detector, variables, tmp_path / cfg, tmp_path / weights)
    assert {p.name for p in tmp_path.iterdir()} == {"a.cfg", "a.weights"}
    assert (tmp_path / "a.cfg").read_text() == "old"
    with pytest.raises(ConfigError, match="give two files"):
        zoo.to_darknet(detector, variables, tmp_path / "a.cfg", tmp_path / "a.cfg")


def test_what_does_not_belong_together_is_named(files, tmp_path, loaded):
    cfg, weights = files / "net.cfg", files / "net.weights"
    with pytest.raises(ConfigError, match="has 3 classes, but 2 class names"):
        zoo.from_darknet(cfg, weights, class_names=("a", "b"))
    with pytest.raises(ConfigError, match="which do not divide it; give multiples of 32"):
        zoo.from_darknet(cfg, weights, size=60)
    with pytest.raises(ConfigError, match="backbone_layers = 99"):
        zoo.from_darknet(cfg, weights, backbone_layers=99)
    (tmp_path / "cut.weights").write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"ends in layer 13 \[convolutional\], line \d+: .* of kernel"):
        zoo.from_darknet(cfg, tmp_path / "cut.weights")
    other = zoo.build("compact", NAMES, (64, 96), widths=(4, 4, 4), depths=(0, 0, 0), head_width=4)
    with pytest.raises(ConfigError, match="compact comes from no cfg"):
        zoo.to_darknet(other, {}, tmp_path / "x.cfg", tmp_path / "x.weights")
    with pytest.raises(ConfigError, match="compact has no published Darknet weights"):
        zoo.load_darknet(other, weights)
    tiny = zoo.build("yolov3-tiny", NAMES, (64, 96), width=1 / 16)
    with pytest.raises(CheckpointError, match=r"convolution \d+ \(\w+/\w+"):
        zoo.load_darknet(tiny, weights)
    text = small().replace("width=96", "width=90")
    with pytest.raises(ConfigError, match="12 x 8 cells, which do not divide it"):
        zoo.build("darknet", NAMES, (64, 90), cfg=text)


@pytest.mark.parametrize(
    ("name", "length"),
    [("yolov2", 23), ("yolov3", 75), ("yolov3_tiny", 13), ("yolov4", 105), ("yolov4_tiny", 27)],
)
def test_the_backbone_ends_where_the_published_files_draw_the_line(name, length):
    """Their comments (a row of #) separate Darknet-19, Darknet-53 and so on from the layers for detection."""
    cfg = parse_cfg(getattr(darknet_cases, name)())
    assert backbone_length(cfg) == length
    parts = split_parts(cfg, length)
    assert parts.head == tuple(number - 1 for number in cfg.detections)
    assert sorted(parts.backbone + parts.neck + parts.head + cfg.detections) == list(range(len(cfg.layers)))


def test_letterboxing_and_regions_reach_the_description():
    text = darknet_cases.yolov2((64, 64), 1 / 64, 2).replace("channels=3", "channels=3\nletter_box=1")
    spec = zoo.build("darknet", ("a", "b"), (64, 64), cfg=text).spec
    assert spec.preprocess.resize == "letterbox" and spec.preprocess.pad == 128 and spec.strides == (32,)
    assert isinstance(zoo.build("yolov2", ("a", "b"), (64, 64), width=1 / 64), Detector)


def test_softmax_classes_are_trained_by_cross_entropy():
    """A region's class part is -log softmax of the object's class, at the cell and anchor that answer for it."""
    detector = zoo.build("yolov2", NAMES, (64, 96), width=1 / 64, anchors=[[[10.0, 10.0], [40.0, 50.0]]])
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 2, 8)), jnp.float32)
    terms = jax.jit(lambda raw: detector.loss((raw,), targets(), Hyper()))(raw)
    small_object, large_object = raw[0, 0, 0, 0, 5:], raw[0, 1, 2, 1, 5:]
    expected = -jax.nn.log_softmax(small_object)[0] - jax.nn.log_softmax(large_object)[2]
    np.testing.assert_allclose(terms.sums["cls"][0], expected, rtol=1e-5)
    scores = detector.decode((raw,)).scores[0]
    np.testing.assert_allclose(scores.sum(-1), jax.nn.sigmoid(raw[0, ..., 4]).reshape(-1), rtol=1e-5)


def test_a_level_with_fewer_anchors_takes_part_in_the_loss(loaded):
    """The same sums as if its maps stood alone: here the small object belongs to the fine level's only anchor."""
    detector, _ = loaded
    rng = np.random.default_rng(1)
    maps = [jnp.asarray(rng.normal(size=(1, h, w, a, 8)), jnp.float32) for h, w, a in ((8, 12, 1), (4, 6, 2))]
    terms = jax.jit(lambda maps: detector.loss(maps, targets(), Hyper()))(maps)
    softplus = lambda x: float(jax.nn.softplus(-x))  # noqa: E731
    expected = softplus(maps[0][0, 1, 1, 0, 4]) + softplus(maps[1][0, 2, 4, 1, 4])
    np.testing.assert_allclose(terms.sums["obj"][0], expected, rtol=1e-5)
    assert float(terms.counts["positives"][0]) == 2


@pytest.mark.parametrize(
    ("name", "input_size", "size"),
    [
        ("yolov2", 608, 203_934_260 - 16),
        pytest.param("yolov3", 416, 248_007_048 - 20, marks=pytest.mark.slow),
        ("yolov3-tiny", 416, 35_434_956 - 20),
        pytest.param("yolov4", 608, 257_717_640 - 20, marks=pytest.mark.slow),
        ("yolov4-tiny", 416, 24_251_276 - 20),
    ],
)
def test_the_zoos_networks_have_as_many_values_as_the_published_files(name, input_size, size):
    """Bytes without the header."""
    detector = zoo.ARCHITECTURES[name](COCO_CLASSES, (input_size, input_size))
    values = jax.tree.leaves(variable_shapes(detector))
    assert 4 * sum(x.size for x in values) == size
