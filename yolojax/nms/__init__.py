"""Non-maximum suppression of fixed size, compiled and mapped like any other array function.

`nms` and `batched_nms` are the greedy rule by torchvision's names. All kinds, the greedy one included, also share one
interface, `Suppression`: ``f(boxes, scores, classes, max_detections, *, valid) -> (indices, valid, scores)``.
"""

from yolojax.nms.cluster import cluster_nms, fast_nms
from yolojax.nms.fusion import Fused, weighted_box_fusion
from yolojax.nms.greedy import batched_nms, diou_nms, greedy_nms, nms
from yolojax.nms.kept import Kept, Rescored, Suppression
from yolojax.nms.matrix import matrix_nms_gaussian, matrix_nms_linear
from yolojax.nms.soft import soft_nms_gaussian, soft_nms_linear

__all__ = [
    "Fused",
    "Kept",
    "Rescored",
    "Suppression",
    "batched_nms",
    "cluster_nms",
    "diou_nms",
    "fast_nms",
    "greedy_nms",
    "matrix_nms_gaussian",
    "matrix_nms_linear",
    "nms",
    "soft_nms_gaussian",
    "soft_nms_linear",
    "weighted_box_fusion",
]
