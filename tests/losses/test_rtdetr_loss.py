"""The losses of RT-DETR, D-FINE and DEIMv2 against float64 transcriptions of their papers' equations."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.assign import DenoisingQueries
from yolojax.coding import refinement_steps
from yolojax.losses import QueryOutputs, QuerySet, dfine_loss, matching_aware_loss, query_varifocal_loss, rtdetr_loss
from yolojax.structures import Hyper, Targets, hyper_as_arrays

B, L, Q, C, M, D, BINS = 2, 2, 5, 3, 3, 4, 9
WIDTH, HEIGHT = 80.0, 60.0
HYPER = hyper_as_arrays(Hyper(lambda_cls=1.0, lambda_l1=5.0, lambda_coord=2.0, lambda_dfl=0.15))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def corners_of(box):
    return np.concatenate([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2])


def overlaps(a, b):
    """IoU and GIoU of two boxes (centre x, centre y, width, height)."""
    a, b = corners_of(a), corners_of(b)
    inter = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return inter / union, inter / union - (hull - union) / hull


def match(boxes, logits, objects):
    """The cheapest of all one-to-one matches: query of each object."""

    def cost(query, box, label):
        p = sigmoid(logits[query, label])
        focal = 0.25 * (1 - p) ** 2 * -np.log(p + 1e-8) - 0.75 * p**2 * -np.log(1 - p + 1e-8)
        return 2 * focal + 5 * np.abs(boxes[query] - box).sum() - 2 * overlaps(boxes[query], box)[1]

    totals = {
        chosen: sum(cost(query, *one) for query, one in zip(chosen, objects, strict=True))
        for chosen in permutations(range(Q), len(objects))
    }
    return min(totals, key=totals.get)


def varifocal(logits, target, positive):
    p = sigmoid(logits)
    bce = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    weight = np.where(positive, target, 0.75 * p**2)
    return weight * bce


def matching_aware(logits, target, positive):
    p, target = sigmoid(logits), np.where(positive, target**1.5, 0)
    return np.where(positive, 1, p**1.5) * -(target * np.log(p) + (1 - target) * np.log(1 - p))


def parts_of(boxes, logits, owner, objects, class_loss, box_owner=None):
    """Sums of the class, L1 and GIoU losses of one set of queries of one image; ``owner`` is object of query."""
    target, positive = np.zeros(logits.shape), np.zeros(logits.shape, bool)
    for query, o in owner.items():
        positive[query, objects[o][1]] = True
        target[query, objects[o][1]] = overlaps(boxes[query], objects[o][0])[0]
    own = owner if box_owner is None else box_owner
    l1 = sum(np.abs(boxes[q] - objects[o][0]).sum() for q, o in own.items())
    giou = sum(1 - overlaps(boxes[q], objects[o][0])[1] for q, o in own.items())
    return np.array([class_loss(logits, target, positive).sum(), 5 * l1, 2 * giou])


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)

    def queries(n, layers=L, full=True):
        boxes = rng.uniform(0.25, 0.6, (B, layers, n, 4))
        arrays = [rng.normal(0, 2, (B, layers, n, C)), boxes]
        if full:
            arrays += [
                rng.normal(0, 1, (B, layers, n, 4 * BINS)),
                rng.uniform(0.3, 0.5, (B, n, 4)),
                rng.normal(0, 2, (B, n, C)),
                rng.uniform(0.25, 0.6, (B, n, 4)),
            ]
        return QuerySet(*(jnp.asarray(x, jnp.float32) for x in arrays))

    boxes = np.zeros((B, M, 4), np.float32)
    boxes[0, 0], boxes[0, 2], boxes[1, 1] = (8, 6, 48, 42), (20, 15, 70, 50), (16, 12, 60, 48)
    valid = np.array([[True, False, True], [False, True, False]])
    targets = Targets(
        jnp.asarray(boxes),
        jnp.asarray([[1, 9, 0], [9, 2, 9]], jnp.int32),
        jnp.asarray(valid),
        jnp.zeros((B, M), bool),
        jnp.zeros(B, jnp.int32),
    )
    denoising = DenoisingQueries(
        jnp.zeros((B, D, 4)),
        jnp.zeros((B, D), jnp.int32),
        jnp.asarray([[0, 2, 0, 2], [1, 1, 1, 1]], jnp.int32),
        jnp.asarray([[True, True, False, False], [True, False, False, False]]),
        jnp.asarray([[0, 0, 0, 0], [0, -1, 0, -1]], jnp.int32),
    )
    size = jnp.broadcast_to(jnp.asarray([WIDTH, HEIGHT]), (B, 2))
    return QueryOutputs(queries(Q), queries(Q, 1, False), queries(D), denoising, size), targets


def objects_of(targets, image):
    """Boxes (centre x, centre y, width, height as fractions) and classes by row."""
    found = {}
    for row in np.flatnonzero(np.asarray(targets.valid[image])):
        box = np.asarray(targets.boxes[image, row], np.float64) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
        centred = np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
        found[row] = (centred, int(targets.classes[image, row]))
    return found


def sets_of(queries, image, places=None):
    sets = [(queries.boxes[image, i], queries.logits[image, i]) for i in range(queries.boxes.shape[1])]
    if places is not None:
        sets += [(queries.first_boxes[image], queries.first_logits[image])] if places == "first" else []
    return [tuple(np.asarray(x, np.float64) for x in one) for one in sets]


def owners_of(sets, objects):
    rows = list(objects)
    return [dict(zip(match(boxes, logits, [objects[r] for r in rows]), rows, strict=True)) for boxes, logits in sets]


def test_rtdetr_is_matched_and_summed_layer_by_layer(scene):
    outputs, targets = scene
    terms = jax.jit(lambda o: rtdetr_loss(o, targets, HYPER))(outputs)
    for image in range(B):
        objects = objects_of(targets, image)
        places = tuple(np.asarray(x[image, 0], np.float64) for x in (outputs.places.boxes, outputs.places.logits))
        sets = [*sets_of(outputs.queries, image), places]
        expected = sum(
            parts_of(*one, owner, objects, varifocal) for one, owner in zip(sets, owners_of(sets, objects), strict=True)
        )
        found = [float(terms.sums[name][image]) for name in ("cls", "l1", "giou")]
        np.testing.assert_allclose(found, expected, rtol=2e-5)
        dn = outputs.denoising
        there = np.flatnonzero(np.asarray(dn.group[image]) >= 0)
        owner = {i: int(dn.objects[image, q]) for i, q in enumerate(there) if bool(dn.positive[image, q])}
        sets = [tuple(x[there] for x in one) for one in sets_of(outputs.denoised, image)]
        extra = tuple(
            np.asarray(x[image], np.float64)[there]
            for x in (outputs.denoised.first_boxes, outputs.denoised.first_logits)
        )
        expected = sum(parts_of(*one, owner, objects, varifocal) for one in [*sets, extra])
        found = [float(terms.sums[f"denoise_{name}"][image]) for name in ("cls", "l1", "giou")]
        np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert terms.normalisers["cls"].tolist() == [2, 1] and terms.normalisers["denoise_l1"].tolist() == [2, 1]
    assert terms.counts["positives"].tolist() == [2, 1]


def fgl_and_ddf(queries, image, owners, objects, present):
    """Equations 6 and 7 of arXiv 2410.13842, all layers; the means of positives and others by roots of numbers."""
    steps = refinement_steps(BINS).astype(np.float64)
    fine = distilled = 0.0
    teacher = np.asarray(queries.corners[image, -1], np.float64).reshape(-1, 4, BINS)
    best = sigmoid(np.asarray(queries.logits[image, -1], np.float64)).max(-1)
    for layer, owner in enumerate(owners):
        logits = np.asarray(queries.corners[image, layer], np.float64).reshape(-1, 4, BINS)
        logs, weights = log_softmax(logits), best.copy()
        for query, row in owner.items():
            weights[query] = overlaps(np.asarray(queries.boxes[image, layer, query], np.float64), objects[row][0])[0]
            reference = np.asarray(queries.references[image, query], np.float64)
            box = corners_of(objects[row][0])
            distance = np.array([*(reference[:2] - box[:2]), *(box[2:] - reference[:2])])
            for side in range(4):
                offset = distance[side] / (reference[2 + side % 2] / 4) - 2
                offset = np.clip(offset, steps[0], steps[-1])
                low = min(np.searchsorted(steps, offset, "right") - 1, BINS - 2)
                share = (offset - steps[low]) / (steps[low + 1] - steps[low])
                fine -= weights[query] * ((1 - share) * logs[query, side, low] + share * logs[query, side, low + 1])
        if layer < len(owners) - 1:
            own, target = log_softmax(logits / 5), log_softmax(teacher / 5)
            loss = weights * 25 * (np.exp(target) * (target - own)).sum(-1).mean(-1)
            positive = np.isin(np.arange(len(loss)), list(owner))
            means, roots = [], []
            for mask in (positive & present, ~positive & present):
                means.append(loss[mask].mean() if mask.any() else 0.0)
                roots.append(np.sqrt(mask.sum()))
            distilled += np.dot(means, roots) / sum(roots)
    return 0.15 * fine, 1.5 * distilled


def test_weights_of_negatives_carry_no_gradient():
    """Both losses of classes weigh BCE, whose derivative is ``p - target``, by numbers that are constant."""
    rng = np.random.default_rng(0)
    logits, overlaps = rng.normal(0, 2, (6, C)), rng.uniform(0.1, 0.9, (6, C))
    positive = rng.random((6, C)) < 0.3
    overlaps, p = np.where(positive, overlaps, 0.0), sigmoid(logits)

    def slope(loss):
        arguments = (jnp.asarray(x, jnp.float32) for x in (logits, overlaps))
        return jax.grad(lambda x, y: loss(x, y, jnp.asarray(positive)).sum())(*arguments)

    weights = np.where(positive, overlaps, 0.75 * p**2)
    np.testing.assert_allclose(slope(query_varifocal_loss), weights * (p - overlaps), rtol=1e-4, atol=1e-7)
    weights, target = np.where(positive, 1.0, p**1.5), overlaps**1.5
    np.testing.assert_allclose(slope(matching_aware_loss), weights * (p - target), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("union", "loss", "own"), [(True, query_varifocal_loss, varifocal), (False, matching_aware_loss, matching_aware)]
)
def test_dfine_adds_distributions_and_the_union_of_matches(scene, union, loss, own):
    outputs, targets = scene
    terms = jax.jit(lambda o: dfine_loss(o, targets, HYPER, class_loss=loss, union=union))(outputs)
    for image in range(B):
        objects = objects_of(targets, image)
        places = tuple(np.asarray(x[image, 0], np.float64) for x in (outputs.places.boxes, outputs.places.logits))
        sets = [*sets_of(outputs.queries, image, "first"), places]
        owners = owners_of(sets, objects)
        shared = None
        if union:
            votes = {}
            for owner in owners:
                for query, row in owner.items():
                    votes.setdefault(query, []).append(row)
            shared = {
                query: min(set(rows), key=lambda r, rows=rows: (-rows.count(r), r)) for query, rows in votes.items()
            }
            assert int(terms.normalisers["l1"][image]) == len(shared)
        expected = sum(parts_of(*one, owner, objects, own, shared) for one, owner in zip(sets, owners, strict=True))
        found = [float(terms.sums[name][image]) for name in ("cls", "l1", "giou")]
        np.testing.assert_allclose(found, expected, rtol=2e-5)
        local = [shared or owner for owner in owners[:L]]
        expected = fgl_and_ddf(outputs.queries, image, local, objects, np.ones(Q, bool))
        np.testing.assert_allclose([terms.sums["fgl"][image], terms.sums["ddf"][image]], expected, rtol=2e-5)
        dn = outputs.denoising
        owner = {q: int(dn.objects[image, q]) for q in np.flatnonzero(np.asarray(dn.positive[image]))}
        expected = fgl_and_ddf(outputs.denoised, image, [owner] * L, objects, np.asarray(dn.group[image]) >= 0)
        found = [terms.sums["denoise_fgl"][image], terms.sums["denoise_ddf"][image]]
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_images_without_objects_have_a_finite_gradient(scene):
    """All that is left are the classes of negatives, and the distillation of what is no object."""
    outputs, targets = scene
    nothing = targets._replace(valid=jnp.zeros_like(targets.valid), boxes=jnp.full_like(targets.boxes, jnp.nan))
    absent = outputs.denoising._replace(
        group=jnp.full_like(outputs.denoising.group, -1), positive=jnp.zeros((B, D), bool)
    )

    def total(queries, denoised):
        given = outputs._replace(queries=queries, denoised=denoised, denoising=absent)
        return dfine_loss(given, nothing, HYPER).reduce()

    (value, parts), gradient = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(
        outputs.queries, outputs.denoised
    )
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))
    assert float(value) > 0 and float(parts["cls"]) > 0 and float(parts["ddf"]) > 0
    assert all(float(parts[name]) == 0 for name in parts if name not in ("cls", "ddf"))


def test_queries_in_a_crowd_are_no_background(scene):
    outputs, targets = scene
    everywhere = targets._replace(
        boxes=targets.boxes.at[1, 0].set(jnp.asarray([0.0, 0.0, WIDTH, HEIGHT])),
        valid=targets.valid.at[1, 0].set(True),
        crowd=targets.crowd.at[1, 0].set(True),
    )
    of = jax.jit(lambda given: rtdetr_loss(outputs, given, HYPER))
    plain, crowded = of(targets), of(everywhere)
    assert float(crowded.sums["cls"][1]) < float(plain.sums["cls"][1])
    assert float(crowded.counts["ignored"][1]) == Q - 1
    np.testing.assert_allclose(crowded.sums["l1"], plain.sums["l1"], rtol=1e-6)
    # The count is that of the last layer, wherever the places are.
    elsewhere = outputs.places._replace(boxes=outputs.places.boxes.at[..., :2].add(9.0))
    assert float(rtdetr_loss(outputs._replace(places=elsewhere), everywhere, HYPER).counts["ignored"][1]) == Q - 1
