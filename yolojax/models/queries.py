"""Heads of the RT-DETR family: the best places of a pyramid become queries, which a decoder refines layer by layer.

RT-DETR, arXiv 2304.08069, section 4.3 (query selection); D-FINE, arXiv 2410.13842, section 4 (distributions and
location quality); DEIMv2, arXiv 2509.20787, section 3 (normalisation, gates, shared heads).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float

from yolojax.assign import DenoisingQueries, visible_queries
from yolojax.coding import refine_boxes, refinement_offsets, refinement_steps
from yolojax.image_wise import image_wise
from yolojax.losses import QuerySet
from yolojax.models.blocks import Features
from yolojax.models.layers import Activation, ConvBNAct, Style
from yolojax.models.network import Network
from yolojax.models.transformer import (
    MLP,
    DeformableAttention,
    RMSNorm,
    SelfAttention,
    Shapes,
    constant_dense,
    dense,
    flatten_pyramid,
    inverse_sigmoid,
    layer_norm,
    logit,
)

PRIOR = logit(0.01)
"""The first bias of classifiers."""

OUTSIDE = 1e4
"""The logit of the sides of places that make no query; its sigmoid is 1."""


class HeadOutputs(NamedTuple):
    """What a head of queries returns: its own queries, the places that they come from, and the denoising queries."""

    queries: QuerySet
    places: QuerySet
    denoised: QuerySet | None


class QueryNetwork(Network):
    """A `Network` whose head takes denoising queries in training."""

    def __call__(
        self, images: Float[Array, "B H W 3"], train: bool, denoising: DenoisingQueries | None = None
    ) -> HeadOutputs:
        return self.head(self.neck(self.backbone(images, train), train), train, denoising)


class Selected(NamedTuple):
    """The queries of a decoder: their content, the logits of their boxes, and what the places predicted."""

    content: Float[Array, "B Q D"]
    references: Float[Array, "B Q 4"]
    logits: Float[Array, "B Q C"]


def place_boxes(shapes: Shapes) -> tuple[Float[Array, "N 4"], Bool[Array, " N"]]:
    """The box that each place of a pyramid starts from, as logits, and which places may become queries.

    Boxes are ``(centre x, centre y, width, height)`` as fractions of the image: .05 wide and high on the first level,
    twice that on the next. All four must lie between .01 and .99.
    """
    boxes = []
    for level, (rows, columns) in enumerate(shapes):
        y = (jnp.repeat(jnp.arange(rows, dtype=jnp.float32), columns) + 0.5) / rows
        x = (jnp.tile(jnp.arange(columns, dtype=jnp.float32), rows) + 0.5) / columns
        side = jnp.full_like(x, 0.05 * 2.0**level)
        boxes.append(jnp.stack([x, y, side, side], axis=-1))
    places = jnp.concatenate(boxes)
    usable = jnp.all((places > 0.01) & (places < 0.99), axis=-1)
    return jnp.where(usable[:, None], jnp.log(places / (1 - places)), OUTSIDE), usable


class QuerySelection(nn.Module):
    """Takes the ``queries`` places with the highest class score (arXiv 2304.08069, section 4.3).

    ``project`` normalises what the places hold by a linear layer and LayerNorm before; DEIMv2 does not. ``stored`` has
    the rows and columns of each level of the pyramid whose starting boxes are among the variables, as
    ``constants/head/selection/anchors``; a pyramid of these shapes takes them from there instead of `place_boxes`.
    """

    classes: int
    queries: int
    project: bool = True
    activation: Activation = "relu"
    style: Style = Style()
    stored: Shapes = ()

    @nn.compact
    def __call__(self, memory: Float[Array, "B N D"], shapes: Shapes) -> Selected:
        dtype, width = self.style.dtype, memory.shape[-1]
        boxes, usable = place_boxes(shapes)
        if self.stored:
            stored = self.variable("constants", "anchors", lambda: place_boxes(self.stored)[0][None])
            boxes = stored.value[0] if tuple(shapes) == tuple(self.stored) else boxes
        memory = jnp.where(usable[None, :, None], memory, 0)
        if self.project:
            memory = layer_norm(self.style, "norm")(dense(width, dtype, "output")(memory))
        scores = dense_classes(self.classes, self.style, "classes")(memory).astype(jnp.float32)
        count = min(self.queries, memory.shape[1])
        largest = lax.stop_gradient(scores.max(axis=-1))
        best = image_wise(lambda of_images: lax.top_k(of_images, count)[1], largest)
        content = jnp.take_along_axis(memory, best[..., None], axis=1)
        moves = MLP((width, width, 4), self.activation, True, dtype, name="boxes")(content).astype(jnp.float32)
        chosen = jnp.take_along_axis(scores, best[..., None], axis=1)
        return Selected(content, moves + jnp.asarray(boxes)[best], chosen)


def dense_classes(classes: int, style: Style, name: str) -> nn.Dense:
    """A classifier that begins with a score of about .01 for every class."""
    return dense(classes, style.dtype, name, PRIOR)


class DecoderLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the pyramid, and two linear layers.

    Each has the identity around it and a normalisation after it. ``gated`` replaces the identity around deformable
    attention by a gate (arXiv 2410.13842, section 4.3, target gating layer). ``modern`` layers have RMSNorm and SwiGLU
    (arXiv 2002.05202) instead of LayerNorm and ReLU. ``project`` as in `DeformableAttention`.
    """

    heads: int
    points: Sequence[int]
    hidden: int
    gated: bool = False
    modern: bool = False
    project: bool = True
    style: Style = Style()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        references: Float[Array, "B Q 4"],
        memory: Float[Array, "B N D"],
        shapes: Shapes,
        position: Float[Array, "B Q D"],
        visible: Bool[Array, "B Q Q"] | None,
    ) -> Float[Array, "B Q D"]:
        dtype, width = self.style.dtype, x.shape[-1]
        norm = partial(RMSNorm) if self.modern else partial(layer_norm, self.style)
        x = norm(name="norm1")(x + SelfAttention(self.heads, dtype, name="attention")(x, position, visible))
        cross = DeformableAttention(self.heads, self.points, self.project, dtype, name="cross")
        y = cross(x + position.astype(x.dtype), references, memory, shapes)
        if self.gated:
            gates = jax.nn.sigmoid(constant_dense(2 * width, dtype, "gate")(jnp.concatenate([x, y], axis=-1)))
            x, y = gates[..., :width] * x, gates[..., width:] * y
        x = norm(name="norm2")(x + y)
        if self.modern:
            both = dense(self.hidden, dtype, "expand")(x)
            hidden = jax.nn.silu(both[..., : self.hidden // 2]) * both[..., self.hidden // 2 :]
        else:
            hidden = jax.nn.relu(dense(self.hidden, dtype, "expand")(x))
        return norm(name="norm3")(x + dense(width, dtype, "reduce")(hidden))


class DecoderSize(NamedTuple):
    """The sizes of a decoder of queries.

    Attributes:
      width: channels of the queries.
      hidden: features between the two linear layers.
      queries: of an image; fewer where its pyramid has fewer places.
      layers: how many are trained.
      answering: how many are run at inference.
      points: that each head samples on each level.
      heads: of both attentions.
      stored: see `QuerySelection`.
    """

    width: int = 256
    hidden: int = 1024
    queries: int = 300
    layers: int = 6
    answering: int = 6
    points: tuple[int, ...] = (4, 4, 4)
    heads: int = 8
    stored: tuple[tuple[int, int], ...] = ()


class RTDETRHead(nn.Module):
    """RT-DETR's decoder: each layer moves the box of the layer before (arXiv 2304.08069, sections 4.1 and 4.3)."""

    classes: int
    size: DecoderSize
    style: Style = Style("relu", momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool, denoising: DenoisingQueries | None = None) -> HeadOutputs:
        size, style = self.size, self.style
        levels = [
            ConvBNAct(size.width, 1, activate=False, style=style, name=f"project{i}")(x, train)
            for i, x in enumerate(features)
        ]
        memory, shapes = flatten_pyramid(levels)
        selection = QuerySelection(self.classes, size.queries, style=style, stored=size.stored, name="selection")
        selected = selection(memory, shapes)
        x, references, visible = start_queries(self, selected, denoising)
        position_of = MLP((2 * size.width, size.width), dtype=style.dtype, name="position")
        boxes, logits = [], []
        reference = jax.nn.sigmoid(references)
        # A layer moves the box before it, whose gradient reaches the layer before and none further (look forward twice,
        # DINO, arXiv 2203.03605, section 3.5). It looks at the same box without gradient.
        before = reference
        for i in range(size.layers if train else size.answering):
            layer = DecoderLayer(size.heads, size.points, size.hidden, style=style, name=f"layer{i}")
            x = layer(x, reference, memory, shapes, position_of(reference), visible)
            moves = MLP((size.width, size.width, 4), "relu", True, style.dtype, name=f"boxes{i}")(x)
            moves = moves.astype(jnp.float32)
            boxes.append(jax.nn.sigmoid(moves + inverse_sigmoid(before)))
            logits.append(dense_classes(self.classes, style, f"classes{i}")(x).astype(jnp.float32))
            before = jax.nn.sigmoid(moves + inverse_sigmoid(reference))
            reference = lax.stop_gradient(before)
        stacked = QuerySet(jnp.stack(logits, axis=1), jnp.stack(boxes, axis=1))
        return split_outputs(selected, stacked, denoising)


class LocationQuality(nn.Module):
    """How sure a distribution is, as an addition to the class logits (arXiv 2410.13842, appendix; GFLv2, 2011.12885).

    A small network of the four largest shares of each side and their mean.
    """

    activation: Activation = "relu"
    style: Style = Style()

    @nn.compact
    def __call__(self, corners: Float[Array, "B Q K"]) -> Float[Array, "B Q 1"]:
        shares = jax.nn.softmax(corners.reshape(*corners.shape[:2], 4, -1), axis=-1)
        best = image_wise(lambda of_images: lax.top_k(of_images, 4)[0], shares)
        summary = jnp.concatenate([best, best.mean(axis=-1, keepdims=True)], axis=-1)
        summary = summary.reshape(*corners.shape[:2], -1)
        return MLP((64, 1), self.activation, True, self.style.dtype)(summary).astype(jnp.float32)


class DFineHead(nn.Module):
    """D-FINE's decoder: layers refine distributions of each side around the box of the first layer.

    arXiv 2410.13842, section 4.1. ``modern`` is DEIMv2's form: RMSNorm, SwiGLU, SiLU, one position for all layers, and
    places that are taken as they are. ``gated`` and ``shared_boxes`` (one box head for all layers) as their sizes say.
    """

    classes: int
    size: DecoderSize
    bins: int = 33
    scale: float = 4.0
    modern: bool = False
    gated: bool = True
    shared_boxes: bool = False
    style: Style = Style("relu", momentum=0.9, epsilon=1e-5)

    @nn.compact
    def __call__(self, features: Features, train: bool, denoising: DenoisingQueries | None = None) -> HeadOutputs:
        size, style, dtype = self.size, self.style, self.style.dtype
        activation: Activation = "silu" if self.modern else "relu"
        width = size.width
        levels = [
            x
            if x.shape[-1] == width
            else ConvBNAct(width, 1, activate=False, style=style, name=f"project{i}")(x, train)
            for i, x in enumerate(features)
        ]
        memory, shapes = flatten_pyramid(levels)
        selection = QuerySelection(
            self.classes, size.queries, not self.modern, activation, style, size.stored, name="selection"
        )
        selected = selection(memory, shapes)
        x, references, visible = start_queries(self, selected, denoising)
        position_of = MLP(
            (width, width, width) if self.modern else (2 * width, width), activation, False, dtype, name="position"
        )
        first_head = MLP((width, width, 4), activation, True, dtype, name="first_boxes")
        corner_head = partial(MLP, (width, width, 4 * self.bins), activation, True, dtype)
        corner_heads = [
            corner_head(name="boxes" if self.shared_boxes else f"boxes{i}")
            for i in range(1 if self.shared_boxes else size.layers)
        ]
        steps = refinement_steps(self.bins, scale=self.scale)

        reference = jax.nn.sigmoid(references)
        position = jnp.clip(position_of(reference), -10.0, 10.0)
        corners, x_before = jnp.zeros((), jnp.float32), jnp.zeros((), x.dtype)
        first, first_logits = reference, None
        all_boxes, all_logits, all_corners = [], [], []
        last = (size.layers if train else size.answering) - 1
        for i in range(last + 1):
            if i and not self.modern:
                position = jnp.clip(position_of(reference), -10.0, 10.0)
            layer = DecoderLayer(
                size.heads, size.points, size.hidden, self.gated, self.modern, False, style, name=f"layer{i}"
            )
            x = layer(x, reference, memory, shapes, position, visible)
            if i == 0:
                first = jax.nn.sigmoid(first_head(x).astype(jnp.float32) + inverse_sigmoid(reference))
            corners += corner_heads[0 if self.shared_boxes else i](x + x_before).astype(jnp.float32)
            boxes = refine_boxes(lax.stop_gradient(first), refinement_offsets(corners, steps), self.scale)
            if train or i == last:
                logits = dense_classes(self.classes, style, f"classes{i}")(x).astype(jnp.float32)
                first_logits = logits if i == 0 else first_logits
                all_logits.append(logits + LocationQuality(activation, style, name=f"quality{i}")(corners))
                all_boxes.append(boxes)
                all_corners.append(corners)
            reference, x_before = lax.stop_gradient(boxes), lax.stop_gradient(x)
        stacked = QuerySet(
            jnp.stack(all_logits, axis=1),
            jnp.stack(all_boxes, axis=1),
            jnp.stack(all_corners, axis=1),
            lax.stop_gradient(first),
            first_logits,
            first,
        )
        return split_outputs(selected, stacked if train else QuerySet(*stacked[:2]), denoising)


def start_queries(
    head: nn.Module, selected: Selected, denoising: DenoisingQueries | None
) -> tuple[Float[Array, "B Q D"], Float[Array, "B Q 4"], Bool[Array, "B Q Q"] | None]:
    """Content and boxes (as logits) of all queries, denoising ones first, and which query sees which.

    The selected ones come without gradient. The embedding of the classes is a parameter of ``head``; call this in its
    compact method.
    """
    width = selected.content.shape[-1]
    classes = selected.logits.shape[-1]
    # The last row stands for queries that do not exist.
    table = head.param("denoising", nn.initializers.normal(1.0), (classes + 1, width), jnp.float32)
    content, references = lax.stop_gradient((selected.content, selected.references))
    if denoising is None:
        return content, references, None
    embedded = table[jnp.where(denoising.group >= 0, denoising.classes, classes)].astype(content.dtype)
    references = jnp.concatenate([inverse_sigmoid(denoising.boxes), references], axis=1)
    visible = visible_queries(denoising.group, content.shape[1])
    return jnp.concatenate([embedded, content], axis=1), references, visible


def split_outputs(selected: Selected, queries: QuerySet, denoising: DenoisingQueries | None) -> HeadOutputs:
    """The outputs of the denoising queries apart from those of the others."""
    places = QuerySet(selected.logits[:, None], jax.nn.sigmoid(selected.references)[:, None])
    if denoising is None:
        return HeadOutputs(queries, places, None)
    count = denoising.group.shape[1]

    def part_of(part: slice) -> QuerySet:
        return QuerySet(
            queries.logits[:, :, part],
            queries.boxes[:, :, part],
            None if queries.corners is None else queries.corners[:, :, part],
            *(None if x is None else x[:, part] for x in queries[3:]),
        )

    return HeadOutputs(part_of(slice(count, None)), places, part_of(slice(count)))
