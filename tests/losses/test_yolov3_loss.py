"""`yolov3_loss` against its definition in float64 NumPy, one image, cell and anchor after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.anchored_scene import ANCHORS, LEVELS, B, C, M, bce, ciou, scene, sides, sigmoid
from yolojax.assign import assign_targets, best_anchor_assign, ratio_assign
from yolojax.coding import decode, decode_yolov5, encode
from yolojax.losses import (
    binary_cross_entropy,
    box_iou_loss,
    complete_box_iou_loss,
    on_decoded_boxes,
    squared_offset_loss,
    with_class_weights,
    yolov3_loss,
)
from yolojax.structures import Hyper, Targets, hyper_as_arrays

HYPER = hyper_as_arrays(Hyper(ignore_iou=0.3))


# Has its own oracle, beside its own tests.
@functools.cache
def assign(iou_thresh):
    return jax.jit(lambda targets: assign_targets(targets, LEVELS, jnp.asarray(ANCHORS), C, iou_thresh=iou_thresh))


def oracle(maps, targets, box_loss, alphas=None, hyper=HYPER, iou_thresh=1.0):
    assigned = jax.tree.map(np.asarray, assign(iou_thresh)(targets))
    maps = [np.asarray(m, np.float64) for m in maps]
    alphas = {} if alphas is None else alphas
    sums, count = {k: np.zeros(B) for k in ("box", "obj", "noobj", "cls")}, {k: np.zeros(B) for k in ("pos", "ign")}
    for level, (rows, columns, stride) in enumerate(LEVELS):
        for b, y, x, a in np.ndindex(B, rows, columns, 2):
            t = maps[level][b, y, x, a]
            aw, ah = ANCHORS[level, a].astype(np.float64)
            cx, cy = (sigmoid(t[0]) + x) * stride, (sigmoid(t[1]) + y) * stride
            w, h = aw * np.exp(t[2]), ah * np.exp(t[3])
            box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
            if assigned.positive[level][b, y, x, a]:
                g = assigned.boxes[level][b, y, x, a].astype(np.float64)
                count["pos"][b] += 1
                sums["obj"][b] += float(hyper.lambda_obj) * bce(t[4], 1)
                sums["cls"][b] += float(hyper.lambda_cls) * bce(t[5:], assigned.classes[level][b, y, x, a]).sum()
                if box_loss == "ciou":
                    sums["box"][b] += float(hyper.lambda_coord) * (1 - ciou(box, g, alphas, (level, b, y, x, a)))
                else:
                    wanted = [
                        (g[0] + g[2]) / 2 / stride - x,
                        (g[1] + g[3]) / 2 / stride - y,
                        np.log((g[2] - g[0]) / aw),
                        np.log((g[3] - g[1]) / ah),
                    ]
                    got = [sigmoid(t[0]), sigmoid(t[1]), t[2], t[3]]
                    sums["box"][b] += float(hyper.lambda_coord) * np.square(np.subtract(got, wanted)).sum()
                continue
            ignored = False
            for m in np.flatnonzero(targets.valid[b]):
                inter, own, other = sides(box, targets.boxes[b, m].astype(np.float64))
                if targets.crowd[b, m]:
                    ignored |= inter / own >= 0.5
                else:
                    ignored |= inter / (own + other - inter) > float(hyper.ignore_iou)
            if ignored:
                count["ign"][b] += 1
            else:
                sums["noobj"][b] += float(hyper.lambda_noobj) * bce(t[4], 0)
    return sums, count, assigned


PARTS = {"mse": squared_offset_loss, "ciou": on_decoded_boxes(complete_box_iou_loss)}


@functools.cache
def with_gradient(part, iou_thresh):
    """The terms and the gradient of their total by the maps, in one program."""

    def loss(maps, targets, hyper):
        assign = functools.partial(best_anchor_assign, iou_thresh=iou_thresh)
        options = {"box_loss": PARTS[part], "assign": assign}
        terms = yolov3_loss(maps, LEVELS, jnp.asarray(ANCHORS), targets, hyper, **options)
        return terms.reduce()[0], terms

    return jax.jit(lambda *of: jax.grad(loss, has_aux=True)(*of)[::-1])


def compiled(part, wants="loss", iou_thresh=1.0):
    return lambda *of: with_gradient(part, iou_thresh)(*of)[wants == "gradient"]


@pytest.mark.parametrize(
    ("part", "seed", "iou_thresh"),
    [("mse", 0, 1.0), ("mse", 1, 1.0), ("ciou", 0, 1.0), ("ciou", 1, 1.0), ("mse", 0, 0.2)],
)
def test_equals_its_definition(part, seed, iou_thresh):
    maps, targets = scene(seed)
    terms = compiled(part, iou_thresh=iou_thresh)(maps, targets, HYPER)
    sums, count, assigned = oracle(maps, targets, part, iou_thresh=iou_thresh)
    for name, expected in sums.items():
        np.testing.assert_allclose(terms.sums[name], expected, rtol=2e-5, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(terms.normalisers[name], count["pos"])
    np.testing.assert_array_equal(terms.counts["ignored"], count["ign"])
    np.testing.assert_array_equal(terms.counts["positives"], count["pos"])
    if iou_thresh == 1.0:
        np.testing.assert_array_equal(terms.counts["unassigned"], assigned.collisions)
    assert count["ign"][0] > 0 and assigned.collisions[0] > 0
    expected = sum(s.sum() for s in sums.values()) / count["pos"].sum()
    np.testing.assert_allclose(terms.reduce()[0], expected, rtol=2e-5)


@pytest.mark.parametrize("part", ["mse", "ciou"])
def test_gradient_equals_finite_differences(part):
    maps, targets = scene(1)
    slope = [np.asarray(g) for g in compiled(part, "gradient")(maps, targets, HYPER)]
    alphas = {}
    assigned = oracle(maps, targets, part, alphas)[2]
    rng = np.random.default_rng(2)
    checked = 0
    for level in range(2):
        positive = assigned.positive[level]
        for place in [*np.argwhere(positive)[:2], *np.argwhere(~positive)[:1]]:
            for channel in rng.choice(5 + C, 4, replace=False):
                values = []
                for step in (1e-5, -1e-5):
                    moved = [np.asarray(m, np.float64) for m in maps]
                    moved[level][(*place, channel)] += step
                    sums, count, _ = oracle(moved, targets, part, alphas)
                    values.append(sum(s.sum() for s in sums.values()) / count["pos"].sum())
                numeric = (values[0] - values[1]) / 2e-5
                np.testing.assert_allclose(slope[level][(*place, channel)], numeric, rtol=1e-4, atol=1e-6)
                checked += abs(numeric) > 1e-4
    assert checked > 5


def test_order_and_padding_of_objects_change_nothing():
    maps, targets = scene()
    order = np.array([3, 1, 4, 0, 2])
    mixed = Targets(*(a[:, order] for a in targets[:4]), targets.dropped)
    mixed.boxes[~mixed.valid] = np.nan
    mixed.classes[~mixed.valid] = -7
    for wants in ("loss", "gradient"):
        f = compiled("mse", wants)
        for a, b in zip(jax.tree.leaves(f(maps, targets, HYPER)), jax.tree.leaves(f(maps, mixed, HYPER)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("part", ["mse", "ciou"])
@pytest.mark.parametrize(
    "box", [[0, 0, 0, 0], [30, 30, 10, 10], [8, 8, 8.001, 8.001], [-1e9, -1e9, 1e9, 1e9], None], ids=str
)
def test_finite_whatever_the_objects(part, box):
    maps, targets = scene()
    boxes = targets.boxes.copy()
    if box is None:
        targets = targets._replace(valid=np.zeros((B, M), bool))
    else:
        boxes[:, 0] = box
        targets = targets._replace(boxes=boxes)
    terms = compiled(part)(maps, targets, HYPER)
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves((terms, compiled(part, "gradient")(maps, targets, HYPER)))
    )
    if box is None:
        assert terms.reduce()[1]["noobj"] > 0
        assert not any(terms.sums[k].any() for k in ("box", "obj", "cls"))


def test_raising_the_ignore_threshold_ignores_fewer_and_compiles_once():
    maps, targets = scene()
    # A function of its own, so that nothing but these calls is in its cache; arrays are arguments, since the compiler
    # spends a long time on folding constants.
    loss = jax.jit(lambda maps, targets, hyper: yolov3_loss(maps, LEVELS, jnp.asarray(ANCHORS), targets, hyper))
    ignored = [
        loss(maps, targets, HYPER._replace(ignore_iou=jnp.float32(t))).counts["ignored"].sum() for t in (0.1, 0.4, 1.0)
    ]
    assert ignored[0] > ignored[1] > ignored[2]
    assert loss._cache_size() == 1


def test_a_perfect_prediction_costs_next_to_nothing():
    _, targets = scene(2)
    targets = targets._replace(crowd=np.zeros((B, M), bool))
    assigned = assign(1.0)(targets)
    maps = []
    for level, (rows, columns, stride) in enumerate(LEVELS):
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        shape = (B, rows, columns, 2)
        cells = jnp.broadcast_to(jnp.asarray(np.stack([x, y], -1), jnp.float32)[None, :, :, None], (*shape, 2))
        anchors = jnp.broadcast_to(jnp.asarray(ANCHORS[level])[None, None, None], (*shape, 2))
        raw = jax.jit(encode)(assigned.boxes[level], cells, float(stride), anchors)
        rest = (
            jnp.where(assigned.positive[level][..., None], 20.0, -20.0),
            jnp.where(assigned.classes[level] > 0, 20.0, -20.0),
        )
        maps.append(jnp.concatenate([raw, *rest], -1))
    for part in PARTS:
        _, parts = compiled(part)(tuple(maps), targets, HYPER).reduce()
        # What centres outside of the input image cannot reach stays in the box part only.
        assert parts["obj"] + parts["noobj"] + parts["cls"] < 1e-5


def test_class_loss_box_loss_and_decoder_are_choices():
    maps, targets = scene()
    plain = compiled("ciou")(maps, targets, HYPER)
    scaled = functools.partial(decode, scale_x_y=1.0)
    weighted = with_class_weights(binary_cross_entropy, jnp.array([2.0, 2.0, 2.0]))
    box_loss = on_decoded_boxes(complete_box_iou_loss, functools.partial(decode, scale_x_y=1.2))

    @jax.jit
    def chosen(maps, targets):
        anchors = jnp.asarray(ANCHORS)
        one = yolov3_loss(maps, LEVELS, anchors, targets, HYPER, box_loss=box_loss, class_loss=weighted, decoder=scaled)
        nowhere = lambda *a: decode(*a) + 1e4  # noqa: E731
        return one, yolov3_loss(maps, LEVELS, anchors, targets, HYPER, box_loss=box_loss, decoder=nowhere)

    one, other = chosen(maps, targets)
    np.testing.assert_allclose(one.sums["cls"], 2 * plain.sums["cls"], rtol=1e-6)
    np.testing.assert_array_equal(one.counts["ignored"], plain.counts["ignored"])
    np.testing.assert_array_equal(one.sums["box"], other.sums["box"])
    assert (np.asarray(one.sums["box"]) != np.asarray(plain.sums["box"]))[:2].all()
    assert plain.counts["ignored"].sum() > 0 and other.counts["ignored"].sum() == 0


def test_another_assigner_decides_who_is_positive():
    """With YOLOv5's assigner and coder: the positives are its own, and none of them is ignored."""
    maps, targets = scene()

    @jax.jit
    def chosen(maps, targets):
        anchors = jnp.asarray(ANCHORS)
        box_loss = on_decoded_boxes(complete_box_iou_loss, decode_yolov5)
        options = {"assign": ratio_assign, "box_loss": box_loss, "decoder": decode_yolov5}
        terms = yolov3_loss(maps, LEVELS, anchors, targets, HYPER, **options)
        return terms, ratio_assign(targets, LEVELS, anchors)

    terms, assigned = jax.tree.map(np.asarray, chosen(maps, targets))
    np.testing.assert_array_equal(terms.counts["positives"], assigned.positive.sum(-1))
    objectness = np.concatenate([np.asarray(m, np.float64)[..., 4].reshape(B, -1) for m in maps], 1)
    expected = np.where(assigned.positive, bce(objectness, 1), 0).sum(-1)
    np.testing.assert_allclose(terms.sums["obj"], expected, rtol=1e-5)
    assert (terms.counts["positives"] > compiled("mse")(maps, targets, HYPER).counts["positives"])[0]


def test_any_box_loss_compares_decoded_boxes():
    rng = np.random.default_rng(5)
    raw = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    cells, anchors = jnp.asarray(rng.integers(0, 4, (6, 2)), jnp.float32), jnp.full((6, 2), 12.0)
    corners = jnp.sort(jnp.asarray(rng.uniform(0, 60, (6, 2, 2)), jnp.float32), axis=1)
    of = (raw, corners.reshape(6, 4), cells, jnp.full(6, 16.0), anchors)
    for i, box in enumerate(np.asarray(decode(raw, cells, 16.0, anchors), np.float64)):
        inter, area_p, area_g = sides(box, np.asarray(corners.reshape(6, 4)[i], np.float64))
        expected = 1 - inter / (area_p + area_g - inter)
        assert on_decoded_boxes(box_iou_loss)(*of)[i] == pytest.approx(expected, abs=1e-5)
