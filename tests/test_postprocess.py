"""Post-processing against a plain NumPy pipeline, alone against batched, and every counter and edge of the contract."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import yolojax.postprocess
from yolojax.errors import ConfigError
from yolojax.postprocess import postprocess
from yolojax.processor.platform import traced_for
from yolojax.structures import Candidates, Detections


def make_candidates(seed, batch=3, n=120, n_classes=4):
    """Objects seen by several candidates each; scores on a grid of 1/64, so that equal ones are common."""
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, 200, (batch, 12, 2)), rng.uniform(10, 90, (batch, 12, 2))
    of = rng.integers(0, 12, (batch, n))
    centre, size = (np.take_along_axis(x, of[..., None], 1) for x in (centre, size))
    centre = centre + rng.normal(size=centre.shape) * size * 0.1
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1).astype(np.float32)
    scores = (np.floor(rng.random((batch, n, n_classes)) ** 3 * 64) / 64).astype(np.float32)
    return boxes, scores


def iou64(a, b):
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    area = [np.prod(np.maximum(x[2:] - x[:2], 0)) for x in (a, b)]
    union = area[0] + area[1] - size.prod()
    return size.prod() / union if union else 0.0


def reference(boxes, scores, confidence, iou, k, *, multi_label=False, agnostic=False, top=None, nms=True):
    """Step 7 of the lesson for one image in float64, with scores given: threshold, best class, NMS.

    Returns rows of (box, score, class) and the two counters.
    """
    found = []
    for box, row in zip(boxes.astype(np.float64), scores, strict=True):
        if not np.isfinite(box).all():
            continue
        usable = [(float(s), c) for c, s in enumerate(row) if np.isfinite(s)]
        if not multi_label and usable:
            usable = [max(usable, key=lambda sc: sc[0])]
        found += [(box, s, c) for s, c in usable if s >= np.float32(confidence)]
    found.sort(key=lambda row: -row[1])
    waiting = found[:top]
    kept = []
    while waiting:
        best, *waiting = waiting
        kept.append(best)
        if nms:
            waiting = [
                r for r in waiting if (not agnostic and r[2] != best[2]) or iou64(best[0], r[0]) <= np.float32(iou)
            ]
    return kept[:k], max(0, len(found) - len(found[:top])), max(0, len(kept) - k)


def check(detections, expected, k):
    for i, (rows, truncated_candidates, truncated) in enumerate(expected):
        count = len(rows)
        np.testing.assert_array_equal(detections.valid[i], np.arange(k) < count)
        np.testing.assert_array_equal(detections.scores[i, :count], np.float32([r[1] for r in rows]))
        np.testing.assert_array_equal(detections.classes[i, :count], [r[2] for r in rows])
        np.testing.assert_array_equal(detections.boxes[i, :count], np.float32([r[0] for r in rows]).reshape(-1, 4))
        assert not detections.boxes[i, count:].any() and not detections.scores[i, count:].any()
        assert (detections.classes[i, count:] == -1).all()
        assert detections.truncated_candidates[i] == truncated_candidates
        assert detections.truncated[i] == truncated


def compiled(k, **settings):
    f = jax.jit(partial(postprocess, max_detections=k, **settings))

    def run(boxes, scores, confidence, iou) -> Detections:
        return jax.device_get(f(Candidates(jnp.asarray(boxes), jnp.asarray(scores)), confidence, iou))

    return run


def run(boxes, scores, confidence, iou, k, **settings) -> Detections:
    return compiled(k, **settings)(boxes, scores, confidence, iou)


@pytest.fixture(params=["cpu", "accelerator"])
def platform(request):
    """Both halves of every choice by platform, on the one platform there is."""
    with traced_for({"accelerator": "gpu"}.get(request.param, request.param)):
        yield request.param


SETTINGS = [
    {},
    {"multi_label": True},
    {"class_agnostic": True},
    {"multi_label": True, "class_agnostic": True, "max_candidates": 100},
    {"max_candidates": 30},
    {"suppress": "none", "max_candidates": 50},
]


CASES = [
    # Of an accelerator's forms the others are made of these two.
    pytest.param(platform, s, marks=pytest.mark.slow if platform == "accelerator" and 0 < len(s) < 3 else [])
    for platform in ("cpu", "accelerator")
    for s in SETTINGS
]


def name_of(part):
    return part if isinstance(part, str) else "-".join(part) or "default"


@pytest.mark.parametrize(("platform", "settings"), CASES, indirect=["platform"], ids=name_of)
def test_equals_numpy(settings, platform):
    boxes, scores = make_candidates(0)
    names = {"class_agnostic": "agnostic", "max_candidates": "top", "multi_label": "multi_label"}
    plain = {names[k]: v for k, v in settings.items() if k in names}
    plain["nms"] = settings.get("suppress") != "none"
    f = jax.jit(partial(postprocess, max_detections=25, **settings))
    candidates = Candidates(jnp.asarray(boxes), jnp.asarray(scores))
    for confidence, iou in ((0.25, 0.45), (0.001, 0.7), (0.9, 0.5), (2.0, 0.5)):
        expected = [reference(b, s, confidence, iou, 25, **plain) for b, s in zip(boxes, scores, strict=True)]
        threshold = iou if plain["nms"] else None  # which "none" refuses
        check(jax.device_get(f(candidates, confidence, threshold)), expected, 25)
    assert f._cache_size() == 1  # thresholds are traced


@pytest.mark.parametrize("multi_label", [False, True])
def test_any_number_of_scores_over_the_threshold_gives_the_same(multi_label, platform, monkeypatch):
    """Few scores and all of them are each a program of their own."""
    boxes, scores = make_candidates(1)
    monkeypatch.setattr(yolojax.postprocess, "_BUCKET_SIZES", (32,))
    f = jax.jit(partial(postprocess, max_detections=400, multi_label=multi_label))
    for confidence in (0.0, 0.3, 0.6, 0.9):
        expected = [
            reference(b, s, confidence, 0.5, 400, multi_label=multi_label) for b, s in zip(boxes, scores, strict=True)
        ]
        got = f(Candidates(jnp.asarray(boxes), jnp.asarray(scores)), confidence, 0.5)
        check(jax.device_get(got), expected, 400)


def test_an_image_gives_the_same_bits_alone_and_in_any_batch(platform, monkeypatch):
    monkeypatch.setattr(yolojax.postprocess, "_BUCKET_SIZES", (32,))
    boxes, scores = make_candidates(2, batch=4)
    scores[3] *= 0.01  # the others decide how much room the batch needs
    detect = compiled(50, multi_label=True)
    together, backwards = detect(boxes, scores, 0.005, 0.6), detect(boxes[::-1], scores[::-1], 0.005, 0.6)
    for i in range(4):
        alone = detect(boxes[i : i + 1], scores[i : i + 1], 0.005, 0.6)
        for one, all_, reverse in zip(alone, together, backwards, strict=True):
            assert one[0].tobytes() == all_[i].tobytes() == reverse[3 - i].tobytes()


def test_truncated_counts_what_did_not_fit():
    boxes = (np.arange(50, dtype=np.float32)[:, None] * 100 + np.float32([0, 0, 50, 50]))[None]
    scores = np.full((1, 50, 2), 0.5, np.float32)
    found = run(boxes, scores, 0.5, 0.5, 8, multi_label=True, max_candidates=30)
    assert found.truncated_candidates[0] == 100 - 30
    assert found.truncated[0] == 30 - 8
    np.testing.assert_array_equal(found.classes[0], [0, 1] * 4)
    np.testing.assert_array_equal(found.boxes[0, :, 0], np.repeat(np.arange(4) * 100, 2))


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_not_finite_is_never_reported(multi_label, platform):
    detect = compiled(200, multi_label=multi_label)
    for bad in (np.nan, np.inf, -np.inf):
        boxes, scores = make_candidates(3)
        boxes[:, 3:30:3, 1] = bad
        scores[:, 40:60, 2] = bad
        found = detect(boxes, scores, 0.001, 0.5)
        plain = [reference(b, s, 0.001, 0.5, 200, multi_label=multi_label) for b, s in zip(boxes, scores, strict=True)]
        check(found, plain, 200)
        assert all(np.isfinite(x).all() for x in found)


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 5, 0), (0, 5, 3)])
def test_nothing_in_nothing_out(shape):
    found = run(np.zeros((*shape[:2], 4), np.float32), np.zeros(shape, np.float32), 0.1, 0.5, 6)
    assert found.boxes.shape == (shape[0], 6, 4)
    assert not found.valid.any() and (found.classes == -1).all()
    assert not found.truncated.any() and not found.truncated_candidates.any()


def test_one_class_and_one_candidate():
    found = run(np.float32([[[1, 2, 3, 4]]]), np.float32([[[0.5]]]), 0.5, 0.5, 3)
    np.testing.assert_array_equal(found.valid, [[True, False, False]])
    np.testing.assert_array_equal(found.boxes[0, 0], [1, 2, 3, 4])


def test_bfloat16_scores_become_float32_detections():
    boxes, scores = make_candidates(4, batch=1)
    half = run(jnp.asarray(boxes, jnp.bfloat16), jnp.asarray(scores, jnp.bfloat16), 0.25, 0.5, 20)
    rounded = np.asarray(jnp.asarray(boxes, jnp.bfloat16).astype(jnp.float32))
    full = run(rounded, scores, 0.25, 0.5, 20)  # the scores, multiples of 1/64, are exact in bfloat16
    for a, b in zip(half, full, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert half.boxes.dtype == half.scores.dtype == np.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_detections": 0}, "max_detections is 0"),
        ({"max_candidates": -1}, "max_candidates is -1"),
        ({"suppress": "soft"}, "suppress"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(Exception, match=message) as error:
        postprocess(Candidates(jnp.zeros((1, 2, 4)), jnp.zeros((1, 2, 3))), 0.1, 0.5, **settings)
    assert isinstance(error.value, ConfigError) or "suppress" in settings  # beartype names a bad literal first


def test_a_suppression_that_returns_something_else_is_named():
    boxes = Candidates(jnp.zeros((1, 2, 4)), jnp.ones((1, 2, 3)))
    with pytest.raises(ConfigError, match=r"suppress returns Kept, Rescored or Merged .* not a "):
        jax.eval_shape(lambda: postprocess(boxes, 0.1, suppress=lambda *rows, valid=None: jnp.arange(rows[3])))


@pytest.mark.slow  # tens of seconds of tracing
def test_mapped_over_members_it_gives_what_each_gives():
    """A batch of batches, larger than the smallest program: see `yolojax.inference.ensemble`."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (2, 1, 700, 2))
    boxes = jnp.asarray(np.concatenate([corner, corner + rng.uniform(5, 90, corner.shape)], -1), jnp.float32)
    scores = jnp.asarray(rng.random((2, 1, 700, 3)), jnp.float32)

    def one(boxes, scores):
        return postprocess(Candidates(boxes, scores), 0.1, 0.5, max_detections=40)

    mapped = jax.jit(jax.vmap(one))(boxes, scores)
    for member in range(2):
        alone = one(boxes[member], scores[member])
        jax.tree.map(lambda a, b, m=member: np.testing.assert_array_equal(a[m], b), mapped, alone)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_capacity_that_holds_changes_nothing_and_one_that_does_not_is_told(multi_label):
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 90, (2, 50, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (2, 50, 2))], -1).astype(np.float32)
    scores = np.zeros((2, 50, 3), np.float32)
    scores[0, 5:15, 1], scores[1, 20:50, 0] = rng.uniform(0.5, 1, 10), rng.uniform(0.5, 1, 30)
    candidates = Candidates(jnp.asarray(boxes), jnp.asarray(scores))

    def run(capacity):
        settings = {"max_detections": 40, "multi_label": multi_label, "capacity": capacity}
        return jax.jit(lambda c: postprocess(c, 0.25, 0.45, **settings))(candidates)

    whole, enough, few = run(None), run(30), run(16)
    jax.tree.map(np.testing.assert_array_equal, whole, enough)
    assert few.truncated_candidates.tolist() == [0, 14] and not whole.truncated_candidates.any()
    for name in whole._fields:
        np.testing.assert_array_equal(getattr(few, name)[0], getattr(whole, name)[0])
