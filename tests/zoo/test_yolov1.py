"""YOLOv1 and its tiny form: layers against Darknet's formulas, files there and back, published sizes, one step."""

import functools
import importlib.util
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import darknet_reference
from tests.darknet_cases import Writer, random_image, random_weights
from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.inference.loading import load_detector
from yolojax.structures import Hyper, Targets
from yolojax.weights.darknet import Header, parse_cfg, read_weights, stored_arrays, write_weights
from yolojax.zoo.yolov1 import yolov1_cfg

NAMES = ("circle", "square", "star")
DETECTION = {"classes": 3, "coords": 4, "rescore": 1, "side": 3, "num": 2, "sqrt": 1, "coord_scale": 5}


def small(**detection: object) -> str:
    """Every section of YOLOv1's files: crop, local with and without padding, connected with and without a norm."""
    w = Writer((48, 48), 1.0, 3)
    w.add("crop", crop_width=48, crop_height=48, flip=0, angle=0, saturation=1.5, exposure=1.5)
    w.conv(6, 7, 2)
    w.add("maxpool", size=2, stride=2)
    w.conv(8, 3, 2)
    w.add("local", filters=5, size=3, stride=1, pad=1, activation="leaky")
    w.add("local", filters=4, size=2, stride=2, pad=0, activation="relu")
    w.add("dropout", probability=0.5)
    w.add("connected", output=20, batch_normalize=1, activation="leaky")
    w.add("dropout", probability=0.5)
    w.add("connected", output=9 * (3 + 5 * 2), activation="linear")
    w.add("detection", **{**DETECTION, "noobject_scale": 0.5, "jitter": 0.2, **detection})
    return w.text()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    cfg = parse_cfg(small())
    (folder / "net.cfg").write_text(small())
    (folder / "net.names").write_text("\n".join(NAMES))
    write_weights(folder / "net.weights", cfg, random_weights(stored_arrays(cfg), 4), Header(0, 2, 0, 64))
    return folder


@pytest.fixture(scope="module")
def loaded(files):
    return load_detector(files / "net.cfg", files / "net.weights", files / "net.names")


def test_every_layer_and_the_decoder_equal_darknets_formula(files, loaded):
    detector, variables = loaded
    cfg = parse_cfg(small())
    arrays = read_weights(files / "net.weights", cfg).layers
    image = random_image((48, 48), 5)
    expected = darknet_reference.run(cfg, arrays, image, 1e-12)[-1].ravel()
    outputs = jax.jit(detector.forward)(variables, jnp.asarray(image)[None])
    found = np.concatenate([np.asarray(part[0]).ravel() for part in outputs[0]])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    candidates = jax.jit(detector.decode)(outputs)
    for i in range(9):  # as in Darknet's source: cell by cell, box by box
        for n in range(2):
            x, y, w, h = expected[9 * (3 + 2) + 4 * (2 * i + n) :][:4]
            x, y, w, h = (x + i % 3) / 3 * 48, (y + i // 3) / 3 * 48, w * w * 48, h * h * 48
            box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            np.testing.assert_allclose(candidates.boxes[0, 2 * i + n], box, rtol=1e-4, atol=1e-3)
            score = expected[27 + 2 * i + n] * expected[3 * i : 3 * i + 3]
            np.testing.assert_allclose(candidates.scores[0, 2 * i + n], score, rtol=1e-4, atol=1e-5)


def test_files_come_back_byte_for_byte(files, loaded, tmp_path):
    zoo.to_darknet(*loaded, tmp_path / "own.cfg", tmp_path / "own.weights", header=Header(0, 2, 0, 64))
    assert (tmp_path / "own.weights").read_bytes() == (files / "net.weights").read_bytes()
    assert "num=2\n" in (tmp_path / "own.cfg").read_text()
    again, variables = zoo.from_darknet(tmp_path / "own.cfg", tmp_path / "own.weights", class_names=NAMES)
    jax.tree.map(np.testing.assert_array_equal, variables, loaded[1])
    assert zoo.describe(zoo.from_description(json.loads(json.dumps(zoo.describe(again))))) == zoo.describe(again)


def test_old_files_store_connected_layers_transposed(files, loaded, tmp_path):
    cfg = parse_cfg(small())
    arrays = read_weights(files / "net.weights", cfg).layers
    write_weights(tmp_path / "old.weights", cfg, arrays, Header(1001, 2, 0, 64))
    assert (tmp_path / "old.weights").stat().st_size == (files / "net.weights").stat().st_size - 4
    _, variables = zoo.from_darknet(files / "net.cfg", tmp_path / "old.weights", class_names=NAMES)
    jax.tree.map(np.testing.assert_array_equal, variables, loaded[1])


def test_softmax_of_the_file_is_applied_to_the_classes(files, loaded):
    detector = zoo.build("darknet", NAMES, (48, 48), cfg=small(softmax=1, sqrt=0, coord_scale=2))
    assert detector.spec.hyper["lambda_coord"] == 2.0
    outputs = jax.jit(loaded[0].forward)(loaded[1], jnp.asarray(random_image((48, 48), 5))[None])
    plain, soft = jax.jit(loaded[0].decode)(outputs), jax.jit(detector.decode)(outputs)
    classes = jax.nn.softmax(outputs[0].classes, -1)[:, :, :, None] * outputs[0].confidences[..., None]
    np.testing.assert_allclose(soft.scores, classes.reshape(1, 18, 3), rtol=1e-5, atol=1e-6)
    sides, squares = (b[..., 2:] - b[..., :2] for b in (soft.boxes, plain.boxes))
    np.testing.assert_allclose(sides**2 / 48, squares, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("crop_width=48", "crop_width=40", r"\[crop\].*cuts 40 x 48 out of 48 x 48"),
        ("size=3\nstride=1\npad=1\nactivation=leaky\n\n[local]", "size=5\nstride=1\npad=1\n\n[local]", "padded only"),
        ("coords=4", "coords=5", "only coords=4 is"),
        ("side=3", "side=4", r"4 x 4 cells with 2 boxes and 3 classes need 208 values, the layer before it gives 117"),
        ("jitter=0.2", "jiter=0.2", r"\[detection\] has no key 'jiter'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(old, new, said):
    assert old in small()
    with pytest.raises(ConfigError, match=said):
        parse_cfg(small().replace(old, new))


def test_another_input_size_is_refused(files, loaded):
    with pytest.raises(ConfigError, match="fit an input of 48 x 48 alone"):
        zoo.from_darknet(files / "net.cfg", files / "net.weights", class_names=NAMES, size=96)
    with pytest.raises(ConfigError, match="has one input size"):
        jax.eval_shape(loaded[0].forward, loaded[1], jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32))
    for size in ((448, 384), (400, 400)):
        with pytest.raises(ConfigError, match="input_size"):
            zoo.build("yolov1-tiny", NAMES, size)


def test_other_numbers_of_classes_change_the_last_layers():
    detector = zoo.build("darknet", ("cat", "dog"), (48, 48), cfg=small())
    shapes = variable_shapes(detector)
    assert shapes["params"]["head"]["connected9"]["kernel"].shape == (20, 9 * (2 + 5 * 2))


@pytest.mark.parametrize(("name", "mebibytes"), [("yolov1", 753), ("yolov1-tiny", 103)])
def test_the_published_files_have_this_size(name, mebibytes):
    """pjreddie.com states 753 MB and 103 MB for 20 classes."""
    detector = zoo.build(name, tuple(map(str, range(20))), (448, 448))
    shapes = variable_shapes(detector)
    numbers = sum(int(np.prod(one.shape)) for one in stored_arrays(yolov1_cfg(detector.spec)))
    assert numbers == sum(x.size for x in jax.tree.leaves(shapes))
    assert (20 + 4 * numbers) / 2**20 == pytest.approx(mebibytes, abs=1)


def test_the_zoos_network_reads_and_writes_the_weight_file_alone(tmp_path):
    detector = zoo.build("yolov1", NAMES, (128, 128), width=1 / 64)
    cfg = yolov1_cfg(detector.spec)
    write_weights(tmp_path / "net.weights", cfg, random_weights(stored_arrays(cfg), 1), Header())
    variables = zoo.load_darknet(detector, tmp_path / "net.weights")
    zoo.save_darknet(detector, variables, tmp_path / "again.weights")
    assert (tmp_path / "again.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()
    zoo.to_darknet(detector, variables, tmp_path / "pair.cfg", tmp_path / "pair.weights")
    assert (tmp_path / "pair.weights").read_bytes() == (tmp_path / "net.weights").read_bytes()
    with pytest.raises(CheckpointError, match="belongs to another network"):
        zoo.load_darknet(zoo.build("yolov1-tiny", NAMES, (128, 128), width=1 / 64), tmp_path / "net.weights")


def test_one_step_of_training_lowers_the_loss_in_every_part(loaded):
    detector, variables = loaded
    boxes = jnp.array([[[4.0, 4, 17, 17], [20, 10, 40, 44], [0, 0, 1, 1]]])
    flags = jnp.array([[True, True, False]])
    targets = Targets(boxes, jnp.array([[0, 2, 0]], jnp.int32), flags, ~flags & False, jnp.zeros(1, jnp.int32))
    images = jnp.asarray(random_image((48, 48), 1))[None]
    hyper = Hyper()._replace(**detector.spec.hyper)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_of(params):
        outputs, _ = detector.forward_train({**variables, "params": params}, images, targets, jax.random.key(0))
        return detector.loss(outputs, targets, hyper).reduce()

    (loss, parts), gradient = loss_of(variables["params"])
    assert set(parts) == {"box", "obj", "noobj", "cls"} and all(float(v) > 0 for v in parts.values())
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    stepped = jax.tree.map(lambda p, g: p - 1e-4 * g, variables["params"], gradient)
    assert float(loss_of(stepped)[0][0]) < float(loss)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*make_weights|unclosed file:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the reference's script leaves files open
def test_a_permissive_peer_computes_the_same(test_data, tmp_path):
    """libreyolo (MIT) with random weights: raw outputs, boxes and scores."""
    refs = test_data / "refs"
    spec = importlib.util.spec_from_file_location("make_weights", refs / "scripts" / "make_weights.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = tmp_path / "c_yolov1_tiny"
    shutil.copytree(refs / "c_yolov1_tiny", folder)
    folder.chmod(0o755)
    make.write(str(folder))
    peer = np.load(folder / "output.npz")
    detector, variables = load_detector(folder / "yolov1-tiny.cfg")
    assert len(detector.spec.class_names) == 20 and detector.spec.input_size == (448, 448)
    image = jnp.asarray(peer["input_uint8"][None] / np.float32(255))
    outputs = jax.jit(detector.forward)(variables, image)
    raw = np.concatenate([np.asarray(part[0]).ravel() for part in outputs[0]])
    np.testing.assert_allclose(raw, peer["raw"], rtol=0, atol=1e-3)
    found = detector.decode(outputs)
    low, high = np.split(np.asarray(found.boxes[0]), 2, axis=-1)
    boxes = np.concatenate([(low + high) / 2, high - low], axis=-1)
    np.testing.assert_allclose(boxes, peer["boxes_cxcywh"], rtol=0, atol=0.05)
    np.testing.assert_allclose(found.scores[0], peer["scores"], rtol=0, atol=1e-3)
