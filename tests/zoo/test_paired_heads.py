"""YOLOv10 and YOLO26: two heads, of which one answers without suppression."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import ConfigError
from yolojax.models.heads import AnchorFreeHead, PairedHead
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates
from yolojax.weights.foreign import read_weight_file

NAMES = ("cat", "dog", "owl")
FAMILIES = ["yolov10", "yolo26"]

# Parameters of the published tables, which count one head.
ONE_HEAD = [
    ("yolov10", "n", 2.3),
    ("yolov10", "s", 7.2),
    ("yolov10", "m", 15.4),
    ("yolov10", "b", 19.1),
    ("yolov10", "l", 24.4),
    ("yolov10", "x", 29.5),
    ("yolo26", "n", 2.4),
    ("yolo26", "s", 9.5),
    ("yolo26", "m", 20.4),
    ("yolo26", "l", 24.8),
    ("yolo26", "x", 55.7),
]


@pytest.mark.parametrize(
    ("name", "scale", "millions"),
    # The smallest of each family by default: tracing a network takes seconds.
    [pytest.param(*row, marks=[] if row[1] == "n" else pytest.mark.slow) for row in ONE_HEAD],
)
def test_the_published_size_is_that_with_one_head(name, scale, millions):
    detector = zoo.build(name, tuple(map(str, range(80))), (640, 640), scale=scale)
    params = variable_shapes(detector)["params"]
    one = zoo.parameter_count({"params": {**params, "head": params["head"]["one_to_one"]}})
    assert one / 1e6 == pytest.approx(millions, abs=0.1)
    assert params["head"].keys() == {"one_to_one", "one_to_many"}


def heads():
    head = AnchorFreeHead(3, (8,), (32, 32), 4, box_width=8, cls_width=8, depthwise=True)
    return PairedHead(head, head.copy())


def test_no_gradient_of_the_one_to_one_head_reaches_the_features():
    head, features = heads(), (jax.random.normal(jax.random.key(1), (2, 4, 4, 6)),)
    variables = jax.jit(lambda key: head.init(key, features, False))(jax.random.key(0))

    def total(params, features, name):
        levels = getattr(head.apply({**variables, "params": params}, features, False), name)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(levels))

    names = ("one_to_many", "one_to_one")
    both = jax.jit(lambda *of: {name: jax.grad(total, (0, 1))(*of, name) for name in names})
    gradients = jax.device_get(both(variables["params"], features))
    for name, other, reaches in ((*names, True), (*names[::-1], False)):
        found = gradients[name]
        assert found[1][0].any() == reaches
        assert all(leaf.any() for leaf in jax.tree.leaves(found[0][name]["level0_predict_box"]))
        assert not any(leaf.any() for leaf in jax.tree.leaves(found[0][other]))


# The two are made of the same parts; the other one takes another half a minute.
@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "yolo26" else pytest.mark.slow) for name in FAMILIES],
)
def detectors(request):
    """A family with either head, and variables with different numbers everywhere."""
    found = {head: zoo.build(request.param, NAMES, (32, 64), head=head) for head in ("one_to_one", "one_to_many")}
    rng = np.random.default_rng(0)

    def draw(x):
        if len(x.shape) == 4:
            return rng.normal(0, np.prod(x.shape[:-1]) ** -0.5, x.shape).astype(np.float32)
        return rng.uniform(0.8, 1.2, x.shape).astype(np.float32)

    return found, jax.tree.map(draw, variable_shapes(found["one_to_one"]))


@pytest.fixture(scope="module")
def outputs(detectors):
    found, variables = detectors
    images = jax.random.uniform(jax.random.key(2), (2, 32, 64, 3))
    return jax.jit(found["one_to_one"].forward)(variables, images)


def test_a_detector_answers_from_the_head_that_was_chosen(detectors, outputs):
    boxes = {}
    for head, detector in detectors[0].items():
        assert detector.spec.suppression == {"one_to_one": "none", "one_to_many": "nms"}[head]
        boxes[head], scores = jax.jit(detector.decode)(outputs)
        expected = np.concatenate([np.asarray(level.cls).reshape(2, -1, 3) for level in getattr(outputs, head)], axis=1)
        np.testing.assert_allclose(scores, 1 / (1 + np.exp(-expected.astype(np.float64))), rtol=2e-6)
        assert zoo.describe(zoo.from_description(zoo.describe(detector))) == zoo.describe(detector)
    assert np.isfinite(boxes["one_to_one"]).all()
    assert not np.allclose(boxes["one_to_one"], boxes["one_to_many"])


def test_the_answers_are_the_best_pairs_of_place_and_class(detectors, outputs):
    """One place may answer under several classes, and overlapping boxes stay."""
    detector = detectors[0]["one_to_one"]
    spec = detector.spec

    @jax.jit
    def answer(outputs):
        boxes, scores = detector.decode(outputs)
        candidates = Candidates(boxes, jax.random.uniform(jax.random.key(3), scores.shape))
        found = postprocess(candidates, 0.0, suppress=spec.suppression, max_detections=60, multi_label=spec.multi_label)
        return *candidates, found

    boxes, scores, answers = answer(outputs)
    assert boxes.shape[1] == 8 * 4 + 4 * 2 + 2 and bool(answers.valid.all())
    for b in range(2):
        best = np.argsort(-np.asarray(scores[b]).ravel())[:60]
        np.testing.assert_array_equal(answers.scores[b], np.asarray(scores[b]).ravel()[best])
        np.testing.assert_array_equal(answers.classes[b], best % 3)
        np.testing.assert_array_equal(answers.boxes[b], np.asarray(boxes[b])[best // 3])
        assert len(set(best // 3)) < 60


def test_the_other_head_is_not_counted(detectors):
    one, many = (zoo.forward_flops(detector) for detector in detectors[0].values())
    free = detectors[0]["one_to_one"]
    both = zoo.forward_flops(free._replace(spec=replace(free.spec, options={})))
    assert one == many < both < 2 * one


@pytest.mark.slow
def test_the_other_head_is_not_compiled(detectors):
    detector, variables = detectors[0]["one_to_one"], detectors[1]
    images = jnp.zeros((1, 32, 64, 3))
    answers = jax.jit(lambda v, x: detector.decode(detector.forward(v, x))).lower(variables, images).compile()
    everything = jax.jit(detector.forward).lower(variables, images).compile()
    assert answers.cost_analysis()["flops"] < 0.95 * everything.cost_analysis()["flops"]


def test_the_head_is_chosen_when_a_file_is_read(detectors, tmp_path):
    detector, variables = detectors[0]["one_to_one"], detectors[1]
    path = tmp_path / "own.safetensors"
    save_file(zoo.to_state_dict(detector, variables), path)
    read, _ = zoo.from_pytorch(path, class_names=NAMES, input_size=(32, 64), options={"head": "one_to_many", "k": 7})
    assert (read.spec.suppression, read.spec.options["head"], read.spec.options["k"]) == ("nms", "one_to_many", 7)
    for options, said in (
        ({"head": "both"}, "head = 'both': give one_to_one or one_to_many"),
        ({"scale": "m"}, "has no option scale"),
        ({"dtype": "bfloat16"}, "has no option dtype"),
    ):
        with pytest.raises(ConfigError, match=said):
            zoo.from_pytorch(path, class_names=NAMES, input_size=(32, 64), options=options)
    with pytest.raises(ConfigError, match="head"):
        zoo.build(detector.spec.name, NAMES, (32, 64), head="both")


def corners(boxes):
    """Boxes ``cx cy w h`` as ``x1 y1 x2 y2``."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=-1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_real_files_give_what_the_peer_computes(name, test_data):
    """Rounding moves logits of YOLOv10n by .0006 here and by .0006 there from what float64 gives, and so its boxes."""
    folder = test_data / "refs" / f"b_{name}"
    raw = np.load(folder / "dog_raw.npz")
    image = jnp.asarray(next(iter(np.load(folder.parent / "dog_letterbox_640.npz").values())).reshape(1, 640, 640, 3))
    detector, variables = zoo.from_pytorch(folder / f"{name}.pt", input_size=(640, 640))
    assert detector.spec.class_names == ("RBC", "WBC", "Platelets")
    outputs = jax.jit(detector.forward)(variables, image.astype(jnp.float32) / 255)
    for head, kind in (("one_to_many", "one2many"), ("one_to_one", "one2one")):
        detector, _ = zoo.from_pytorch(folder / f"{name}.pt", input_size=(640, 640), options={"head": head})
        levels, (boxes, scores) = getattr(outputs, head), detector.decode(outputs)
        logits = np.concatenate([np.asarray(level.cls).reshape(-1, 3) for level in levels])
        np.testing.assert_allclose(logits, raw[f"{kind}_scores"], rtol=0, atol=1.5e-3)
        sides = np.concatenate([np.asarray(level.box).reshape(-1, level.box.shape[-1]) for level in levels])
        known = f"{kind}_boxes" if f"{kind}_boxes" in raw else f"{kind}_boxes_every_8th"
        np.testing.assert_allclose(sides[:: len(sides) // len(raw[known])], raw[known], rtol=0, atol=1e-3)
        if f"pred_{kind}" in raw:
            np.testing.assert_allclose(boxes[0], corners(raw[f"pred_{kind}"][:, :4]), rtol=0, atol=0.06)
            np.testing.assert_allclose(scores[0], raw[f"pred_{kind}"][:, 4:], rtol=0, atol=1e-3)

    # The answers: equal scores may change places, and rows are found again by their scores and boxes.
    answers = postprocess(
        Candidates(boxes, scores), 0.0, suppress=detector.spec.suppression, max_detections=300, multi_label=True
    )
    expected = raw["end2end_300x6"]
    np.testing.assert_allclose(answers.scores[0], expected[:, 4], rtol=0, atol=1e-3)
    own = np.concatenate([np.asarray(answers.boxes[0]), np.asarray(answers.classes[0])[:, None]], axis=-1)
    theirs = np.concatenate([expected[:, :4], expected[:, 5:]], axis=-1)
    nearest = np.abs(own[:, None] - theirs[None]).max(-1).min(0)
    assert (
        np.sum(nearest > 0.05) <= 2
    )  # The last pairs of the 300 may be others, where scores are equal but for rounding.

    theirs, ours = read_weight_file(folder / f"{name}.pt").tensors, zoo.to_state_dict(detector, variables)
    assert ours.keys() == theirs.keys()
    for tensor, array in theirs.items():
        if not tensor.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(ours[tensor], np.asarray(array, np.float32), err_msg=tensor)
