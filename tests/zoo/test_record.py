"""The record: what `_replace` changes holds everywhere, and a detector of plain functions is a detector."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import zoo
from yolojax.detect import detect
from yolojax.detector import Detector, DetectorSpec, check_parts, decay_matrices, freeze_mask
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.inference.ensemble import detect_ensemble, stack_members
from yolojax.inference.evaluate import make_detect_batch
from yolojax.inference.loading import load_detector, with_input_size
from yolojax.inference.predict import Predictor
from yolojax.inference.tta import TTA, detect_augmented
from yolojax.structures import Candidates, Hyper, LossTerms
from yolojax.weights.released import save_released

NAMES, SIZE = ("circle", "square"), (32, 32)
OPTIONS = {"widths": (8, 8, 8), "depths": (0, 0, 0), "head_width": 8, "reg_max": 4}
BOX = (4.0, 6.0, 20.0, 24.0)


def one_box(outputs) -> Candidates:
    """A decoder that always finds the same box, of the second class."""
    batch = jax.tree.leaves(outputs)[0].shape[0]
    boxes = jnp.broadcast_to(jnp.array([[BOX]]), (batch, 1, 4))
    return Candidates(boxes, jnp.broadcast_to(jnp.array([[[0.0, 0.9]]]), (batch, 1, 2)))


@pytest.fixture(scope="module")
def compact():
    detector = zoo.build("compact", NAMES, SIZE, **OPTIONS)
    return detector, detector.init(jax.random.key(0))


IMAGES = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)


def test_another_decoder_holds_in_every_way_to_detect(compact):
    detector, variables = compact
    mine = detector._replace(decode=one_box)
    ways = {
        "detect": lambda: jax.jit(lambda v, x: detect(mine, v, x, 0.5, 0.5, max_detections=5))(variables, IMAGES),
        "validation": lambda: make_detect_batch(mine, 5)(variables, IMAGES, np.float32(0.5), np.float32(0.5)),
        "augmented": lambda: jax.jit(
            lambda v, x: detect_augmented(mine, v, x, 0.5, 0.5, tta=TTA((1.0,), flip=False), max_detections=5)
        )(variables, IMAGES),
        "ensemble": lambda: jax.jit(
            lambda v, x: detect_ensemble(mine, stack_members([v] * 2), x, 0.5, 0.5, max_detections=5).detections
        )(variables, IMAGES),
    }
    for way, found in ways.items():
        detections = found()
        assert detections.valid.sum(axis=1).tolist() == [1, 1], way
        np.testing.assert_allclose(detections.boxes[:, 0], [BOX] * 2, atol=1e-4, err_msg=way)
    for result in Predictor(mine, variables)(list(IMAGES)):
        assert result.classes.tolist() == [1]
        np.testing.assert_allclose(result.boxes, [BOX], atol=1e-4)


def test_another_network_specification_and_fold_hold_in_prediction(compact):
    detector, _ = compact
    seen = []

    def forward(variables, images):
        seen.append(variables["params"]["mine"].shape)
        return [images[:, :1, :1, :2]]

    def decode(outputs):
        # The first pixel as a score: red as prepared by the specification.
        return Candidates(
            jnp.broadcast_to(jnp.array([[BOX]]), (outputs[0].shape[0], 1, 4)), outputs[0][:, :1, 0, :2] * 1.0
        )

    spec = dataclasses.replace(detector.spec, preprocess=Preprocess("stretch", channels="bgr", scale=510.0))
    mine = detector._replace(
        spec=spec, forward=forward, decode=decode, fold=lambda v: {"params": {"mine": v["params"]["mine"] * 1}}
    )
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 2] = 255  # blue comes first in bgr
    result = Predictor(mine, {"params": {"mine": jnp.zeros(3)}})(image)
    assert seen and set(seen) == {(3,)}
    np.testing.assert_allclose(result.scores, [0.5])
    np.testing.assert_allclose(result.boxes, [np.array(BOX) / 2], atol=1e-4)  # stretched from 16 to 32 pixels


def test_edits_are_described_and_asked_for_on_loading(compact, tmp_path):
    detector, variables = compact
    assert zoo.custom_parts(detector) == {}
    mine = detector._replace(
        decode=one_box,
        spec=dataclasses.replace(
            detector.spec, multi_label=False, suppression="none", preprocess=Preprocess("stretch", pad=0)
        ),
    )
    assert zoo.custom_parts(mine) == {"decode": f"{__name__}.one_box"}
    save_released(tmp_path, jax.device_get(variables), {"detector": zoo.describe(mine)})
    with pytest.raises(
        CheckpointError, match=rf"its own decode \({__name__}.one_box\); pass parts=\{{'decode': ...\}}"
    ):
        load_detector(tmp_path)
    with pytest.raises(ConfigError, match="no part of its own called 'loss'; it asks for decode"):
        load_detector(tmp_path, parts={"decode": one_box, "loss": detector.loss})
    again, loaded = load_detector(tmp_path, parts={"decode": one_box})
    assert again.spec == mine.spec and again.decode is one_box
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    larger = with_input_size(again, 64)
    assert larger.decode is one_box and larger.spec == dataclasses.replace(mine.spec, input_size=(64, 64))
    whole, _ = load_detector(tmp_path, detector=mine)
    assert whole is mine
    with pytest.raises(CheckpointError, match="says multi_label = False"):
        load_detector(tmp_path, detector=detector)


def test_a_function_of_another_detector_is_an_edit_too(compact):
    detector, _ = compact
    other = zoo.build("compact", NAMES, SIZE, **{**OPTIONS, "reg_max": 8})
    assert list(zoo.custom_parts(detector._replace(decode=other.decode))) == ["decode"]
    assert list(zoo.custom_parts(detector._replace(decay_mask=lambda params: params))) == ["decay_mask"]
    assert zoo.custom_parts(zoo.build("compact", ("a", "b"), (64, 64), **OPTIONS)) == {}


# ---- plain functions


class Layer(NamedTuple):
    """Parameters that are no dict and have names of their own."""

    matrix: jax.Array
    shift: jax.Array


def plain_detector() -> Detector:
    """A detector without any module library: one score for the brightness of the image."""

    def init(key):
        return {"params": (Layer(jax.random.normal(key, (3, 2)), jnp.zeros(2)), [jnp.ones(1)])}

    def forward(variables, images):
        layer, (gain,) = variables["params"]
        return gain[None] * (images.mean((1, 2)) @ layer.matrix + layer.shift[None])

    def forward_train(variables, images, targets, key):
        return forward(variables, images), {}

    def loss(outputs, targets, hyper):
        error = jnp.sum(outputs**2, axis=-1)
        return LossTerms({"square": error}, {"square": jnp.ones_like(error)}, {})

    def decode(outputs):
        return Candidates(jnp.broadcast_to(jnp.array([[BOX]]), (len(outputs), 1, 4)), jax.nn.sigmoid(outputs)[:, None])

    return Detector(DetectorSpec("plain", NAMES, SIZE, (8,)), init, forward, forward_train, loss, decode)


def test_a_detector_of_plain_functions_needs_six_fields(tmp_path):
    detector = plain_detector()
    variables = detector.init(jax.random.key(0))
    params = variables["params"]
    assert detector.fold(variables) is variables
    assert detector.decay_mask(params) == (Layer(True, False), [False])
    assert detector.freeze(detector.forward_train, ("0",)) is detector.forward_train
    assert len(Predictor(detector, variables)(IMAGES[0], confidence=0).boxes) == 2  # both classes
    outputs = detector.forward(variables, jnp.zeros((1, *SIZE, 3)))
    assert float(detector.loss(outputs, None, Hyper()).sums["square"][0]) == 0.0
    description = zoo.describe(detector)
    assert set(description["custom"]) == set(Detector._fields) - {"spec"}
    with pytest.raises(CheckpointError, match=r"'plain' is not one of the zoo.*detector="):
        zoo.from_description(description)
    save_released(tmp_path, variables, {"detector": description})
    again, loaded = load_detector(tmp_path, detector=detector)
    assert again is detector and isinstance(loaded["params"][0], Layer)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


def test_parts_are_paths_in_any_pytree():
    params = plain_detector().init(jax.random.key(0))["params"]
    assert freeze_mask(params, ("0/matrix",)) == (Layer(True, False), [False])
    assert freeze_mask(params, ("0",)) == (Layer(True, True), [False])
    assert freeze_mask({"a": {"bc": 1, "b": 2}}, ("a/b",)) == {"a": {"bc": False, "b": True}}
    check_parts(params, ("0/matrix", "1"))
    with pytest.raises(ConfigError, match=r"freeze = '0/matrx': .*did you mean 0/matrix\? there are 0/matrix, 0/shift"):
        check_parts(params, ("0/matrx",))
    with pytest.raises(ConfigError, match=r"freeze = '2': .*there are 0, 1"):
        check_parts(params, ("2",))
    with pytest.raises(ConfigError, match="nothing is left to train"):
        check_parts(params, ("0", "1"))


def test_decay_goes_by_axes_not_by_names():
    assert decay_matrices({"scale": jnp.zeros((2, 2)), "kernel": jnp.zeros(2), "s": jnp.zeros(())}) == {
        "scale": True,
        "kernel": False,
        "s": False,
    }
