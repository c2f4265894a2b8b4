"""Non-maximum suppression of fixed size, compiled and mapped like any other array function.

`nms` and `batched_nms` are greedy suppression under torchvision's names. All kinds, greedy suppression included, share
the interface `Suppression`: ``f(boxes, scores, classes, max_detections, *, valid) -> Kept``, or `Rescored` or `Merged`
where scores or boxes change. Every function that detects takes one of them as ``suppress``:

    from functools import partial
    from yolojax.nms import soft_nms_gaussian

    predictor = yolojax.load("runs/mine", suppress=partial(soft_nms_gaussian, sigma=0.3))
"""

from yolojax.nms._fusion import Fused, wbf, weighted_box_fusion
from yolojax.nms._matrix import cluster_nms, fast_nms, matrix_nms_gaussian, matrix_nms_linear
from yolojax.nms._soft import soft_nms_gaussian, soft_nms_linear
from yolojax.nms.greedy import batched_nms, diou_nms, greedy_nms, nms
from yolojax.nms.named import named_suppression
from yolojax.nms.protocol import Kept, Merged, Rescored, Suppression

__all__ = [
    "Fused",
    "Kept",
    "Merged",
    "Rescored",
    "Suppression",
    "batched_nms",
    "cluster_nms",
    "diou_nms",
    "fast_nms",
    "greedy_nms",
    "matrix_nms_gaussian",
    "matrix_nms_linear",
    "named_suppression",
    "nms",
    "soft_nms_gaussian",
    "soft_nms_linear",
    "wbf",
    "weighted_box_fusion",
]
