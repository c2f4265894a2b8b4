"""Heads: modules that turn the features of each level into raw predictions. The record's ``decode`` decodes them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features
from yolojax.models.layers import Conv, ConvBNAct, Style
from yolojax.models.yolox import SpatialConv


class YOLOHead(nn.Module):
    """One 1x1 convolution a level, giving ``tx, ty, tw, th, objectness, classes`` for each anchor of each cell.

    ``num_anchors`` is per level. The objectness bias starts where its sigmoid is ``prior``, so that the many cells
    without an object do not swamp the first steps (arXiv 1708.02002, section 4.1).
    """

    num_anchors: int
    num_classes: int
    prior: float = 0.01
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w A P"], ...]:
        size = 5 + self.num_classes
        logit = math.log(self.prior / (1 - self.prior))

        def bias_init(key, shape, dtype):
            return jnp.zeros((self.num_anchors, size), dtype).at[:, 4].set(logit).reshape(shape)

        out = []
        for i, x in enumerate(features):
            conv = Conv(
                self.num_anchors * size, use_bias=True, bias_init=bias_init, dtype=self.style.dtype, name=f"predict{i}"
            )
            out.append(conv(x).reshape(*x.shape[:3], self.num_anchors, size).astype(jnp.float32))
        return tuple(out)


class LevelPrediction(NamedTuple):
    """Raw predictions of an anchor-free head at one level, float32.

    ``box`` are the logits of ``reg_max`` bins for the distances to left, top, right and bottom (arXiv 2006.04388),
    side by side; ``cls`` class logits.
    """

    box: Float[Array, "B h w R"]
    cls: Float[Array, "B h w C"]


class AnchorFreeHead(nn.Module):
    """One prediction a cell: distances to four sides, each over ``reg_max`` bins, and class logits, no objectness.

    ``depth`` 3x3 convolutions of ``box_width`` (``cls_width``) channels lead to the boxes (classes): the decoupled head
    of arXiv 2107.08430. ``shared`` is the light form: one branch of ``box_width`` channels leads to both. ``depthwise``
    splits every 3x3 convolution that leads to the classes into one per channel and a 1x1 convolution, as in YOLOv10
    (arXiv 2405.14458, section 3.2, "lightweight classification head") and YOLO11. The convolutions that lead to the
    boxes, but for the first, have ``box_groups`` groups: one for each side with 4, as in YOLOv9 (arXiv 2402.13616).

    The box bias starts at 1 and the class bias where ``objects`` objects of any class are expected on the
    ``input_size`` (height, width), as in YOLOv8's recipe (there: 5 on 640 x 640).
    """

    num_classes: int
    strides: tuple[int, ...]
    input_size: tuple[int, int]
    reg_max: int = 16
    box_width: int = 64
    cls_width: int = 64
    depth: int = 2
    shared: bool = False
    objects: float = 5.0
    style: Style = Style()
    depthwise: bool = False
    box_groups: int = 1

    def _branch(self, x: Array, train: bool, width: int, name: str, depthwise: bool = False, groups: int = 1) -> Array:
        for j in range(self.depth):
            if depthwise:
                x = SpatialConv(width, 1, True, self.style, name=f"{name}{j}")(x, train)
            else:
                x = ConvBNAct(width, 3, groups=groups if j else 1, style=self.style, name=f"{name}{j}")(x, train)
        return x

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[LevelPrediction, ...]:
        out = []
        for i, (x, stride) in enumerate(zip(features, self.strides, strict=True)):
            cells = (self.input_size[0] / stride) * (self.input_size[1] / stride)
            prior = math.log(self.objects / self.num_classes / cells)
            box = self._branch(x, train, self.box_width, f"level{i}_box", groups=self.box_groups)
            cls = box if self.shared else self._branch(x, train, self.cls_width, f"level{i}_cls", self.depthwise)
            predict = {"use_bias": True, "dtype": self.style.dtype}
            ones, groups = nn.initializers.ones, self.box_groups
            box = Conv(4 * self.reg_max, groups=groups, bias_init=ones, name=f"level{i}_predict_box", **predict)(box)
            cls = Conv(
                self.num_classes, bias_init=nn.initializers.constant(prior), name=f"level{i}_predict_cls", **predict
            )(cls)
            out.append(LevelPrediction(box.astype(jnp.float32), cls.astype(jnp.float32)))
        return tuple(out)


class PairPrediction(NamedTuple):
    """Raw predictions of a `PairedHead`: those of each of its two heads, one `LevelPrediction` for each level."""

    one_to_many: tuple[LevelPrediction, ...]
    one_to_one: tuple[LevelPrediction, ...]


class PairedHead(nn.Module):
    """Two heads of the same kind over the same features: dual label assignments (arXiv 2405.14458, section 3.1).

    One is trained to find an object at several places, the other at one place, so that its answers need no suppression.
    No gradient of the second reaches the features, so that backbone and neck learn from the first alone. The paper does
    not say this; the gradients of its published networks do. The parameters lie under ``one_to_many`` and
    ``one_to_one``. Both heads are computed; a program that was compiled with a decoder of one of them does not contain
    the other.
    """

    one_to_many: AnchorFreeHead
    one_to_one: AnchorFreeHead

    @nn.compact
    def __call__(self, features: Features, train: bool) -> PairPrediction:
        apart = tuple(jax.lax.stop_gradient(x) for x in features)
        return PairPrediction(self.one_to_many(features, train), self.one_to_one(apart, train))
