"""The backbones, the neck and the auxiliary branches of YOLOv9: generalised ELAN over re-parametrised bottlenecks.

YOLOv9, arXiv 2402.13616: GELAN in section 4.2, the auxiliary branches (programmable gradient information) in section
4.1. A second backbone that takes maps of the first is that of CBNet, arXiv 1909.03625 and 2107.00420. Blocks and the
auxiliary branches were compared with MultimediaTechLab's implementation (MIT).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from yolojax.models.blocks import Features, cross_stage, max_pool, max_pool_same, upsample_nearest
from yolojax.models.heads import LevelPrediction
from yolojax.models.layers import ACTIVATIONS, Conv, ConvBNAct, Style
from yolojax.models.necks import aggregate_paths


class YOLOv9Layout(NamedTuple):
    """What one scale of YOLOv9 has.

    Attributes:
      widths: channels after the convolution that halves the map, at strides 2 to 32.
      blocks: channels of the blocks at strides 4 to 32.
      splits: channels that each of these blocks works with inside.
      depth: bottlenecks of a part of a block.
      plain: whether the block at stride 4 has no bottlenecks.
      pooled: whether half of the channels are halved by a max pool (`Halving`).
      levels: channels of the neck's blocks at strides 8, 16 and 32.
      level_splits: channels that each of these blocks works with inside.
      reduced: channels of the maps that the neck brings to strides 16 and 32.
      linked: the first level, counted from stride 2, at which a second backbone takes maps of the first.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    splits: tuple[int, ...]
    depth: int
    plain: bool
    pooled: bool
    levels: tuple[int, ...]
    level_splits: tuple[int, ...]
    reduced: tuple[int, ...]
    linked: int = 2


def average_of_neighbours(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Means of all 2x2 squares, stride 1, without padding: one row and one column fewer."""
    return (x[:, :-1, :-1] + x[:, 1:, :-1] + x[:, :-1, 1:] + x[:, 1:, 1:]) * jnp.asarray(0.25, x.dtype)


class RepBottleneck(nn.Module):
    """A 3x3 and a 1x1 convolution added (RepVGG, arXiv 2101.03697), a 3x3 convolution, and the identity."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        style = self.style
        y = ConvBNAct(self.features, 3, activate=False, style=style, name="spatial")(x, train)
        y = y + ConvBNAct(self.features, 1, activate=False, style=style, name="pointwise")(x, train)
        return x + ConvBNAct(self.features, 3, style=style, name="conv2")(ACTIVATIONS[style.activation](y), train)


class RepCSP(nn.Module):
    """A cross-stage partial block (`yolojax.models.blocks.cross_stage`) around `RepBottleneck`."""

    features: int
    depth: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        def inner(features: int, name: str) -> nn.Module:
            return RepBottleneck(features, self.style, name=name)

        return cross_stage(x, train, self.features, self.depth, inner, self.style)


class GELAN(nn.Module):
    """The generalised ELAN block: two parts one after another on a half of the channels, everything joined.

    A part is a `RepCSP` of ``depth`` bottlenecks and a 3x3 convolution, or with ``depth`` 0 that convolution alone
    (plain ELAN). Parts have half of the ``split`` channels, by default of the ``features``.
    """

    features: int
    depth: int = 3
    style: Style = Style()
    split: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        half, style = (self.split or self.features) // 2, self.style
        x = ConvBNAct(2 * half, 1, style=style, name="split")(x, train)
        parts = [x[..., :half], x[..., half:]]
        for i in (2, 3):
            y = parts[-1]
            if self.depth:
                y = RepCSP(half, self.depth, style, name=f"part{i}_csp")(y, train)
            parts.append(ConvBNAct(half, 3, style=style, name=f"part{i}")(y, train))
        return ConvBNAct(self.features, 1, style=style, name="join")(jnp.concatenate(parts, axis=-1), train)


class PooledHalving(nn.Module):
    """Halves a map in two ways, with half of the ``features`` each, after `average_of_neighbours`.

    The first half of the channels passes a 3x3 convolution of stride 2, the other a 3x3 max pool of stride 2 and a 1x1
    convolution.
    """

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        x = average_of_neighbours(x)
        first, second = jnp.split(x, 2, axis=-1)
        first = ConvBNAct(self.features // 2, 3, 2, style=self.style, name="strided")(first, train)
        second = max_pool(second, (3, 3), (2, 2), ((1, 1), (1, 1)))
        second = ConvBNAct(self.features // 2, 1, style=self.style, name="pooled")(second, train)
        return jnp.concatenate([first, second], axis=-1)


def halve(
    x: Float[Array, "B H W I"], train: bool, features: int, pooled: bool, style: Style, name: str
) -> Float[Array, "B h w O"]:
    """Halves a map by `PooledHalving`, or by `average_of_neighbours` and a 3x3 convolution of stride 2.

    Call it in a module's compact method.
    """
    if pooled:
        return PooledHalving(features, style, name=name)(x, train)
    return ConvBNAct(features, 3, 2, style=style, name=name)(average_of_neighbours(x), train)


class SPPELAN(nn.Module):
    """Spatial pyramid pooling as three 5x5 max pools in a row over half of the channels, everything joined."""

    features: int
    style: Style = Style()

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B H W O"]:
        parts = [ConvBNAct(self.features // 2, 1, style=self.style, name="reduce")(x, train)]
        for _ in range(3):
            parts.append(max_pool_same(parts[-1], 5))
        return ConvBNAct(self.features, 1, style=self.style, name="join")(jnp.concatenate(parts, axis=-1), train)


def column(
    images: Float[Array, "B H W 3"],
    train: bool,
    layout: YOLOv9Layout,
    style: Style,
    prefix: str = "",
    links: Mapping[int, Sequence[Float[Array, "B _h _w _c"]]] | None = None,
) -> list[Float[Array, "B _h _w _c"]]:
    """Two convolutions of stride 2 and four blocks: the maps at strides 2 to 32; call it in a compact method.

    ``links`` are maps to be added before the block of a level, counted from stride 2. They are that level's or coarser
    ones, and are enlarged by repeating values.
    """
    x, features = images.astype(style.dtype), []
    for i, width in enumerate(layout.widths):
        if i < 2:
            x = ConvBNAct(width, 3, 2, style=style, name=f"{prefix}down{i}")(x, train)
        else:
            x = halve(x, train, width, layout.pooled, style, f"{prefix}down{i}")
        for link in (links or {}).get(i, ()):
            while link.shape[1] < x.shape[1]:
                link = upsample_nearest(link)
            x = x + link
        if i:
            depth = 0 if i == 1 and layout.plain else layout.depth
            block = GELAN(layout.blocks[i - 1], depth, style, layout.splits[i - 1], name=f"{prefix}stage{i}")
            x = block(x, train)
        features.append(x)
    return features


def links_of(
    features: Mapping[int, Float[Array, "B _h _w _c"]], layout: YOLOv9Layout, style: Style
) -> dict[int, list[Float[Array, "B _h _w _c"]]]:
    """Maps of one backbone for another: each goes through a 1x1 convolution to every level from its own to the finest.

    ``features`` are the maps at each level from ``layout.linked`` on, counted from stride 2. Returns the maps for each
    level, as `column` takes them; call it in a module's compact method.
    """
    links: dict[int, list[Array]] = {level: [] for level in features}
    for level, x in features.items():
        widths = layout.widths[layout.linked : level + 1]
        x = Conv(sum(widths), use_bias=True, dtype=style.dtype, name=f"link{level}")(x)
        start = 0
        for target, width in enumerate(widths, start=layout.linked):
            links[target].append(x[..., start : start + width])
            start += width
    return links


class YOLOv9Backbone(nn.Module):
    """`column` and `SPPELAN`; strides 8, 16 and 32. The map before the `SPPELAN` is the fourth."""

    layout: YOLOv9Layout
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        features = column(images, train, self.layout, self.style)
        pooled = SPPELAN(self.layout.levels[-1], self.style, name="sppelan")(features[-1], train)
        return (*features[2:4], pooled, features[-1])


class YOLOv9DoubleBackbone(nn.Module):
    """Two `column` side by side, the second of which takes maps of the first, and `SPPELAN`, as in YOLOv9-E.

    Gives the maps of the second column at strides 8, 16 and 32; the map before the `SPPELAN` is the fourth.
    """

    layout: YOLOv9Layout
    style: Style = Style()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        first = column(images, train, self.layout, self.style, "first_")
        links = links_of(dict(enumerate(first)), self.layout, self.style)
        features = column(images, train, self.layout, self.style, links=links)
        pooled = SPPELAN(self.layout.levels[-1], self.style, name="sppelan")(features[-1], train)
        return (*features[2:4], pooled, features[-1])


class YOLOv9Neck(nn.Module):
    """Path aggregation (`yolojax.models.necks.aggregate_paths`) with `GELAN`, of the first three ``features``.

    On the way back a level is halved as in the backbone.
    """

    layout: YOLOv9Layout
    style: Style = Style()

    @nn.compact
    def __call__(self, features: Features, train: bool) -> tuple[Float[Array, "B _h _w _c"], ...]:
        style, layout = self.style, self.layout

        def join(x: Array, level: int, name: str) -> Array:
            return GELAN(layout.levels[level], layout.depth, style, layout.level_splits[level], name=name)(x, train)

        def reduce(x: Array, level: int) -> Array:
            return halve(x, train, layout.reduced[level - 1], layout.pooled, style, f"reduce{level}")

        return aggregate_paths(features[:3], join, reduce)


class AuxiliaryPyramid(nn.Module):
    """The auxiliary branch of YOLOv9-T and S: pooling and a top-down path of its own over the backbone's maps."""

    layout: YOLOv9Layout
    style: Style = Style()

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W 3"], features: Features, train: bool
    ) -> tuple[Float[Array, "B _h _w _c"], ...]:
        del images
        layout, style = self.layout, self.style
        fine, middle, _, last = features
        out = [SPPELAN(layout.levels[-1], style, name="sppelan")(last, train)]
        for level, x in ((1, middle), (0, fine)):
            x = jnp.concatenate([upsample_nearest(out[0]), x], axis=-1)
            block = GELAN(layout.levels[level], layout.depth, style, layout.level_splits[level], name=f"down{level}")
            out.insert(0, block(x, train))
        return tuple(out)


class AuxiliaryColumn(nn.Module):
    """The auxiliary reversible branch of YOLOv9-M and C: a second backbone that takes maps of the first."""

    layout: YOLOv9Layout
    style: Style = Style()

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W 3"], features: Features, train: bool
    ) -> tuple[Float[Array, "B _h _w _c"], ...]:
        fine, middle, _, last = features
        links = links_of({2: fine, 3: middle, 4: last}, self.layout, self.style)
        return tuple(column(images, train, self.layout, self.style, links=links)[2:])


class AuxiliaryOutputs(NamedTuple):
    """What a network with an auxiliary branch predicts in training, level by level."""

    main: tuple[LevelPrediction, ...]
    auxiliary: tuple[LevelPrediction, ...]


class AuxiliaryNetwork(nn.Module):
    """A network with an auxiliary branch and a head of the branch's own, both of which are computed in training only.

    Its parameters lie under ``backbone``, ``neck``, ``head``, ``auxiliary`` and ``auxiliary_head``. In training it
    gives `AuxiliaryOutputs`, otherwise what ``head`` gives.
    """

    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    auxiliary: nn.Module
    auxiliary_head: nn.Module

    def __call__(self, images: Float[Array, "B H W 3"], train: bool) -> Any:
        features = self.backbone(images, train)
        main = self.head(self.neck(features, train), train)
        if not train:
            return main
        return AuxiliaryOutputs(main, self.auxiliary_head(self.auxiliary(images, features, train), train))
