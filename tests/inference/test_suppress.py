"""Suppression as an argument of everything that detects, and records that were edited, through the public functions."""

from dataclasses import replace
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.nms.test_suppression import soft
from yolojax import nms, zoo
from yolojax.config import SuppressionName, ValidationConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.detector import Detector, DetectorSpec
from yolojax.errors import ConfigError
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.files import detections_to_coco
from yolojax.inference.ensemble import detect_ensemble, stack_members
from yolojax.inference.evaluate import evaluate
from yolojax.inference.predict import Predictor
from yolojax.inference.tta import TTA
from yolojax.nms import named
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates

SIZE, IMAGES = 64, 4
DATA = shapes_dataset(IMAGES, size=(SIZE, SIZE))


def candidates_of_images() -> tuple[np.ndarray, np.ndarray]:
    """Twelve boxes around every object, and nothing else: ``[images, N, 4]`` and ``[images, N, C]``."""
    rng = np.random.default_rng(0)
    most = 12 * max(len(record.boxes) for record in DATA.records)
    boxes = np.zeros((IMAGES, most, 4), np.float32)
    scores = np.zeros((IMAGES, most, len(DATA.class_names)), np.float32)
    for i, record in enumerate(DATA.records):
        own = np.repeat(record.boxes, 12, axis=0)
        sides = np.tile(own[:, 2:] - own[:, :2], 2)
        boxes[i, : len(own)] = own + rng.normal(size=own.shape) * 0.1 * sides
        labels = np.repeat(record.classes, 12)
        scores[i, np.arange(len(own)), labels] = rng.permutation(len(own) * 3)[: len(own)] / (len(own) * 3 + 1) + 0.002
    return boxes, scores


BOXES, SCORES = candidates_of_images()


@pytest.fixture(scope="module")
def detector() -> Detector:
    """A detector that knows the images of `DATA` by their brightness and gives `candidates_of_images` for each."""
    spec = DetectorSpec("known images", DATA.class_names, (SIZE, SIZE), (32,))
    images, _ = build_cache(DATA, (SIZE, SIZE), spec.preprocess).load(np.arange(IMAGES))
    brightness = jnp.asarray(images, jnp.float32).mean((1, 2, 3)) / 255
    assert np.diff(np.sort(brightness)).min() > 1e-4

    def forward(variables, images):
        return jnp.abs(images.mean((1, 2, 3))[:, None] - brightness[None]).argmin(1)

    def decode(which):
        return Candidates(jnp.asarray(BOXES)[which], jnp.asarray(SCORES)[which])

    return Detector(spec, lambda key: {}, forward, None, None, decode, lambda variables: variables)  # pyright: ignore[reportArgumentType]


def by_hand(sigma: float) -> list[dict]:
    """Soft-NMS by the paper's loop in float64, as a COCO result list."""
    rows = []
    for record, boxes, scores in zip(DATA.records, BOXES, SCORES, strict=True):
        at, labels = np.nonzero(scores >= np.float32(0.001))
        same = lambda i, j, labels=labels: labels[i] == labels[j]  # noqa: E731
        taken = soft(
            boxes[at].astype(np.float64), scores[at, labels], same, lambda iou: np.exp(-(iou**2) / sigma), 0.001
        )
        order = sorted(taken, key=lambda row: -row[1])
        index = np.array([i for i, _ in order])
        found = np.clip(boxes[at][index], 0, SIZE), np.array([s for _, s in order]), labels[index]
        rows += detections_to_coco(record.image_id, *found, DATA.category_ids)
    return rows


def test_soft_nms_in_val_gives_the_ap_of_the_papers_loop(detector):
    expected = evaluate_coco(DATA.to_coco(), by_hand(0.3)).AP
    greedy = evaluate((detector, {}), DATA).result.AP
    named_so = evaluate(
        (detector, {}), DATA, validation=ValidationConfig(suppress="soft-gaussian", suppress_parameter=0.3)
    )
    function = evaluate((detector, {}), DATA, suppress=partial(nms.soft_nms_gaussian, sigma=0.3))
    assert pytest.approx(expected, abs=1e-9) == named_so.result.AP
    assert function.result.AP == named_so.result.AP
    assert 0.1 < expected < 1 and abs(expected - greedy) > 1e-3


def best_alone(boxes, scores, classes, max_detections, *, valid=None):
    """A suppression of one's own: the best box of the image and no other."""
    best = jnp.argmax(jnp.where(valid, scores, -jnp.inf))
    exists = (jnp.arange(max_detections) == 0) & valid.any()
    return nms.Kept(jnp.where(exists, best, 0).astype(jnp.int32), exists)


@pytest.mark.parametrize("tta", [None, TTA((1.0,)), TTA((1.0,), False, "wbf")], ids=["plain", "union", "wbf"])
def test_a_function_of_ones_own(detector, tta):
    found = evaluate((detector, {}), DATA, suppress=best_alone, tta=tta)
    best = SCORES.max((1, 2))
    np.testing.assert_allclose([row["score"] for row in found.detections], best, rtol=1e-6)
    predictor = Predictor(detector, {}, suppress=best_alone, tta=tta)
    results = predictor([record.pixels() for record in DATA.records], confidence=0.001)
    np.testing.assert_allclose([result.scores[0] for result in results], best, rtol=1e-6)
    assert [len(result) for result in results] == [1] * IMAGES
    with pytest.raises(ConfigError, match="leave iou out"):
        predictor(DATA.records[0].pixels(), iou=0.5)


@pytest.mark.parametrize("name", sorted(named.KINDS))
def test_every_kind_by_name_is_sorted_and_equals_its_function(name):
    """Also side by side, as on an accelerator: one that lowers scores, and one that moves boxes."""
    kind = named.KINDS[name]
    candidates = Candidates(jnp.asarray(BOXES), jnp.asarray(SCORES))
    run = jax.jit(lambda c: postprocess(c, 0.01, suppress=nms.named_suppression(name, 0.4), max_detections=20))
    found = run(candidates)
    assert found.valid.any(1).all() and found.valid.sum() > 10 and (np.diff(found.scores) <= 0).all()
    assert (found.scores[found.valid] >= 0.01).all() and (found.classes[~found.valid] == -1).all()
    if name in ("soft-gaussian", "wbf"):
        mapped = jax.jit(jax.vmap(lambda c: run(Candidates(*(x[None] for x in c)))))
        for a, b in zip(found, mapped(candidates), strict=True):
            np.testing.assert_allclose(a, b[:, 0] if b.ndim > 1 else b.squeeze(), rtol=1e-5, atol=1e-4)
    best, label = SCORES[0].max(-1), SCORES[0].argmax(-1).astype(np.int32)
    direct = jax.jit(lambda *of, valid: kind.function(*of, 20, valid=valid, **{kind.parameter: 0.4}))(
        BOXES[0], best, label, valid=best >= 0.01
    )
    keep = np.asarray(direct.valid & (direct.scores >= 0.01))
    np.testing.assert_allclose(found.scores[0][found.valid[0]], direct.scores[keep], rtol=1e-5)


def test_boxes_of_several_classes_influence_each_other_only_when_asked():
    boxes = np.tile(np.float32([0, 0, 10, 10]), (1, 2, 1))
    scores = np.float32([[[0.9, 0], [0, 0.8]]])
    for name in named.KINDS:
        settings = {"suppress": nms.named_suppression(name, 0.1), "max_detections": 2}
        apart, together = jax.jit(
            lambda *of, settings=settings: tuple(
                postprocess(Candidates(*of), 0.1, class_agnostic=agnostic, **settings) for agnostic in (False, True)
            )
        )(boxes, scores)
        np.testing.assert_allclose(apart.scores[0], [0.9, 0.8])
        np.testing.assert_array_equal(apart.classes[0], [0, 1])
        assert int(together.valid.sum()) == 1 and together.classes[0, 0] == 0, name


def test_names_and_parameters_that_are_wrong():
    assert get_args(SuppressionName) == get_args(named.SuppressionName)
    for arguments, said in (
        (("nms", 0.5), "the threshold of nms is iou"),
        (("none", 0.5), "has no parameter"),
        (("soft-gaussian", -1.0), "give its sigma, above 0"),
        (("fast", 1.5), "give its iou_threshold, above 0, at most 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            nms.named_suppression(*arguments)
    candidates = Candidates(jnp.asarray(BOXES), jnp.asarray(SCORES))
    with pytest.raises(ConfigError, match="needs an iou_threshold"):
        postprocess(candidates, 0.1)
    with pytest.raises(ConfigError, match="belongs to greedy suppression"):
        postprocess(candidates, 0.1, 0.5, suppress=best_alone)


def test_settings_that_nothing_reads_are_refused(detector):
    for validation, said in (
        (ValidationConfig(suppress_parameter=0.3), "nms has no parameter"),
        (
            ValidationConfig(suppress="soft-gaussian", iou=0.5),
            "soft-gaussian does not read it",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluate((detector, {}), DATA, validation=validation)
    with pytest.raises(ConfigError, match="but another suppression is chosen; leave iou out"):
        evaluate((detector, {}), DATA, validation=ValidationConfig(iou=0.5), suppress="none")
    with pytest.raises(ConfigError, match="given twice"):
        evaluate((detector, {}), DATA, validation=ValidationConfig(suppress="nms"), suppress=best_alone)


def test_what_is_replaced_in_a_record_holds_everywhere():
    """One box and one score wherever the network looks."""
    built = zoo.build("compact", DATA.class_names, (32, 32), widths=(8, 8, 16), depths=(0, 0, 1), head_width=8)

    def decode(outputs):
        batch = jax.tree.leaves(outputs)[0].shape[0]
        boxes = jnp.tile(jnp.array([[[8.0, 8, 24, 24]]]), (batch, 1, 1))
        return Candidates(boxes, jnp.full((batch, 1, len(DATA.class_names)), 0.01).at[:, :, 2].set(0.75))

    edited = built._replace(decode=decode, spec=replace(built.spec, multi_label=False))
    variables = built.init(jax.random.key(0))
    one = Predictor(edited, variables)(np.zeros((32, 32, 3), np.uint8))
    np.testing.assert_allclose(one.boxes, [[8, 8, 24, 24]])
    mirrored = Predictor(edited, variables, tta=TTA((1.0,), fusion="wbf"))(np.zeros((32, 32, 3), np.uint8))
    np.testing.assert_allclose(mirrored.boxes, [[8, 8, 24, 24]])
    found = evaluate((edited, variables), DATA)
    assert [row["category_id"] for row in found.detections] == [DATA.category_ids[2]] * IMAGES
    np.testing.assert_allclose([row["bbox"] for row in found.detections], [[16, 16, 32, 32]] * IMAGES)
    members = stack_members([variables, built.init(jax.random.key(1))])
    images = jnp.zeros((1, 32, 32, 3), jnp.uint8)
    together = jax.jit(lambda m, x: detect_ensemble(edited, m, x, 0.25, 0.45, max_detections=3))(members, images)
    np.testing.assert_allclose(together.detections.boxes[0, 0], [8, 8, 24, 24])
    np.testing.assert_array_equal(together.detections.valid, [[True, False, False]])

    def forward(variables, images):
        return jnp.zeros((len(images), 1))

    assert len(Predictor(edited._replace(forward=forward), {"params": {}})(np.zeros((32, 32, 3), np.uint8))) == 1
