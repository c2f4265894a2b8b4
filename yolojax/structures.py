"""The pytrees that all parts exchange: fixed size, padded, with an explicit mask.

Boxes are ``(x1, y1, x2, y2)`` in float32, absolute pixels of the input image, unless a docstring says otherwise. Images
are NHWC. Only the mask says which rows are padding, never special coordinates or scores.

``B`` is the batch size, ``M`` the padded number of objects, ``N`` the number of candidate predictions, ``C`` the number
of classes and ``K`` the number of detections kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8


class Level(NamedTuple):
    """The grid of one prediction level: ``h`` rows and ``w`` columns of cells, each ``stride`` input pixels wide."""

    h: int
    w: int
    stride: int


class Targets(NamedTuple):
    """Ground truth of a batch, padded to ``M`` objects an image.

    Rows where ``valid`` is False hold arbitrary content that no function may read. ``crowd`` marks regions that are
    neither object nor background. ``dropped`` counts the objects of each image that did not fit into ``M``.
    """

    boxes: Float[Array, "B M 4"]
    classes: Int[Array, "B M"]
    valid: Bool[Array, "B M"]
    crowd: Bool[Array, "B M"]
    dropped: Int[Array, " B"]


class Batch(NamedTuple):
    """What a training step reads: RGB images resized to the input size, and their objects."""

    images: UInt8[Array, "B H W 3"]
    targets: Targets


class Hyper(NamedTuple):
    """Traced hyper-parameters, float32 scalars: changing one never recompiles.

    ``lambda_*`` weigh the parts of a loss (each detector documents which it reads); ``ignore_iou`` is the overlap above
    which a negative prediction carries no objectness loss. ``learning_rate`` and ``weight_decay`` have the defaults of
    `yolojax.config.OptimiserConfig`, whose ``decay`` says what the second means. The defaults of the four lambdas of
    the lesson's loss are those of YOLOv1 (arXiv 1506.02640, section 2.2). ``progress`` is no setting: the training step
    sets it to the share of the run that has passed, from 0 to below 1, for losses that change on the way.
    """

    lambda_coord: float | Float[Array, ""] = 5.0
    lambda_obj: float | Float[Array, ""] = 1.0
    lambda_noobj: float | Float[Array, ""] = 0.5
    lambda_cls: float | Float[Array, ""] = 1.0
    lambda_dfl: float | Float[Array, ""] = 1.5
    lambda_l1: float | Float[Array, ""] = 0.0
    ignore_iou: float | Float[Array, ""] = 0.7
    learning_rate: float | Float[Array, ""] = 2e-3
    weight_decay: float | Float[Array, ""] = 0.05
    progress: float | Float[Array, ""] = 0.0


class LossTerms(NamedTuple):
    """An unreduced loss: what accumulation, several devices and per-example losses need to be exact.

    ``sums[part]`` holds per-image sums, already weighed by the lambdas, and ``normalisers[part]`` the per-image share
    of the divisor. The total over any set of images is ``sum_part sum_b sums / max(sum_b normalisers, 1)``, which
    `reduce` computes.
    ``counts`` are per-image diagnostics that carry no gradient (positives, unassigned, ignored).
    """

    sums: dict[str, Float[Array, " B"]]
    normalisers: dict[str, Float[Array, " B"]]
    counts: dict[str, Float[Array, " B"]]

    def reduce(self) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The scalar loss of these images and its parts: one division per part, by at least 1."""
        parts = {k: jnp.sum(v) / jnp.maximum(jnp.sum(self.normalisers[k]), 1.0) for k, v in self.sums.items()}
        return sum(parts.values(), start=jnp.float32(0)), parts


class Candidates(NamedTuple):
    """Decoded predictions before any threshold. ``scores`` are final: objectness times class where there is one."""

    boxes: Float[Array, "B N 4"]
    scores: Float[Array, "B N C"]


class Detections(NamedTuple):
    """Detections after threshold and suppression: ``K`` rows for each image, the valid ones first, by falling score.

    Padding rows hold box 0, score 0, class -1 and ``valid`` False. ``truncated_candidates`` counts what passed the
    score threshold but not the top-k before suppression; ``truncated`` what suppression kept beyond ``K``.
    """

    boxes: Float[Array, "B K 4"]
    scores: Float[Array, "B K"]
    classes: Int[Array, "B K"]
    valid: Bool[Array, "B K"]
    truncated_candidates: Int[Array, " B"]
    truncated: Int[Array, " B"]


def hyper_as_arrays(hyper: Hyper) -> Hyper:
    """The same values as float32 arrays, so that `jit` traces them instead of baking them in."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hyper)
