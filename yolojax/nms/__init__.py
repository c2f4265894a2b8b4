"""Non-maximum suppression of fixed size, compiled and mapped like any other array function."""

from yolojax.nms.greedy import Kept, batched_nms, nms

__all__ = ["Kept", "batched_nms", "nms"]
