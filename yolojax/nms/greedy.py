"""Greedy non-maximum suppression of fixed size.

The algorithm is the textbook's (R. Girshick et al., arXiv 1311.2524, section 2.2)::

    kept = []
    for box in boxes by falling score:
        if no kept box of its class overlaps it by more than the threshold:
            kept.append(box)

This file reads from top to bottom: the public functions; `keep_mask`, which chooses a formulation for the platform that
a program is compiled for; the overlap of two boxes; and the two formulations. Both give exactly what the loop gives.
`keep_by_tiles` suits CPUs: it takes 32 boxes at a time and compares them with the boxes kept so far. `keep_by_blocks`
suits accelerators: it takes 256 boxes of every image of a batch at a time and repeats a parallel step until nothing
changes.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int, UInt32

from yolojax.boxes import LARGEST, box_area
from yolojax.nms.protocol import Kept, Rescored, check_classes, usable_rows
from yolojax.nms.sorting import ascending_order, bits, first_true, score_keys
from yolojax.processor.platform import by_platform

TILE = 32
"""Rows of a tile: one bit each of a 32-bit mask, and the longest reduction that XLA:CPU fuses with its input."""

BLOCK = 256
"""Rows of a block: a power of two that divides the work into few steps and wastes little on short lists."""

_UNROLL = 4
"""Rounds between two tests of convergence, because every test makes the host wait for the device."""


def nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    *,
    valid: Bool[Array, " N"] | None = None,
) -> Kept:
    """Greedy suppression of boxes of any class; returns the best ``max_detections`` of the boxes that it keeps.

    A box is suppressed when its IoU with a kept box of higher score exceeds the threshold. An IoU that equals the
    threshold suppresses nothing. Of equal scores the lower index goes first. A row with a NaN or infinite coordinate
    or score is never kept and suppresses nothing.

    The function may be compiled, and mapped over images by `jax.vmap`. On a CPU it computes the overlaps of every row
    with the rows kept before it, and stops when ``max_detections`` are kept; elsewhere it computes the overlaps of
    every row with all rows before it.

    Args:
      boxes: xyxy, any unit; not clipped.
      scores: any real numbers.
      iou_threshold: 0 to 1, traced: a new value does not recompile. It is compared in float32.
      max_detections: ``K``, static; may exceed ``N``.
      valid: rows to consider; all by default.

    Raises:
      ConfigError: if ``max_detections`` is below 1.
    """
    return suppress_by_iou(boxes, scores, None, iou_threshold, max_detections, valid)


def batched_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"],
    iou_threshold: float | Float[Array, ""],
    max_detections: int,
    *,
    valid: Bool[Array, " N"] | None = None,
) -> Kept:
    """Greedy suppression within each class; returns the best ``max_detections`` of the boxes that it keeps.

    It differs from `nms` in that boxes of different ``classes`` (any integers) never suppress each other. The classes
    are compared, and the boxes are not moved apart by class, so that no coordinate loses precision.
    """
    return suppress_by_iou(boxes, scores, classes, iou_threshold, max_detections, valid)


def greedy_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    iou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """`nms` or `batched_nms` with the interface that all kinds share, `yolojax.nms.Suppression`."""
    kept = suppress_by_iou(boxes, scores, classes, iou_threshold, max_detections, valid)
    return _with_scores(kept, scores)


def diou_nms(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    max_detections: int,
    *,
    diou_threshold: float | Float[Array, ""],
    valid: Bool[Array, " N"] | None = None,
) -> Rescored:
    """Greedy suppression by DIoU, which keeps overlapping boxes whose centres lie apart (DIoU-NMS, arXiv 1911.08287).

    A box is suppressed when ``IoU - d^2 / c^2`` with a better box exceeds ``diou_threshold`` (0 to 1): ``d`` is the
    distance of the centres and ``c`` the diagonal of the smallest box around both. The paper also drops a box on the
    threshold.
    """
    kept = _greedy(boxes, scores, classes, diou_threshold, max_detections, valid, overlaps=overlaps_by_distance)
    return _with_scores(kept, scores)


class Rows(NamedTuple):
    """Boxes in the order in which they are considered, each coordinate in an array of its own, to fill vector lanes.

    ``classes`` is None where boxes suppress each other whatever their class.
    """

    x1: Float[Array, "*n"]
    y1: Float[Array, "*n"]
    x2: Float[Array, "*n"]
    y2: Float[Array, "*n"]
    area: Float[Array, "*n"]
    classes: Int[Array, "*n"] | None

    @classmethod
    def of(cls, boxes: Float[Array, "*n 4"], classes: Int[Array, "*n"] | None) -> Rows:
        # Which boxes are kept has no gradient; loops could not pass one back.
        boxes = jnp.clip(lax.stop_gradient(boxes).astype(jnp.float32), -LARGEST, LARGEST)
        x1, y1, x2, y2 = jnp.moveaxis(boxes, -1, 0)
        return cls(x1, y1, x2, y2, box_area(boxes), classes)

    def map(self, f) -> Rows:
        """``f`` of every array."""
        return jax.tree.map(f, self)


@runtime_checkable
class Overlap(Protocol):
    """Whether each pair of boxes overlaps by more than the threshold, whatever the classes; arguments broadcast."""

    def __call__(self, a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]: ...


def suppresses(a: Rows, b: Rows, threshold: Float[Array, "*_b"], overlaps: Overlap) -> Bool[Array, "*_b"]:
    """Whether each pair overlaps too much and is of one class; arguments broadcast. Coordinates must be finite."""
    over = overlaps(a, b, threshold)
    return over if a.classes is None else over & (a.classes == b.classes)


def overlaps_by_area(a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]:
    """``IoU > threshold``.

    The arithmetic is that of `yolojax.boxes.box_iou` on areas computed beforehand: a correctly rounded quotient, so
    that an IoU that equals the threshold as a number also equals it in float32 and suppresses nothing.
    """
    return _iou(a, b) > threshold


def overlaps_by_distance(a: Rows, b: Rows, threshold: Float[Array, "*_b"]) -> Bool[Array, "*_b"]:
    """``DIoU > threshold``: IoU less the squared distance of the centres over the squared diagonal of the hull."""
    dx, dy = a.x1 - b.x1 + (a.x2 - b.x2), a.y1 - b.y1 + (a.y2 - b.y2)
    width, height = _larger(a.x2, b.x2) - _smaller(a.x1, b.x1), _larger(a.y2, b.y2) - _smaller(a.y1, b.y1)
    diagonal = width * width + height * height
    return _iou(a, b) - 0.25 * (dx * dx + dy * dy) / jnp.where(diagonal > 0, diagonal, 1.0) > threshold


def _iou(a: Rows, b: Rows) -> Float[Array, "*_b"]:
    width, height = _smaller(a.x2, b.x2) - _larger(a.x1, b.x1), _smaller(a.y2, b.y2) - _larger(a.y1, b.y1)
    # The select keeps compilers from fusing the product into the difference below (see yolojax.boxes).
    inter = jnp.where((width > 0) & (height > 0), width * height, 0.0)
    union = a.area + b.area - inter
    return inter / jnp.where(union > 0, union, 1.0)


# Selects instead of jnp.minimum and jnp.maximum, which take half as long again on a CPU to pass on NaN.


def _smaller(a: Float[Array, "*_b"], b: Float[Array, "*_b"]) -> Float[Array, "*_b"]:
    return jnp.where(a < b, a, b)


def _larger(a: Float[Array, "*_b"], b: Float[Array, "*_b"]) -> Float[Array, "*_b"]:
    return jnp.where(a > b, a, b)


@partial(jax.jit, static_argnames="max_detections")
def suppress_by_iou(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    threshold: float | Float[Array, ""],
    max_detections: int,
    valid: Bool[Array, " N"] | None,
) -> Kept:
    """`batched_nms` as a function with a name in a traced program, by which the export to ONNX finds it."""
    return _greedy(boxes, scores, classes, threshold, max_detections, valid)


def _greedy(
    boxes: Float[Array, "N 4"],
    scores: Float[Array, " N"],
    classes: Int[Array, " N"] | None,
    threshold: float | Float[Array, ""],
    max_detections: int,
    valid: Bool[Array, " N"] | None,
    overlaps: Overlap = overlaps_by_area,
) -> Kept:
    check_classes(classes, scores)
    usable = usable_rows(boxes, scores, valid, max_detections)
    order = ascending_order(score_keys(scores, usable))
    rows = Rows.of(boxes[order], None if classes is None else classes[order])
    keep = keep_mask(rows, usable.sum(), threshold, limit=max_detections, overlaps=overlaps)
    positions, kept = first_true(keep, max_detections)
    return Kept(jnp.where(kept, order[positions], 0) if len(order) else positions, kept)


def _with_scores(kept: Kept, scores: Float[Array, " N"]) -> Rescored:
    found = scores[kept.indices].astype(jnp.float32) if len(scores) else jnp.zeros(len(kept.indices), jnp.float32)
    return Rescored(*kept, jnp.where(kept.valid, found, 0.0))


def keep_mask(
    rows: Rows,
    count: Int[Array, ""],
    threshold: float | Float[Array, ""],
    *,
    limit: int | None = None,
    n_classes: int | None = None,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """Which of the first ``count`` rows greedy suppression keeps, in the order given; exact on every platform.

    With a ``limit`` it may stop once that many are kept. Without one, and with classes known to be
    ``0 .. n_classes - 1``, a CPU takes one class after the other. Under `jax.vmap` the images are processed one after
    another on a CPU, where a mapped loop would run every image for as long as the slowest, and all at once elsewhere.
    """
    if rows.x1.shape[0] == 0:
        return jnp.zeros(0, bool)
    count, threshold = jnp.asarray(count, jnp.int32)[None], lax.stop_gradient(jnp.asarray(threshold, jnp.float32))[None]
    return _batched(limit, n_classes, overlaps)(rows.map(lambda x: x[None]), count, threshold)[0]


def _batched(limit: int | None, n_classes: int | None, overlaps: Overlap):
    """Suppression of a batch, ``[B, n] -> [B, n]``; under `jax.vmap` the mapped axis becomes part of the batch."""

    if limit is None and n_classes is not None:
        one_image = partial(keep_class_by_class, n_classes=n_classes, overlaps=overlaps)
    else:
        one_image = partial(keep_by_tiles, limit=limit, by_class=False, overlaps=overlaps)

    @custom_vmap
    def keep(rows: Rows, count: Int[Array, " B"], threshold: Float[Array, " B"]) -> Bool[Array, "B n"]:
        return by_platform(
            rows,
            count,
            threshold,
            cpu=lambda *images: lax.map(lambda image: one_image(*image), images),
            default=partial(keep_by_blocks, limit=limit, overlaps=overlaps),
        )

    @keep.def_vmap
    def grow(size, mapped, *args):
        args = jax.tree.map(lambda x, m: x if m else jnp.broadcast_to(x, (size, *x.shape)), args, tuple(mapped))
        merged = keep(*jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), args))
        return merged.reshape(size, -1, merged.shape[-1]), True

    return keep


class _Packed(NamedTuple):
    """`Rows` whose coordinates and areas lie in one array.

    One array makes a step of the loop few operations. On a CPU the runtime distributes a step of many operations on
    more than a few hundred bytes over several threads, which costs more than the work: .18 ms instead of .06 for 100
    boxes.
    """

    numbers: Float[Array, "5 n"]
    classes: Int[Array, " n"] | None

    def tile(self, index: Int[Array, ""]) -> Rows:
        """The rows of one tile."""
        start = index * TILE
        numbers = lax.dynamic_slice(self.numbers, (0, start), (5, TILE))
        classes = None if self.classes is None else lax.dynamic_slice(self.classes, (start,), (TILE,))
        return Rows(*(numbers[i] for i in range(5)), classes)  # pyright: ignore[reportCallIssue]


class _State(NamedTuple):
    tile: Int[Array, ""]
    kept: _Packed
    n_kept: Int[Array, ""]
    keep: Bool[Array, " n"]


def keep_by_tiles(
    rows: Rows,
    count: Int[Array, ""],
    threshold: Float[Array, ""],
    *,
    limit: int | None,
    by_class: bool,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """Which of the first ``count`` rows greedy suppression keeps, of one image, on a CPU.

    The textbook loop reads all rows for every box that it keeps. This one takes the rows 32 at a time. Each tile is
    first compared with the boxes kept so far, 32 x 32 pairs at once, and then suppresses within itself by 32 steps on
    bit masks. Only pairs of a row and an earlier *kept* box are computed, and the pairs fill vector lanes.

    Args:
      rows: boxes in the order in which they are considered, ``[n]``.
      count: how many rows there are; those behind are padding.
      threshold: float32; an overlap above it suppresses.
      limit: stop when at least this many are kept; rows behind the last tile read count as not kept.
      by_class: whether rows are sorted by class first. Then tiles of earlier classes need no comparison.
    """
    n = rows.x1.shape[0]
    padded = -(-n // TILE) * TILE
    packed = _pack(rows.map(lambda x: jnp.pad(x, (0, padded - n))))
    earlier = jnp.triu(jnp.ones((TILE, TILE), bool), 1)
    bit = bits(TILE)

    def take_tile(state: _State) -> _State:
        start = state.tile * TILE
        tile = packed.tile(state.tile)
        alive = start + jnp.arange(TILE) < count

        def compare(carry):
            i, alive = carry
            block = state.kept.tile(i)
            hit = suppresses(block.map(lambda x: x[:, None]), tile.map(lambda x: x[None]), threshold, overlaps)
            # Slots behind the end of the list hold empty boxes, which overlap nothing.
            return i - 1, alive & ~hit.any(0)

        def more(carry):
            i, _ = carry
            if not by_class or tile.classes is None or state.kept.classes is None:
                return i >= 0
            # The list is sorted by class as well: stop at the first block that ends before the tile's first class.
            last = jnp.minimum((i + 1) * TILE, state.n_kept) - 1
            return (i >= 0) & (state.kept.classes[jnp.maximum(last, 0)] >= tile.classes[0])

        _, alive = lax.while_loop(more, compare, ((state.n_kept - 1) // TILE, alive))
        within = suppresses(tile.map(lambda x: x[:, None]), tile.map(lambda x: x[None]), threshold, overlaps) & earlier
        kept_bits = _suppress_within_tile(within, alive)
        kept_here = (kept_bits & bit) != 0

        rank = lax.population_count(kept_bits & (bit - 1)).astype(jnp.int32)
        slot = jnp.where(kept_here, state.n_kept + rank, padded)
        kept = jax.tree.map(
            lambda old, new: old.at[..., slot].set(new, mode="drop", unique_indices=True), state.kept, _pack(tile)
        )
        keep = lax.dynamic_update_slice(state.keep, kept_here, (start,))
        n_kept = state.n_kept + lax.population_count(kept_bits).astype(jnp.int32)
        return _State(state.tile + 1, kept, n_kept, keep)

    def unfinished(state: _State):
        going = state.tile * TILE < count
        return going if limit is None else going & (state.n_kept < limit)

    zero = jnp.zeros_like(count)
    start = _State(zero, jax.tree.map(jnp.zeros_like, packed), zero, jnp.zeros_like(packed.numbers[0], dtype=bool))
    return lax.while_loop(unfinished, take_tile, start).keep[:n]


def _pack(rows: Rows) -> _Packed:
    return _Packed(jnp.stack(rows[:5]), rows.classes)


def keep_class_by_class(
    rows: Rows,
    count: Int[Array, ""],
    threshold: Float[Array, ""],
    *,
    n_classes: int,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, " n"]:
    """As `keep_by_tiles` without a limit, for rows with classes ``0 .. n_classes - 1`` in any order.

    The rows are sorted by class first, so that only pairs of one class are computed, and put back afterwards.
    """
    assert rows.classes is not None
    alive = jnp.arange(rows.classes.shape[0]) < count
    order = ascending_order(jnp.where(alive, rows.classes, n_classes).astype(jnp.uint32), n_classes.bit_length())
    keep = keep_by_tiles(rows.map(lambda x: x[order]), count, threshold, limit=None, by_class=True, overlaps=overlaps)
    return jnp.zeros_like(keep).at[order].set(keep, unique_indices=True)


def _suppress_within_tile(within: Bool[Array, "t t"], alive: Bool[Array, " t"]) -> UInt32[Array, ""]:
    """Greedy suppression inside a tile; returns a mask with one bit for each row that is kept.

    ``within[i, j]`` says that row i, if it is kept, suppresses the later row j.
    """
    bit = bits(TILE)
    suppressors = jnp.sum(jnp.where(within, bit[:, None], 0), axis=0, dtype=jnp.uint32)
    alive_bits = jnp.sum(jnp.where(alive, bit, 0), dtype=jnp.uint32)

    # A loop, although it could be written out: XLA would repeat those steps inside every use of the result.
    def step(row, kept):
        free = (suppressors[row] & kept) == 0
        return kept | jnp.where(free, alive_bits & bit[row], jnp.uint32(0))

    return lax.fori_loop(0, TILE, step, jnp.zeros_like(alive_bits))


def keep_by_blocks(
    rows: Rows,
    count: Int[Array, " B"],
    threshold: Float[Array, " B"],
    *,
    limit: int | None,
    overlaps: Overlap = overlaps_by_area,
) -> Bool[Array, "B n"]:
    """Which of the first ``count`` rows of every image greedy suppression keeps, for all images at once.

    Each block is first compared with every row kept before it. What is left is then resolved within the block by
    iterating ``keep = alive and not suppressed by keep`` from ``keep = alive``. Row j is final once all rows before it
    are, so that the iteration reaches the greedy answer in at most as many rounds as a block has rows, and in practice
    in as many as the longest chain of boxes that each suppress the next (Cluster-NMS, arXiv 2005.03572, does so with
    all rows at once).

    Args:
      rows: boxes in the order in which they are considered, ``[B, n]``.
      count: how many rows an image has; those behind are padding.
      threshold: float32; an overlap above it suppresses.
      limit: stop when every image has kept at least this many; rows behind count as not kept.
    """
    n = rows.x1.shape[1]
    size = min(BLOCK, max(n, 1))
    padded = -(-n // size) * size
    rows = rows.map(lambda x: jnp.pad(x, ((0, 0), (0, padded - n))))
    earlier = jnp.triu(jnp.ones((1, size, size), bool), 1)
    column, row = (lambda x: x[:, :, None]), (lambda x: x[:, None, :])
    threshold = threshold[:, None, None]

    def take_block(state: tuple[Int[Array, ""], Bool[Array, "B p"]]):
        i, keep = state
        start = i * size
        block = rows.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, 1))
        alive = start + jnp.arange(size)[None] < count[:, None]
        hit = suppresses(rows.map(column), block.map(row), threshold, overlaps) & keep[:, :, None]
        alive &= ~hit.any(1)
        within = suppresses(block.map(column), block.map(row), threshold, overlaps) & earlier
        return i + 1, lax.dynamic_update_slice_in_dim(keep, _fixed_point(within, alive), start, 1)

    def unfinished(state: tuple[Int[Array, ""], Bool[Array, "B p"]]):
        i, keep = state
        going = i * size < count
        if limit is not None:
            going &= jnp.sum(keep, axis=1) < limit
        return going.any()

    start = jnp.zeros_like(count, shape=()), jnp.zeros_like(rows.x1, dtype=bool)
    return lax.while_loop(unfinished, take_block, start)[1][:, :n]


def _fixed_point(within: Bool[Array, "B t t"], alive: Bool[Array, "B t"]) -> Bool[Array, "B t"]:
    def round_(keep):
        return alive & ~(within & keep[:, :, None]).any(1)

    def rounds(state):
        previous, _ = state
        for _ in range(_UNROLL - 1):
            previous = round_(previous)
        keep = round_(previous)
        return keep, jnp.any(previous != keep)

    return lax.while_loop(lambda state: state[1], rounds, (alive, jnp.ones_like(alive, shape=())))[0]
