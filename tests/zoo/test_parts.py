"""Assigners and losses as arguments of the zoo's functions, by name and as functions."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import zoo
from yolojax.assign import Assigned, best_anchor_assign, ratio_assign, simota_assign
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.losses import binary_cross_entropy, complete_box_iou_loss, focal_loss
from yolojax.structures import Hyper, Targets
from yolojax.zoo.lesson import lesson
from yolojax.zoo.yolov3 import yolov3_tiny
from yolojax.zoo.yolov8 import yolov8
from yolojax.zoo.yolox import yolox

NAMES, SIZE = ("a", "b", "c"), (64, 64)
ANCHORS = (((10.0, 12.0), (20.0, 16.0)), ((30.0, 40.0), (60.0, 50.0)))
ANCHOR_FREE = {
    "yolov8": yolov8,
    "yolox": partial(yolox, width=1 / 32),
    "compact": partial(zoo.ARCHITECTURES["compact"], widths=(8, 8, 8, 8), depths=(0, 0, 0, 0), head_width=8),
}
ANCHORED = {
    "lesson": partial(lesson, anchors=ANCHORS, widths=(8, 8, 8, 8, 8), depths=(0, 0, 0, 0, 0), neck_width=8),
    "yolov3-tiny": partial(yolov3_tiny, width=1 / 64),
}


def targets() -> Targets:
    boxes = jnp.broadcast_to(jnp.array([[8.0, 8, 40, 30], [20, 10, 60, 60], [0, 0, 1, 1]]), (2, 3, 4))
    flags = jnp.broadcast_to(jnp.array([True, True, False]), (2, 3))
    classes = jnp.broadcast_to(jnp.array([0, 2, 0], jnp.int32), (2, 3))
    return Targets(boxes, classes, flags, jnp.zeros((2, 3), bool), jnp.zeros(2, jnp.int32))


def terms(detector, seed=0):
    """The loss of outputs drawn at random, of the shapes that the network gives."""
    shapes = jax.eval_shape(detector.forward, variable_shapes(detector), jnp.zeros((2, *SIZE, 3)))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    outputs = tree.unflatten([rng.normal(size=x.shape).astype(np.float32) for x in leaves])
    hyper = Hyper()._replace(**detector.spec.hyper)
    return jax.jit(lambda outputs: detector.loss(outputs, targets(), hyper))(outputs)


def double_cross_entropy(logits, targets):
    return 2 * binary_cross_entropy(logits, targets)


def half_box_loss(predicted, target):
    return complete_box_iou_loss(predicted, target) / 2


def nothing_assigned(targets, levels, predictions):
    empty = jnp.zeros(predictions.boxes.shape[:2])
    return Assigned(empty.astype(jnp.int32), empty.astype(bool), empty)


# Every detector takes them in the same way: one of each kind here, the others are slow.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("compact", "lesson") else pytest.mark.slow)
        for name in (*ANCHOR_FREE, *ANCHORED)
    ],
)
def test_losses_given_as_functions_are_those_that_are_used(name):
    make = {**ANCHOR_FREE, **ANCHORED}[name]
    usual = terms(make(NAMES, SIZE, box_loss="ciou"))
    own = terms(make(NAMES, SIZE, box_loss=half_box_loss, class_loss=double_cross_entropy))
    for part, value in usual.sums.items():
        factor = {"box": 0.5, "cls": 2.0}.get(part, 1.0)
        np.testing.assert_allclose(own.sums[part], factor * value, rtol=1e-6, err_msg=part)
    assert float(usual.sums["box"].min()) > 0 and float(usual.sums["cls"].min()) > 0


@pytest.mark.parametrize("name", [pytest.param("yolox", marks=pytest.mark.slow), "compact"])
def test_an_assigner_given_as_a_function_decides(name):
    make = ANCHOR_FREE[name]
    found = terms(make(NAMES, SIZE, assign=nothing_assigned))
    assert float(found.counts["positives"].sum()) == 0 and found.counts["unassigned"].tolist() == [2, 2]
    by_name, by_function = (make(NAMES, SIZE, assign=one, k=3) for one in ("simota", simota_assign))
    assert by_name.spec == by_function.spec and by_name.spec.options["assign"] == "simota"
    jax.tree.map(np.testing.assert_array_equal, terms(by_name), terms(by_function))


@pytest.mark.parametrize("rule", ["ratio", ratio_assign, partial(best_anchor_assign, iou_thresh=0.5)])
@pytest.mark.parametrize("name", ["compact", "yolov8", "yolov1"])
def test_an_assigner_of_anchors_is_refused_by_a_detector_without_them(name, rule):
    with pytest.raises(
        ConfigError, match=r"assign = .*(ratio|best_anchor).*assigns objects to anchors.*give (atss|responsible), "
    ):
        zoo.build(name, NAMES, (64, 64), assign=rule)


# Every name of the table is found in the same way.
@pytest.mark.parametrize(
    "rule", ["one-to-one", *(pytest.param(r, marks=pytest.mark.slow) for r in ("atss", "task-aligned"))]
)
def test_an_assigner_given_by_name_decides(rule):
    counts = terms(ANCHOR_FREE["compact"](NAMES, SIZE, assign=rule)).counts
    assert float(counts["positives"].min()) > 0
    if rule == "one-to-one":
        assert float(counts["positives"][0]) == 2


def test_a_description_stores_names_and_asks_for_functions():
    options = {"width": 1 / 32, "box_loss": "giou", "class_loss": focal_loss, "assign": nothing_assigned}
    detector = zoo.build("yolox", NAMES, SIZE, **options)
    description = json.loads(json.dumps(zoo.describe(detector)))
    assert description["options"]["box_loss"] == "giou" and description["options"]["class_loss"] == "focal"
    assert description["custom"] == {"assign": f"{__name__}.nothing_assigned"}
    with pytest.raises(CheckpointError, match=r"built with its own assign \(.*nothing_assigned\); pass parts="):
        zoo.from_description(description)
    with pytest.raises(ConfigError, match=r"built with its own assign \(.*nothing_assigned\); pass parts="):
        zoo.build("yolox", NAMES, SIZE, **description["options"])
    again = zoo.from_description(description, parts={"assign": nothing_assigned})
    assert zoo.describe(again) == zoo.describe(detector)
    # A function that moved since is taken all the same.
    moved = zoo.from_description(description, parts={"assign": partial(simota_assign, radius=3.0)})
    assert zoo.custom_parts(moved) == {"assign": "yolojax.assign._anchor_free.simota_assign (partial)"}


def test_options_that_came_later_take_their_defaults():
    description = json.loads(json.dumps(zoo.describe(zoo.build("yolox", NAMES, SIZE, width=1 / 32))))
    for option in ("assign", "box_loss", "class_loss"):
        del description["options"][option]
    assert zoo.from_description(description).spec.options["assign"] == "simota"
    with pytest.raises(CheckpointError, match="no option stem"):
        zoo.from_description({**description, "options": {**description["options"], "stem": 3}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assign": "simoto"}, "assign = 'simoto': did you mean simota"),
        ({"class_loss": 3}, "class_loss = 3: give a name or a function"),
        ({"box_loss": "mse"}, "box_loss = 'mse': .*give iou, squared-iou"),
    ],
)
def test_a_part_that_is_none_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.build("yolov8", NAMES, SIZE, **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ["compact"]}, "name is"),
        ({"input_size": [2**45, 2**45]}, "input_size is"),
        ({"input_size": [64]}, "input_size is"),
        ({"input_size": [64.0, 64.0]}, "input_size is"),
        ({"options": {"widths": [10**400, 8, 8]}}, "widths"),
        ({"options": {"widths": [[8]] * 1000}}, "widths"),
        ({"preprocess": {"pad": 10**400}}, "pad"),
        ({"preprocess": {"scale": 0.0}}, "out of range"),
        ({"preprocess": {"resize": "crop"}}, "resize"),
        ({"preprocess": [1]}, "preprocess"),
        ({"postprocess": {"validation": {"confidence": "x", "iou": 0.5, "max_detections": 3}}}, "confidence"),
        ({"postprocess": {"prediction": {"confidence": 0.2, "iou": 0.5, "max_detections": 10**9}}}, "out of range"),
        ({"postprocess": 7}, "postprocess"),
        ({"suppression": "soft"}, "suppression"),
        ({"multi_label": "yes"}, "multi_label"),
        ({"hyper": {"lambda_box": [1]}}, "lambda_box"),
        ({"class_names": ["a", 5]}, "class_names"),
    ],
)
def test_a_description_that_makes_no_detector_is_refused_by_name(changes, said):
    """Descriptions come from files; whatever stands there ends in one error of a few hundred characters."""
    options = {"widths": [8, 8, 16], "depths": [0, 0, 1], "head_width": 16, "reg_max": 8}
    description = zoo.describe(zoo.build("compact", ("a",), (64, 64), **options))
    with pytest.raises(CheckpointError, match=said) as caught:
        zoo.from_description({**description, **changes})
    assert len(str(caught.value)) < 1500
