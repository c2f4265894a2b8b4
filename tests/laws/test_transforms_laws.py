"""What `jit`, `vmap`, second derivatives and half precision keep, for every public function of the parts at once.

One table of examples holds them all, so that a new function without an example fails here.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import assign, boxes, coding, losses, nms
from yolojax.structures import Hyper, Level, Targets, hyper_as_arrays

LEVELS = (Level(4, 4, 8), Level(2, 2, 16))
POINTS, STRIDES = coding.cell_centres(LEVELS)
ANCHORS = jnp.array([[[6.0, 6.0], [10.0, 14.0]], [[24.0, 20.0], [30.0, 28.0]]])
N, M, C, BINS = len(POINTS), 3, 2, 4
HYPER = hyper_as_arrays(Hyper())
GRID = Level(2, 5, 8)
"""Ten cells with two predictions each: as many as `N`."""


def inputs(seed):
    """Arrays by name, for two images; every float is float32."""
    rng = np.random.default_rng(seed)

    def some_boxes(*shape):
        low = rng.uniform(0, 24, (*shape, 2))
        return jnp.asarray(np.concatenate([low, low + rng.uniform(3, 20, (*shape, 2))], -1), jnp.float32)

    def normal(*shape):
        return jnp.asarray(rng.normal(0, 1.5, shape), jnp.float32)

    labels = rng.integers(0, C, (2, M)).astype(np.int32)
    yes = jnp.asarray(np.arange(M)[None] < np.array([[3], [2]]))
    targets = Targets(some_boxes(2, M), jnp.asarray(labels), yes, ~yes, jnp.zeros(2, jnp.int32))
    return {
        "boxes": some_boxes(2, N),
        "others": some_boxes(2, N),
        "scores": jnp.asarray(rng.permutation(2 * N).reshape(2, N) / (2 * N) + 0.01, jnp.float32),
        "labels": jnp.asarray(rng.integers(0, C, (2, N)).astype(np.int32)),
        "raw": normal(2, N, 4),
        "logits": normal(2, N, C),
        "soft": jnp.asarray(rng.uniform(0, 1, (2, N, C)), jnp.float32),
        "bins": normal(2, N, 4 * BINS),
        "far": jnp.asarray(rng.uniform(0, BINS - 1, (2, N)), jnp.float32),
        "targets": targets,
        "cost": normal(2, M, N),
        "positive": jnp.asarray(rng.random((2, N)) < 0.3),
        "box_maps": [normal(2, v.h, v.w, 4 * BINS) for v in LEVELS],
        "raw_maps": [normal(2, v.h, v.w, 4) for v in LEVELS],
        "class_maps": [normal(2, v.h, v.w, C) for v in LEVELS],
        "anchored_maps": [normal(2, v.h, v.w, 2, 5 + C) for v in LEVELS],
    }


def cells():
    return jnp.broadcast_to(POINTS / STRIDES[:, None] - 0.5, (2, N, 2)), jnp.broadcast_to(STRIDES, (2, N))


SIZES = jnp.full((2, N, 2), 12.0)


def predictions(x):
    return assign.Predictions(x["boxes"], x["logits"], x["far"])


def assigned(x):
    return assign.Assigned(jnp.where(x["positive"], x["labels"], 0), x["positive"], x["far"])


def matched(x):
    return assign.overlap_assign(x["targets"], x["boxes"], low=0.1, high=0.2, keep_best=True)


def sample(x):
    return assign.every_row(matched(x), x["targets"])


def propose(x):
    cut = LEVELS[0].h * LEVELS[0].w
    parts = [(a[:, :cut], a[:, cut:]) for a in (x["scores"], x["raw"], x["others"])]
    anchors = [a[0] for a in parts[2]]
    return coding.select_proposals(*parts[:2], anchors, (32, 40), per_level=9, count=12)


def calls(module, keys, *names):
    """Examples of functions of one module that all take the same arrays."""

    def call(f):
        return lambda x: f(*(x[k] for k in keys))

    return {f"{module.__name__.rpartition('.')[2]}.{name}": call(getattr(module, name)) for name in names}


OVERLAPS = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
FORMATS = ("xywh", "xyxy", "cxcywh")
BOX_LOSSES = (
    "box_iou_loss",
    "squared_box_iou_loss",
    "generalized_box_iou_loss",
    "distance_box_iou_loss",
    "complete_box_iou_loss",
    "scylla_box_iou_loss",
)
PAIR, CLASS = ("boxes", "others"), ("logits", "soft")

STEPS = coding.refinement_steps(7)


def fractions(x, key="boxes"):
    """Boxes (centre x, centre y, width, height) as fractions of an image of 64 pixels."""
    return boxes.xyxy_to_cxcywh(x[key]) / 64


def sides(x):
    """Logits of seven bins for each of four sides."""
    return jnp.concatenate([x["bins"], x["bins"]], axis=-1)[..., : 4 * 7]


def query_outputs(x):
    """One layer of a decoder, with distributions, and denoising queries."""
    corners, references = sides(x)[:, None], fractions(x, "others")
    queries = losses.QuerySet(
        x["logits"][:, None], fractions(x)[:, None], corners, references, x["soft"], fractions(x, "others")
    )
    made = assign.DenoisingQueries(
        fractions(x), x["labels"], jnp.zeros_like(x["labels"]), x["positive"], jnp.where(x["positive"], 0, -1)
    )
    return losses.QueryOutputs(queries, None, queries, made, jnp.full((2, 2), 64.0))


ELEMENTWISE = {
    **calls(boxes, PAIR, *OVERLAPS, *(f"paired_{name}" for name in OVERLAPS), "paired_scylla_box_iou", "crowd_iou"),
    **calls(boxes, ("boxes",), "box_area", *(f"{a}_to_{b}" for a in FORMATS for b in FORMATS if a != b)),
    **calls(losses, PAIR, *BOX_LOSSES),
    **calls(losses, CLASS, "binary_cross_entropy", "focal_loss", "quality_focal_loss", "varifocal_loss"),
    "boxes.normalise_boxes": lambda x: boxes.normalise_boxes(x["boxes"], (32, 40)),
    "boxes.denormalise_boxes": lambda x: boxes.denormalise_boxes(x["boxes"], (32, 40)),
    "boxes.clip_boxes": lambda x: boxes.clip_boxes(x["boxes"], (16, 20)),
    "boxes.remove_small": lambda x: boxes.remove_small(x["boxes"], 8.0),
    "boxes.scale_boxes": lambda x: boxes.scale_boxes(x["boxes"], (2.0, 0.5)),
    "coding.decode": lambda x: coding.decode(x["raw"], *cells(), SIZES),
    "coding.encode": lambda x: coding.encode(x["boxes"], *cells(), SIZES),
    "coding.decode_yolov5": lambda x: coding.decode_yolov5(x["raw"], *cells(), SIZES),
    "coding.encode_yolov5": lambda x: coding.encode_yolov5(x["boxes"], *cells(), SIZES),
    "coding.decode_yolov1": lambda x: coding.decode_yolov1(x["raw"], *cells(), (32, 40)),
    "coding.encode_yolov1": lambda x: coding.encode_yolov1(x["boxes"], *cells(), (32, 40)),
    "coding.decode_yolox": lambda x: coding.decode_yolox(x["raw"], *cells()),
    "coding.encode_yolox": lambda x: coding.encode_yolox(x["boxes"], *cells()),
    "coding.cell_offsets": lambda x: coding.cell_offsets(x["boxes"], *cells(), SIZES),
    "coding.boxes_to_distances": lambda x: coding.boxes_to_distances(POINTS, x["boxes"]),
    "coding.distances_to_boxes": lambda x: coding.distances_to_boxes(POINTS, x["boxes"]),
    "coding.decode_distributions": lambda x: coding.decode_distributions(x["bins"], POINTS, STRIDES),
    "coding.dfl_expectation": lambda x: coding.dfl_expectation(x["bins"]),
    "coding.decode_regions": lambda x: coding.decode_regions(x["raw"], x["boxes"], (10.0, 10.0, 5.0, 5.0)),
    "coding.encode_regions": lambda x: coding.encode_regions(x["others"], x["boxes"]),
    "coding.roi_align": lambda x: coding.roi_align(x["box_maps"][0], x["boxes"], 2, spatial_scale=0.125),
    "coding.pyramid_roi_align": lambda x: coding.pyramid_roi_align(
        x["box_maps"], x["boxes"], (0.125, 0.0625), 2, canonical_size=12.0
    ),
    "coding.refine_boxes": lambda x: coding.refine_boxes(fractions(x), x["raw"]),
    "coding.encode_refinement": lambda x: coding.encode_refinement(fractions(x), fractions(x, "others"), STEPS),
    "coding.refinement_offsets": lambda x: coding.refinement_offsets(sides(x), STEPS),
    "losses.query_varifocal_loss": lambda x: losses.query_varifocal_loss(x["logits"], x["soft"], x["soft"] > 0.5),
    "losses.matching_aware_loss": lambda x: losses.matching_aware_loss(x["logits"], x["soft"], x["soft"] > 0.5),
    "losses.fine_grained_localisation_loss": lambda x: losses.fine_grained_localisation_loss(
        sides(x), fractions(x), fractions(x, "others"), x["far"]
    ),
    "losses.decoupled_distillation_loss": lambda x: losses.decoupled_distillation_loss(
        sides(x), sides(x)[..., ::-1], x["far"], x["positive"]
    ),
    "coding.flatten_levels": lambda x: coding.flatten_levels(x["box_maps"]),
    "losses.distribution_focal_loss": lambda x: losses.distribution_focal_loss(x["bins"], x["far"]),
    "losses.smooth_l1_loss": lambda x: losses.smooth_l1_loss(x["raw"], x["boxes"], beta=0.5),
    "losses.squared_offset_loss": lambda x: losses.squared_offset_loss(x["raw"], x["boxes"], *cells(), SIZES),
    "losses.on_decoded_boxes": lambda x: losses.on_decoded_boxes(losses.box_iou_loss)(
        x["raw"], x["boxes"], *cells(), SIZES
    ),
    "losses.with_class_weights": lambda x: losses.with_class_weights(
        losses.binary_cross_entropy, jnp.array([1.0, 3.0])
    )(x["logits"], x["soft"]),
    "losses.with_label_smoothing": lambda x: losses.with_label_smoothing(losses.focal_loss, 0.1)(
        x["logits"], x["soft"]
    ),
}

ASSIGNERS = {
    "assign.assign_targets": lambda x: assign.assign_targets(x["targets"], LEVELS, ANCHORS, C),
    "assign.best_anchor_assign": lambda x: assign.best_anchor_assign(x["targets"], LEVELS, ANCHORS, iou_thresh=0.3),
    "assign.shape_iou": lambda x: assign.shape_iou(x["boxes"][..., 2:], ANCHORS[0]),
    "assign.ratio_assign": lambda x: assign.ratio_assign(x["targets"], LEVELS, ANCHORS),
    "assign.atss_assign": lambda x: assign.atss_assign(x["targets"], LEVELS, anchor_scale=2.0),
    "assign.simota_assign": lambda x: assign.simota_assign(x["targets"], LEVELS, predictions(x)),
    "assign.task_aligned_assign": lambda x: assign.task_aligned_assign(x["targets"], LEVELS, predictions(x)),
    "assign.responsible_assign": lambda x: assign.responsible_assign(x["targets"], (GRID,), predictions(x)),
    "assign.one_to_one_assign": lambda x: assign.one_to_one_assign(x["targets"], LEVELS, predictions(x)),
    "assign.hungarian_assign": lambda x: assign.hungarian_assign(x["cost"], x["targets"]),
    "assign.least_cost_matching": lambda x: assign.least_cost_matching(x["cost"], jnp.full(2, 2)),
    "assign.matching_cost": lambda x: assign.matching_cost(x["boxes"], x["soft"], x["targets"], (32, 32)),
    "assign.query_cost": lambda x: assign.query_cost(fractions(x), x["logits"], x["targets"], jnp.full((2, 2), 64.0)),
    "assign.denoising_queries": lambda x: assign.denoising_queries(
        jax.random.key(0), x["targets"], (64, 64), C, pairs=5
    ),
    "assign.visible_queries": lambda x: assign.visible_queries(x["labels"], 3),
    "assign.ignored_negatives": lambda x: assign.ignored_negatives(x["boxes"], x["positive"], x["targets"], 0.5),
    "assign.overlap_assign": matched,
    "assign.every_row": sample,
    "assign.balanced_sample": lambda x: assign.balanced_sample(jax.random.key(0), matched(x), x["targets"], 9, 0.5),
    "coding.select_proposals": propose,
    "coding.best_pairs": lambda x: coding.best_pairs(x["boxes"][:, :, None], x["soft"], 7),
    "assign.inside_crowd": lambda x: assign.inside_crowd(x["boxes"], x["targets"]),
    "assign.positives": lambda x: assign.positives(assigned(x)),
    "assign.count_assigned": lambda x: assign.count_assigned(assigned(x), x["targets"], ~x["positive"]),
    "assign.without_padding": lambda x: assign.without_padding(x["targets"]),
    "assign.sort_by_content": lambda x: assign.sort_by_content(x["targets"]),
}

COMPOSED = {
    "losses.yolov8_loss": lambda x: losses.yolov8_loss(x["box_maps"], x["class_maps"], LEVELS, x["targets"], HYPER),
    "losses.yolov10_loss": lambda x: losses.yolov10_loss(
        x["box_maps"], x["class_maps"], x["box_maps"], x["class_maps"], LEVELS, x["targets"], HYPER
    ),
    "losses.yolo26_loss": lambda x: losses.yolo26_loss(
        x["raw_maps"], x["class_maps"], x["raw_maps"], x["class_maps"], LEVELS, x["targets"], HYPER
    ),
    "losses.yolox_loss": lambda x: losses.yolox_loss(
        x["raw_maps"], [m[..., :1] for m in x["class_maps"]], x["class_maps"], LEVELS, x["targets"], HYPER
    ),
    "losses.yolov1_loss": lambda x: losses.yolov1_loss(
        x["logits"][:, :10].reshape(2, 2, 5, C),
        x["far"].reshape(2, 2, 5, 2),
        x["raw"].reshape(2, 2, 5, 2, 4),
        GRID,
        x["targets"],
        HYPER,
    ),
    "losses.yolov5_loss": lambda x: losses.yolov5_loss(
        x["anchored_maps"], LEVELS, ANCHORS, x["targets"], HYPER, balance=(1.0, 0.4)
    ),
    "losses.faster_rcnn_loss": lambda x: losses.faster_rcnn_loss(
        *(x["scores"], x["raw"], x["boxes"], sample(x)),
        *(jnp.pad(x["logits"], ((0, 0), (0, 0), (1, 0))), jnp.stack([x["raw"]] * (C + 1), 2), x["others"], sample(x)),
        HYPER,
    ),
    "losses.retinanet_loss": lambda x: losses.retinanet_loss(x["logits"], x["raw"], x["boxes"][0], x["targets"], HYPER),
    "losses.rtdetr_loss": lambda x: losses.rtdetr_loss(query_outputs(x), x["targets"], HYPER),
    "losses.dfine_loss": lambda x: losses.dfine_loss(query_outputs(x), x["targets"], HYPER),
    "losses.yolov3_loss": lambda x: losses.yolov3_loss(x["anchored_maps"], LEVELS, ANCHORS, x["targets"], HYPER),
}


def of_each_image(f, *keys):
    return lambda x: jax.vmap(f)(*(x[k] for k in keys))


def suppression(name, **thresholds):
    f = getattr(nms, name)
    return {f"nms.{name}": of_each_image(lambda b, s, c: f(b, s, c, 9, **thresholds), "boxes", "scores", "labels")}


SUPPRESSION = {
    "nms.nms": of_each_image(lambda b, s: nms.nms(b, s, 0.4, 9), "boxes", "scores"),
    "nms.batched_nms": of_each_image(lambda b, s, c: nms.batched_nms(b, s, c, 0.4, 9), "boxes", "scores", "labels"),
    **suppression("greedy_nms", iou_threshold=0.4),
    **suppression("diou_nms", diou_threshold=0.4),
    **suppression("fast_nms", iou_threshold=0.4),
    **suppression("cluster_nms", iou_threshold=0.4),
    **suppression("soft_nms_linear"),
    **suppression("wbf"),
    **suppression("soft_nms_gaussian"),
    **suppression("matrix_nms_linear"),
    **suppression("matrix_nms_gaussian"),
    "nms.weighted_box_fusion": lambda x: nms.weighted_box_fusion(x["boxes"], x["scores"], x["labels"], 0.5, 9),
}

PARTS = ELEMENTWISE | ASSIGNERS | COMPOSED | SUPPRESSION
STATIC = {
    "coding.cell_centres",
    "coding.anchor_grid",
    "coding.levels_of",
    "coding.region_anchors",
    "coding.refinement_steps",
    "nms.named_suppression",
}
"""What takes no array that could vary: grids, and functions found by name."""


def public_functions():
    names = {f"boxes.{n}" for n, f in vars(boxes).items() if inspect.isfunction(f) and f.__module__ == boxes.__name__}
    names = {n for n in names if not n.startswith("boxes._")}
    for module in (assign, coding, losses, nms):
        short = module.__name__.rpartition(".")[2]
        names |= {f"{short}.{n}" for n in module.__all__ if inspect.isfunction(getattr(module, n))}
    return names


def test_every_public_function_has_an_example():
    assert public_functions() == set(PARTS) | STATIC


def all_of(parts):
    return lambda x: {name: f(x) for name, f in parts.items()}


def assert_same(got, expected, message=""):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5, err_msg=message)


EAGER = (
    "boxes.complete_box_iou",
    "boxes.paired_scylla_box_iou",
    "boxes.crowd_iou",
    "coding.decode",
    "coding.encode_yolov5",
    "coding.decode_distributions",
    "losses.focal_loss",
    "losses.distribution_focal_loss",
)
"""One of each kind: uncompiled, every operation is dispatched by itself."""


@pytest.mark.parametrize(
    "parts", [ELEMENTWISE, pytest.param(ASSIGNERS, marks=pytest.mark.slow)], ids=["elementwise", "assigners"]
)
def test_compiled_once_mapped_like_a_loop_and_equal_to_eager(parts):
    """Suppression and composed losses have the same laws in files of their own."""
    first, second = inputs(1), inputs(2)
    compiled = jax.jit(all_of(parts))
    expected = [compiled(x) for x in (first, second)]
    assert compiled._cache_size() == 1
    mapped = jax.jit(jax.vmap(all_of(parts)))(jax.tree.map(lambda *a: jnp.stack(a), first, second))
    for i in range(2):
        for name in parts:
            assert_same(jax.tree.map(lambda a, i=i: a[i], mapped[name]), expected[i][name], name)
    for name in set(EAGER) & set(parts):
        assert_same(parts[name](first), expected[0][name], name)


@pytest.mark.parametrize("name", PARTS)
def test_bfloat16_in_float32_out(name):
    """Shapes and types alone; nothing is compiled."""

    def halve(x):
        return jax.ShapeDtypeStruct(x.shape, jnp.bfloat16 if x.dtype == jnp.float32 else x.dtype)

    for leaf in jax.tree.leaves(jax.eval_shape(PARTS[name], jax.tree.map(halve, inputs(0)))):
        assert leaf.dtype != jnp.bfloat16 and leaf.dtype != jnp.float16


def test_second_derivatives_of_box_losses():
    """Newton's method and Hessian-vector products: right on ordinary boxes, finite on empty, inverted and huge ones.

    (Beside a side of 1e-20 they would be of the order of 1e40, which float32 does not hold.)
    """
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (2, 12, 2))
    a, b = np.concatenate([low, low + rng.uniform(8, 30, (2, 12, 2))], -1).astype(np.float32)
    direction = rng.normal(0, 1, a.shape).astype(np.float32)
    special = np.array(
        [[0, 0, 0, 0], [9, 9, 3, 3], [5, 5, 25, 35], [-1e9, -1e9, 1e9, 1e9], [4, 4, 4, 9], [0, 0, 1e-3, 1]], np.float32
    )
    i, j = np.divmod(np.arange(36), 6)

    def slopes(a, b):
        return {
            name: jax.grad(lambda a, f=f: jnp.sum(f(a, b)))(a)
            for name, f in ((n, getattr(losses, n)) for n in BOX_LOSSES)
        }

    @jax.jit
    def first_and_second(a, b, v):
        return jax.jvp(lambda a: slopes(a, b), (a,), (v,))

    _, second = first_and_second(a, b, direction)
    step = 2.0**-6
    high, low = (first_and_second(a + s * direction, b, direction)[0] for s in (np.float32(step), np.float32(-step)))
    for name, got in second.items():
        expected = (np.asarray(high[name], np.float64) - np.asarray(low[name], np.float64)) / (2 * step)
        # CIoU's alpha is a constant of its gradient, but moves in a difference of gradients: as much for both.
        error = np.abs(got - expected) / (np.abs(expected).max() + 1e-6)
        assert np.median(error) < 2e-3, name  # boxes whose edges cross within the step have a kink
    for part in jax.tree.leaves(first_and_second(special[i], special[j], np.ones((36, 4), np.float32))):
        assert np.isfinite(part).all()


def test_second_derivative_of_the_cross_entropy_is_that_of_the_logistic_function():
    x = jnp.linspace(-5, 5, 21)
    second = jax.vmap(jax.grad(jax.grad(losses.binary_cross_entropy)), (0, None))(x, jnp.float32(0.3))
    p = 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    np.testing.assert_allclose(second, p * (1 - p), rtol=1e-5)
