"""`task_aligned_assign` against a loop over images, objects and points that follows the paper step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import Assigned, Predictions, inside_crowd, positives, task_aligned_assign
from yolojax.coding import cell_centres
from yolojax.errors import ConfigError
from yolojax.processor.platform import for_platform
from yolojax.structures import Level, Targets

LEVELS = (Level(8, 8, 8), Level(4, 4, 16), Level(2, 2, 32))
POINTS, STRIDES = (np.asarray(a, np.float64) for a in cell_centres(LEVELS))
B, M, C, N = 3, 7, 3, len(POINTS)


# What a TPU computes in another way must be the same; it runs anywhere.
every_form = pytest.mark.parametrize("platform", ["cpu", "tpu"])


@functools.cache
def compiled(alpha, beta, k, platform="cpu"):
    rule = functools.partial(task_aligned_assign, alpha=alpha, beta=beta, k=k)

    def assign(boxes, logits, targets):
        return rule(targets, LEVELS, Predictions(boxes, logits))

    return jax.jit(for_platform(platform, assign))


def oracle(boxes, logits, targets, lab, alpha, beta, k):
    owner, score = np.full((B, N), -1), np.zeros((B, N))
    for b in range(B):
        objects = lab.real(targets, b)
        alignment, overlap, wanted = {}, {}, [[] for _ in range(N)]
        for m in objects:
            box = targets.boxes[b, m].astype(np.float64)
            for i, (x, y) in enumerate(POINTS):
                if box[0] < x < box[2] and box[1] < y < box[3]:
                    s = 1 / (1 + np.exp(-logits[b, i, targets.classes[b, m]].astype(np.float64)))
                    overlap[m, i] = lab.iou(box, boxes[b, i].astype(np.float64))
                    alignment[m, i] = s**alpha * overlap[m, i] ** beta
            inside = [i for i in range(N) if alignment.get((m, i), 0) > 0]
            for i in sorted(inside, key=lambda i, m=m: (-alignment[m, i], i))[:k]:
                wanted[i].append(m)
        for i, wanting in enumerate(wanted):
            if wanting:
                owner[b, i] = min(wanting, key=lambda m, i=i: (-overlap[m, i], lab.content(targets, b, m)))
        for m in objects:
            own = np.flatnonzero(owner[b] == m)
            if len(own):
                top = max(alignment[m, i] for i in own)
                score[b, own] = [alignment[m, i] / top * max(overlap[m, j] for j in own) for i in own]
    return owner, score


def inputs(seed, case, lab):
    rng = np.random.default_rng(seed)
    targets = lab.scene(rng, case, B, M, C, (64, 64))
    boxes, logits = lab.predictions(rng, POINTS, STRIDES, B, C)
    return boxes, logits, targets


@pytest.mark.parametrize("constants", [(0.5, 6.0, 5), (1.0, 2.0, 3)])
@pytest.mark.parametrize("seed", range(3))
@every_form
def test_equals_the_loop_of_the_paper(case, seed, constants, platform, lab):
    boxes, logits, targets = inputs(seed, case, lab)
    owner, score = oracle(boxes, logits, targets, lab, *constants)
    lab.same(compiled(*constants, platform)(boxes, logits, targets), owner, score, targets)
    assert (owner >= 0).any() or case in ("none", "smaller than a stride")


@every_form
def test_where_overlaps_tie_content_decides(platform, lab):
    """Every prediction is the same box, so the objects of one scene tie wherever they are alike."""
    boxes, logits, targets = inputs(0, "ties", lab)
    boxes[:] = [16, 16, 32, 32]
    owner, score = oracle(boxes, logits, targets, lab, 0.5, 6.0, 5)
    lab.same(compiled(0.5, 6.0, 5, platform)(boxes, logits, targets), owner, score, targets)


def test_order_and_padding_do_not_matter(case, lab):
    boxes, logits, targets = inputs(9, case, lab)
    lab.unmoved_by_order(lambda t: compiled(0.5, 6.0, 5)(boxes, logits, t), targets)


@every_form
def test_predictions_that_are_not_finite_own_nothing(platform, lab):
    boxes, logits, targets = inputs(4, "random", lab)
    boxes[:, ::2] = np.nan
    logits[:, 1::4] = np.nan
    logits[:, 3::4, 0] = np.inf
    got = compiled(0.5, 6.0, 5, platform)(boxes, logits, targets)
    positive = np.asarray(got.positive)
    assert positive.any() and not positive[:, ::2].any() and not positive[:, 1::4].any()
    assert np.isfinite(got.scores).all()


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_targets_without_a_row_are_refused(shape):
    """By every assigner: all read targets through `without_padding`."""
    no = np.zeros(shape, bool)
    empty = Targets(np.zeros((*shape, 4), np.float32), no.astype(np.int32), no, no, np.zeros(shape[0], np.int32))
    with pytest.raises(ConfigError, match=f"targets of {shape[0]} images with {shape[1]} rows"):
        inside_crowd(jnp.zeros((shape[0], N, 4)), empty)


def test_inside_crowd_is_the_share_of_the_predictions_own_area():
    crowd = np.array([[[0, 0, 32, 32], [40, 40, 60, 60]]], np.float32)
    yes = np.ones((1, 2), bool)
    targets = Targets(crowd, np.zeros((1, 2), np.int32), yes, np.array([[True, False]]), np.zeros(1, np.int32))
    boxes = np.array([[[0, 0, 8, 8], [16, 0, 48, 32], [16.1, 0, 48.1, 32], [41, 41, 50, 50], [5, 5, 5, 9]]], np.float32)
    np.testing.assert_array_equal(jax.jit(inside_crowd)(boxes, targets), [[True, True, False, False, False]])
    hidden = targets._replace(valid=np.array([[False, True]]))
    assert not jax.jit(inside_crowd)(boxes, hidden).any()


def test_positives_are_those_listed_or_all_predictions():
    positive = np.array([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    plain = Assigned(*(jnp.asarray(a) for a in (positive.astype(np.int32), positive, positive.astype(np.float32))))
    index, real = jax.jit(positives)(plain)
    np.testing.assert_array_equal(real, positive)
    np.testing.assert_array_equal(index, np.tile(np.arange(5), (2, 1)))
    listed = plain._replace(listed=jnp.array([[4, 1, 2, 5], [5, 5, 5, 5]]))
    index, real = jax.jit(positives)(listed)
    np.testing.assert_array_equal(real, [[1, 1, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(index, [[4, 1, 2, 0], [0, 0, 0, 0]])
