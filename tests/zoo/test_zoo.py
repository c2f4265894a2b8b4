"""The detectors of the zoo: what a description gives back, and the contract that engines rely on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.structures import Hyper, Targets

NAMES = ("circle", "square", "star")
SIZE = (64, 96)
SMALL = {
    "compact": {"widths": (8, 8, 8, 16), "depths": (0, 0, 1, 0), "head_width": 8, "reg_max": 8},
    "lesson": {
        "widths": (8, 8, 16, 16, 16),
        "depths": (0, 0, 1, 1, 0),
        "neck_width": 8,
        "anchors": (((10.0, 12.0), (20.0, 16.0)), ((30.0, 40.0), (60.0, 50.0))),
    },
    "yolox": {"width": 1 / 32},
}


def targets(batch: int = 2) -> Targets:
    boxes = jnp.broadcast_to(jnp.array([[8.0, 8, 40, 30], [50, 10, 90, 60], [0, 0, 1, 1]]), (batch, 3, 4))
    flags = jnp.broadcast_to(jnp.array([True, True, False]), (batch, 3))
    classes = jnp.broadcast_to(jnp.array([0, 2, 0], jnp.int32), (batch, 3))
    return Targets(boxes, classes, flags, jnp.zeros((batch, 3), bool), jnp.zeros(batch, jnp.int32))


@pytest.fixture(scope="module", params=sorted(SMALL))
def detector(request):
    return zoo.build(request.param, NAMES, SIZE, **SMALL[request.param])


@pytest.fixture(scope="module")
def variables(detector):
    return detector.init(jax.random.key(0))


def test_parameters_lie_under_backbone_neck_head(variables):
    assert set(variables["params"]) == {"backbone", "neck", "head"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_contract_of_forward_loss_and_decode(detector, variables):
    images = jax.random.uniform(jax.random.key(1), (2, *SIZE, 3))

    @jax.jit
    def everything(variables, images):
        outputs, state = detector.forward_train(variables, images, targets(), jax.random.key(2))
        terms = detector.loss(outputs, targets(), Hyper()._replace(**detector.spec.hyper))
        return detector.decode(detector.forward(variables, images)), terms, state

    candidates, terms, state = everything(variables, images)
    cells = sum((SIZE[0] // s) * (SIZE[1] // s) for s in detector.spec.strides)
    per_cell = len(SMALL["lesson"]["anchors"][0]) if detector.spec.name == "lesson" else 1
    assert candidates.boxes.shape == (2, cells * per_cell, 4)
    assert candidates.scores.shape == (2, cells * per_cell, len(NAMES))
    assert float(candidates.scores.min()) >= 0 and float(candidates.scores.max()) <= 1
    assert bool(jnp.isfinite(candidates.boxes).all())
    assert set(terms.sums) == set(terms.normalisers)
    assert all(value.shape == (2,) and bool(jnp.isfinite(value).all()) for value in terms.sums.values())
    assert set(state) == {"batch_stats"}
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_a_description_in_json_builds_the_same_detector(detector, variables):
    description = json.loads(json.dumps(zoo.describe(detector)))
    again = zoo.from_description(description)
    assert dataclasses.asdict(again.spec) == dataclasses.asdict(detector.spec)
    shapes = jax.tree.map(lambda x: x.shape, variables)
    assert jax.tree.map(lambda x: x.shape, variable_shapes(again)) == shapes


def test_a_description_that_this_version_would_read_otherwise_is_refused(detector):
    description = json.loads(json.dumps(zoo.describe(detector)))
    with pytest.raises(CheckpointError, match="strides"):
        zoo.from_description({**description, "strides": [4]})
    with pytest.raises(CheckpointError, match="known are antialiased, bilinear"):
        zoo.from_description({**description, "preprocess": {**description["preprocess"], "filter": "lanczos"}})
    with pytest.raises(CheckpointError, match="colour"):
        zoo.from_description({**description, "preprocess": {**description["preprocess"], "colour": "lab"}})


@pytest.mark.parametrize(
    ("scale", "parameters", "gflops"),
    [
        ("n", 3_157_200, 8.7),
        # The smallest by default: tracing a network takes seconds.
        pytest.param("s", 11_166_560, 28.6, marks=pytest.mark.slow),
        pytest.param("m", 25_902_640, 78.9, marks=pytest.mark.slow),
        pytest.param("l", 43_691_520, 165.2, marks=pytest.mark.slow),
        pytest.param("x", 68_229_648, 257.8, marks=pytest.mark.slow),
    ],
)
def test_yolov8_has_the_published_size(scale, parameters, gflops):
    """The published counts include the 16 constants of the expectation over bins, which are no parameters here."""
    detector = zoo.build("yolov8", tuple(map(str, range(80))), (640, 640), scale=scale)
    assert zoo.parameter_count(variable_shapes(detector)) == parameters - 16
    assert zoo.forward_flops(detector) / 1e9 == pytest.approx(gflops, abs=0.06)


def test_yolov8_has_no_other_scale():
    with pytest.raises(ConfigError, match="no scale 'k'; it has n, s, m, l, x"):
        zoo.build("yolov8", NAMES, SIZE, scale="k")


def test_descriptions_from_before_there_was_a_choice_of_filters_are_read(detector):
    """They were trained with the antialiased one, whatever their architecture takes now, and keep it when folded."""
    description = json.loads(json.dumps(zoo.describe(detector)))
    del description["preprocess"]["filter"]
    again = zoo.from_description(description)
    assert again.spec.preprocess == dataclasses.replace(detector.spec.preprocess, filter="antialiased")
    folded = jax.eval_shape(lambda: again.fold(again.init(jax.random.key(0))))
    assert zoo.describe(again)["preprocess"]["filter"] == "antialiased" and "params" in folded


def test_compact_reads_its_own_gains():
    assert zoo.build("compact", NAMES, SIZE, **SMALL["compact"]).spec.hyper["lambda_coord"] == 7.5


def test_lesson_finds_its_anchors_on_the_data():
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.normal(m, 1.0, (50, 2)) for m in (8, 16, 24, 40, 60, 90)])
    detector = zoo.build("lesson", NAMES, SIZE, box_sizes=sizes.astype(np.float32))
    anchors = np.array(detector.spec.options["anchors"])
    assert anchors.shape == (2, 3, 2)
    np.testing.assert_allclose(anchors.reshape(6, 2).mean(1), [8, 16, 24, 40, 60, 90], atol=1.0)


@pytest.mark.parametrize("box_loss", ["mse", "ciou"])
@pytest.mark.parametrize("backbone", ["darknet", "resnet18"])
def test_lesson_offers_both_backbones_and_box_losses(backbone, box_loss):
    options = {**SMALL["lesson"], "backbone": backbone, "box_loss": box_loss}
    detector = zoo.build("lesson", NAMES, SIZE, **options)
    shapes = variable_shapes(detector)
    out = jax.eval_shape(detector.forward, shapes, jnp.zeros((1, *SIZE, 3)))
    assert [o.shape for o in out] == [(1, 4, 6, 2, 8), (1, 2, 3, 2, 8)]


@pytest.mark.parametrize(
    ("name", "input_size", "options", "message"),
    [
        ("compat", SIZE, {}, "did you mean compact"),
        ("zebra", SIZE, {}, "known: compact, .*lesson"),
        ("compact", (65, 96), {}, "multiples of the largest stride, 32"),
        ("compact", SIZE, {"depth": 3}, "depth"),
        ("lesson", SIZE, {}, "needs anchors"),
        ("lesson", SIZE, {"anchors": (((1.0, 1.0),), ())}, "equally many"),
        ("lesson", SIZE, {**SMALL["lesson"], "backbone": "vgg"}, "darknet or resnet18"),
        ("lesson", SIZE, {**SMALL["lesson"], "widths": (8, 8, 8, 8), "depths": (0, 0, 0, 0)}, "give five of each"),
        ("lesson", SIZE, {**SMALL["lesson"], "anchors": ()}, "one to three levels"),
        ("compact", SIZE, {"widths": (8, 8)}, r"widths = \[8, 8\], .*give equally many"),
        ("compact", SIZE, {**SMALL["compact"], "depths": (1,)}, r"depths = \[1\]: give equally many"),
        ("compact", SIZE, {**SMALL["compact"], "neck_widths": (8,)}, r"neck_widths = \[8\]: give one for each"),
        ("compact", SIZE, {"widths": (8, 8, 0)}, "give equally many"),
        ("compact", SIZE, {"widths": (8, 8.5, 8, 8, 8)}, r"widths\[1\] = 8.5: give a whole number"),
        ("compact", SIZE, {"widths": (8, 8, 0, 8, 8)}, "widths = .*give whole numbers of at least 1"),
        ("compact", SIZE, {"activation": "step"}, "activation = 'step': give one of silu"),
        ("compact", SIZE, {"shared_head": "no"}, "shared_head = 'no': give true or false"),
        ("compact", SIZE, {"reg_max": 1}, "reg_max = 1: give a whole number of at least 2"),
        ("compact", SIZE, {"reg_max": True}, "reg_max = True: give a whole number"),
        ("compact", SIZE, {"momentum": float("nan")}, "momentum = nan: give a finite number"),
        ("compact", SIZE, {"momentum": 1.0}, "momentum = 1.0: give a number from 0 to below 1"),
        ("compact", SIZE, {"neck_depth": -1}, "neck_depth = -1: give a whole number of at least 0"),
        ("yolov8", SIZE, {"k": 0}, "k = 0: give a whole number of at least 1"),
        ("yolox-nano", SIZE, {"k": 2.5}, "k = 2.5: give a whole number"),
        ("yolox", SIZE, {"k": 0}, "k = 0: give a whole number of at least 1"),
        ("yolov3", SIZE, {"box_loss": "l1"}, "box_loss = 'l1': give mse, iou"),
        ("yolov3-tiny", SIZE, {"width": 0.0}, "width = 0.0: give a positive number"),
        ("yolov4", SIZE, {"depths": (1, 2)}, r"depths = \(1, 2\): give five"),
        ("yolov2", SIZE, {"anchors": [[[8.0, -1.0]]]}, r"anchors: \[8.0, -1.0\] is no width and height"),
        ("darknet", SIZE, {}, "darknet needs the option cfg"),
    ],
)
def test_what_cannot_be_built_is_named(name, input_size, options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.build(name, NAMES, input_size, **options)


def test_no_class_and_damaged_descriptions_are_refused():
    with pytest.raises(ConfigError, match="at least one class"):
        zoo.build("compact", (), SIZE)
    with pytest.raises(CheckpointError, match="name"):
        zoo.from_description({"class_names": ["a"]})
