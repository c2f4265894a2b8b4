"""Thresholds, suppression and the choice of the best detections as nodes of an ONNX graph.

It gives what `yolojax.postprocess.postprocess` gives, equal scores included: the same rows in the same order.
"""

from __future__ import annotations

import numpy as np

from yolojax.export._graph import GraphBuilder
from yolojax.export.settings import FileThresholds

NOTHING = -1.0
"""The score of what is not considered: below every confidence."""


def add_detections(
    graph: GraphBuilder, boxes: str, scores: str, n_classes: int, thresholds: FileThresholds, *, multi_label: bool
) -> tuple[str, str, str, str]:
    """Adds the nodes from candidates to detections.

    Args:
      graph: to add to.
      boxes: name of ``[B, N, 4]`` float32, xyxy.
      scores: name of ``[B, N, C]`` float32.
      n_classes: ``C``.
      thresholds: an ``iou`` of None means that nothing is suppressed.
      multi_label: whether a box may be given under several classes.

    Returns:
      Names of boxes ``[B, K, 4]``, scores ``[B, K]``, classes ``[B, K]`` (int32, -1 where there is no detection) and
      count ``[B]`` (int32).
    """
    g, k = graph, thresholds.max_detections
    confidence = np.float32(thresholds.confidence)
    usable = _usable(g, boxes, scores, n_classes, multi_label)
    if thresholds.iou is None:
        rows = _all_that_pass(g, usable, confidence)
    else:
        by_class = g.op("Transpose", usable, perm=[0, 2, 1])
        rows = g.op(
            "NonMaxSuppression",
            boxes,
            by_class,
            g.ints(k),
            g.const(np.array([thresholds.iou], np.float32)),
            # The node compares with > and we with >=.
            g.const(np.array([np.nextafter(confidence, np.float32(-np.inf))], np.float32)),
        )
        # Image, class, box: to the order of our columns.
        rows = g.op("Gather", rows, g.ints(0, 2, 1), axis=1)
    # One row more, which counts for nothing, because some runtimes stumble over arrays without any.
    rows = g.op("Concat", rows, g.const(np.zeros((1, 3), np.int64)), axis=0)
    number = g.op("Slice", g.op("Shape", rows), g.ints(0), g.ints(1))
    last = g.op("Sub", number, g.ints(1))
    positions = g.op("Range", g.const(np.int64(0)), g.op("Squeeze", number, g.ints(0)), g.const(np.int64(1)))
    found = g.op("GatherND", usable, rows)
    found = g.op("Where", g.op("Less", positions, last), found, g.const(np.float32(NOTHING)))

    image, box, label = (g.op("Squeeze", part, g.ints(1)) for part in g.op("Split", rows, outputs=3, axis=1))
    # By candidate and class, then by falling score, then by image: every sort keeps the order of what is equal.
    order = _ascending(g, g.op("Add", g.op("Mul", box, g.const(np.int64(n_classes))), label), number)
    _, falling = g.op("TopK", g.op("Gather", found, order), number, outputs=2, largest=1, sorted=1)
    order = g.op("Gather", order, falling)
    order = g.op(
        "Gather",
        order,
        _ascending(g, g.op("Add", g.op("Mul", g.op("Gather", image, order), number), positions), number),
    )
    image, found = g.op("Gather", image, order), g.op("Gather", found, order)

    # The place of a row within its image: its position less the number of rows of earlier images.
    batch = g.op("Slice", g.op("Shape", boxes), g.ints(0), g.ints(1))
    images = g.op("Range", g.const(np.int64(0)), g.op("Squeeze", batch, g.ints(0)), g.const(np.int64(1)))
    earlier = g.op("Less", g.op("Unsqueeze", image, g.ints(0)), g.op("Unsqueeze", images, g.ints(1)))
    starts = g.op("ReduceSum", g.cast(earlier, np.int64), g.ints(1), keepdims=0)
    place = g.op("Sub", positions, g.op("Gather", starts, image))
    keep = g.op("And", g.op("Less", place, g.const(np.int64(k))), g.op("GreaterOrEqual", found, g.const(np.float32(0))))
    kept = g.op("Squeeze", g.op("NonZero", keep), g.ints(0))

    order, found = g.op("Gather", order, kept), g.op("Gather", found, kept)
    image, place = g.op("Gather", image, kept), g.op("Gather", place, kept)
    where = g.op("Concat", g.op("Unsqueeze", image, g.ints(1)), g.op("Unsqueeze", place, g.ints(1)), axis=1)
    source = g.op("Concat", g.op("Unsqueeze", image, g.ints(1)), _column(g, box, order), axis=1)
    table = g.op("Concat", batch, g.ints(k), axis=0)

    def scattered(updates: str, fill: np.ndarray, shape: str) -> str:
        return g.op("ScatterND", g.op("Expand", g.const(fill), shape), where, updates)

    out_boxes = scattered(
        g.op("GatherND", boxes, source), np.zeros(1, np.float32), g.op("Concat", table, g.ints(4), axis=0)
    )
    out_scores = scattered(found, np.zeros(1, np.float32), table)
    labels = g.cast(g.op("Gather", label, order), np.int32)
    out_classes = scattered(labels, np.full(1, -1, np.int32), table)
    exists = g.op("GreaterOrEqual", out_classes, g.const(np.int32(0)))
    # A Cast at the end would have OpenVINO know the output by the name before it, too.
    count = g.op("ReduceSum", g.cast(exists, np.int32), g.ints(1), keepdims=0)
    return out_boxes, out_scores, out_classes, count


def add_greedy(
    graph: GraphBuilder,
    boxes: str,
    scores: str,
    classes: np.ndarray | None,
    threshold: float,
    valid: str | None,
    count: int,
    n: int,
) -> tuple[str, str]:
    """Adds the nodes of `yolojax.nms.batched_nms` of each image: equal scores go by position.

    Args:
      graph: to add to.
      boxes: name of ``[B, N, 4]`` float32, xyxy.
      scores: name of ``[B, N]`` float32, any real numbers.
      classes: ``[1, N]`` integers, the same for all images; None where boxes of any class suppress each other.
      threshold: IoU above which a box is suppressed.
      valid: name of ``[B, N]`` bool, the rows to consider; None for all of them.
      count: ``K``, how many rows are kept at most.
      n: ``N``.

    Returns:
      Names of indices ``[B, K]`` (int32, 0 where there is none) and of which of them exist ``[B, K]``.
    """
    g, lowest, limit = graph, np.finfo(np.float32).min, graph.const(np.float32(np.inf))
    sums = g.op("ReduceSum", g.op("Abs", boxes), g.ints(2), keepdims=0)
    finite = g.op("And", g.op("Less", sums, limit), g.op("Less", g.op("Abs", scores), limit))
    usable = finite if valid is None else g.op("And", valid, finite)
    scores = g.op("Where", usable, scores, g.const(lowest))
    labels = np.zeros((1, n), np.int64) if classes is None else classes
    own = labels[:, None, :] == np.unique(labels)[None, :, None]
    rows = g.op(
        "NonMaxSuppression",
        boxes,
        g.op("Where", g.const(own), g.op("Unsqueeze", scores, g.ints(1)), g.const(lowest)),
        g.ints(count),
        g.const(np.array([threshold], np.float32)),
        g.const(np.array([lowest], np.float32)),
    )
    # One row more, of a column that is cut off, because some runtimes stumble over arrays without any.
    places = g.op("Gather", rows, g.ints(0, 2), axis=1)
    places = g.op("Concat", places, g.const(np.array([[0, n]], np.int64)), axis=0)
    batch = g.op("Slice", g.op("Shape", boxes), g.ints(0), g.ints(1))
    empty = g.op("Expand", g.const(np.zeros(1, np.float32)), g.op("Concat", batch, g.ints(n + 1), axis=0))
    ones = g.op("Expand", g.const(np.ones(1, np.float32)), g.op("Slice", g.op("Shape", places), g.ints(0), g.ints(1)))
    kept = g.op("Slice", g.op("ScatterND", empty, places, ones), g.ints(0), g.ints(n), g.ints(1))
    kept = g.op("Where", g.op("Greater", kept, g.const(np.float32(0))), scores, g.const(lowest))
    best, at = g.op("TopK", kept, g.ints(min(count, n)), outputs=2, axis=1)
    exists = g.op("Greater", best, g.const(lowest))
    indices = g.op("Where", exists, g.cast(at, np.int32), g.const(np.int32(0)))
    if count > n:
        pads = g.ints(0, 0, 0, count - n)
        indices = g.op("Pad", indices, pads, g.const(np.int32(0)), mode="constant")
        numbers = g.op("Pad", g.cast(exists, np.int32), pads, g.const(np.int32(0)), mode="constant")
        exists = g.cast(numbers, np.bool_)
    return indices, exists


def _usable(g: GraphBuilder, boxes: str, scores: str, n_classes: int, multi_label: bool) -> str:
    """The scores that count: finite, of finite boxes, and without ``multi_label`` of the best class of a box."""
    limit = g.const(np.float32(np.inf))
    nothing = g.const(np.float32(NOTHING))
    # What is not a number is not below infinity either.
    finite = g.op("Less", g.op("Abs", scores), limit)
    scores = g.op("Where", finite, scores, nothing)
    sums = g.op("ReduceSum", g.op("Abs", boxes), g.ints(2), keepdims=1)
    scores = g.op("Where", g.op("Less", sums, limit), scores, nothing)
    if multi_label or n_classes == 1:
        return scores
    best = g.op("ArgMax", scores, axis=2, keepdims=1, select_last_index=0)
    own = g.op("Equal", best, g.const(np.arange(n_classes, dtype=np.int64).reshape(1, 1, -1)))
    return g.op("Where", own, scores, nothing)


def _all_that_pass(g: GraphBuilder, scores: str, confidence: np.float32) -> str:
    """Image, box and class of every score from ``confidence`` on, ``[M, 3]``."""
    passes = g.op("GreaterOrEqual", scores, g.const(confidence))
    return g.op("Transpose", g.op("NonZero", passes), perm=[1, 0])


def _ascending(g: GraphBuilder, keys: str, number: str) -> str:
    """The indices that sort int64 keys, all of which differ or whose order does not matter."""
    _, order = g.op("TopK", keys, number, outputs=2, axis=0, largest=0, sorted=1)
    return order


def _column(g: GraphBuilder, values: str, order: str) -> str:
    return g.op("Unsqueeze", g.op("Gather", values, order), g.ints(1))
