"""YOLOv9's auxiliary branch, its other scales, and MultimediaTechLab's files, against what their program computes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.goldens.make_yolov9_golden import CLASSES, PIXELS, SIZE, drawn
from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.models.heads import LevelPrediction
from yolojax.models.yolov9 import AuxiliaryOutputs
from yolojax.structures import Hyper, Targets

NAMES = tuple(map(str, range(CLASSES)))
PARTS = ("backbone", "neck", "head", "auxiliary", "auxiliary_head")
SCALES = [pytest.param(scale, marks=[] if scale == "t" else pytest.mark.slow) for scale in "tmc"]


@pytest.fixture(scope="module")
def golden(request):
    with np.load(request.config.rootpath / "tests" / "goldens" / "yolov9_multimedia.npz") as file:
        return dict(file)


def tensors_of(golden, scale):
    return {name: drawn(name, tuple(shape)) for name, shape in json.loads(str(golden[f"{scale}/tensors"])).items()}


@pytest.mark.slow  # half a minute for a whole network; names and shapes are compared by the round trips
@pytest.mark.parametrize("scale", SCALES)
def test_multimedia_weights_give_what_the_peer_computes(scale, golden, tmp_path):
    tensors = tensors_of(golden, scale)
    save_file(tensors, tmp_path / "theirs.safetensors")
    detector, variables = zoo.from_pytorch(tmp_path / "theirs.safetensors", class_names=NAMES, input_size=SIZE)
    options, width = detector.spec.options, 80 if scale == "t" else None
    found = tuple(options[name] for name in ("scale", "auxiliary", "box_groups", "cls_width"))
    assert found == (scale, True, 4, width)
    assert detector.spec.preprocess == Preprocess()

    # In training, but by running statistics, as the peer computed both heads.
    forward_train = detector.freeze(detector.forward_train, PARTS)
    none = jnp.zeros((1, 1), bool)
    nothing = Targets(jnp.zeros((1, 1, 4)), jnp.zeros((1, 1), jnp.int32), none, none, jnp.zeros(1, jnp.int32))

    @jax.jit
    def both(variables, image):
        trained, _ = forward_train(variables, image, nothing, jax.random.key(0))
        return trained, detector.forward(variables, image)

    trained, answered = both(variables, jnp.asarray(PIXELS[None] / np.float32(255)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), trained.main, answered)
    for head, levels in (("Main", trained.main), ("AUX", trained.auxiliary)):
        for i, level in enumerate(levels):
            for kind, found in level._asdict().items():
                expected = golden[f"{scale}/{head}/{i}/{kind}"]
                # Of values of a thousand, one near zero is a difference that keeps their rounding.
                close = max(1e-3, 3e-6 * float(np.abs(expected).max()))
                np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=close, err_msg=f"{head} {i} {kind}")

    back = zoo.to_state_dict(detector, variables)
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.slow
def test_multimedia_files_are_read_in_their_trainers_wrapping(golden, tmp_path):
    tensors = tensors_of(golden, "t")
    wrapped = {f"model.model.{name}": array for name, array in tensors.items()}
    save_file(wrapped, tmp_path / "wrapped.safetensors")
    detector, variables = zoo.from_pytorch(tmp_path / "wrapped.safetensors", class_names=NAMES, input_size=SIZE)
    assert zoo.to_state_dict(detector, variables).keys() == tensors.keys()

    plain = {name: array for name, array in tensors.items() if int(name.partition(".")[0]) <= 22}
    save_file(plain, tmp_path / "plain.safetensors")
    detector, variables = zoo.from_pytorch(tmp_path / "plain.safetensors", class_names=NAMES, input_size=SIZE)
    assert not detector.spec.options["auxiliary"] and detector.spec.options["box_groups"] == 4
    assert zoo.to_state_dict(detector, variables).keys() == plain.keys()

    wrong = {**plain, "22.heads.1.anc2vec.anc2vec.weight": np.ones((1, 16, 1, 1, 1), np.float32)}
    save_file(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=r"22\.heads\.1\.anc2vec\.anc2vec\.weight is not 0 to 15"):
        zoo.from_pytorch(tmp_path / "wrong.safetensors", class_names=NAMES, input_size=SIZE)


def fill(shapes):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["s", "m", "c", "e"])
def test_tensors_of_other_scales_come_back_byte_for_byte(scale, tmp_path):
    detector = zoo.build("yolov9", ("cat",), (64, 64), scale=scale)
    variables = fill(variable_shapes(detector))
    save_file(zoo.to_state_dict(detector, variables), tmp_path / "own.safetensors")
    again, loaded = zoo.from_pytorch(tmp_path / "own.safetensors", class_names=("cat",), input_size=(64, 64))
    assert again.spec.options == detector.spec.options
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    save_file(zoo.to_state_dict(again, loaded), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "own.safetensors").read_bytes()


@pytest.mark.slow  # a quarter of a minute, most of it to trace both branches
def test_auxiliary_loss_counts_for_a_quarter():
    plain = zoo.build("yolov9", ("cat", "dog"), (64, 64))
    detector = zoo.build("yolov9", ("cat", "dog"), (64, 64), auxiliary=True)
    rng = np.random.default_rng(1)

    def predicted():
        return tuple(
            LevelPrediction(
                jnp.asarray(rng.normal(size=(2, side, side, 64)), jnp.float32),
                jnp.asarray(rng.normal(size=(2, side, side, 2)), jnp.float32),
            )
            for side in (8, 4, 2)
        )

    main, auxiliary = predicted(), predicted()
    boxes = jnp.asarray([[[5.0, 6.0, 40.0, 30.0]], [[20.0, 16.0, 60.0, 62.0]]])
    real, crowd = jnp.ones((2, 1), bool), jnp.zeros((2, 1), bool)
    targets = Targets(boxes, jnp.asarray([[0], [1]], jnp.int32), real, crowd, jnp.zeros(2, jnp.int32))

    @jax.jit
    def losses(main, auxiliary):
        return (
            plain.loss(main, targets, Hyper()).reduce(),
            plain.loss(auxiliary, targets, Hyper()).reduce(),
            detector.loss(AuxiliaryOutputs(main, auxiliary), targets, Hyper()).reduce(),
            detector.loss(main, targets, Hyper()).reduce(),
        )

    (first, parts), (second, others), (both, all_parts), (answered, _) = losses(main, auxiliary)
    assert second > 0 and answered == first
    np.testing.assert_allclose(both, first + 0.25 * second, rtol=1e-6)
    assert all_parts.keys() == parts.keys() | {f"auxiliary_{name}" for name in others}
    np.testing.assert_allclose(all_parts["auxiliary_cls"], 0.25 * others["cls"], rtol=1e-6)


def test_options_out_of_range_are_named():
    with pytest.raises(ConfigError, match="scale e has no auxiliary branch here"):
        zoo.build("yolov9", ("cat",), (64, 64), scale="e", auxiliary=True)
    with pytest.raises(ConfigError, match="box_groups = 3: give a divisor of the 64 numbers"):
        zoo.build("yolov9", ("cat",), (64, 64), box_groups=3)
    with pytest.raises(ConfigError, match="cls_width = 0: give a whole number of at least 1"):
        zoo.build("yolov9", ("cat",), (64, 64), cls_width=0)
