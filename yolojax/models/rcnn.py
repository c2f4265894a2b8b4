"""The networks of Faster R-CNN (arXiv 1506.01497) on a feature pyramid (arXiv 1612.03144), as in torchvision.

A first stage, the region proposal network, gives every anchor of every level an objectness and a box. The best of them
are proposals. For each proposal the second stage pools the features of the level that suits its size and gives class
logits, background first, and a box for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.assign import Matched, Sample, balanced_sample, overlap_assign, sort_by_content
from yolojax.coding import Proposals, flatten_levels, pyramid_roi_align, region_anchors, select_proposals
from yolojax.image_wise import image_wise
from yolojax.models.blocks import Features
from yolojax.models.layers import Conv, ConvBNAct, Style
from yolojax.structures import Targets

FINEST_STRIDE = 4
"""Input pixels of the first level of the pyramid."""

RATIOS = (0.5, 1.0, 2.0)
"""Of height to width, of the anchors."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of boxes that a detector with two stages works with; all are static.

    Attributes:
      anchors: the side of the anchors of each level, in input pixels.
      proposals: of an image at inference, and so many anchors of each level before suppression.
      training_proposals: the same in training.
      first_sample: anchors of an image that carry the loss, at most half of them positives.
      second_sample: proposals of an image that carry the loss, at most a quarter of them positives.
    """

    anchors: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    proposals: int = 1000
    training_proposals: int = 2000
    first_sample: int = 256
    second_sample: int = 512


class TrainingSamples(NamedTuple):
    """What carries the loss of a training step: rows of the anchors, and of the proposals that the network pooled."""

    first: Sample
    second: Sample


class RegionOutputs(NamedTuple):
    """What the network gives, in float32.

    Attributes:
      objectness: logits of the anchors of each level.
      deltas: predictions relative to the anchors (`yolojax.coding.decode_regions`), of each level.
      proposals: the boxes that the second stage looked at; in training those that were drawn.
      class_logits: of each proposal, background first.
      box_deltas: of each proposal for every class, background included.
      samples: in training alone.
    """

    objectness: tuple[Float[Array, "B h w A"], ...]
    deltas: tuple[Float[Array, "B h w A 4"], ...]
    proposals: Proposals
    class_logits: Float[Array, "B P K"]
    box_deltas: Float[Array, "B P K 4"]
    samples: TrainingSamples | None = None


def anchors_of(
    maps: Sequence[Array], sizes: Sequence[Sequence[float]], finest_stride: int = FINEST_STRIDE
) -> tuple[tuple[int, int], list[Float[Array, "_n 4"]]]:
    """The size of the input image and the anchors of each level, given maps ``[B, h, w, ...]`` of the levels."""
    grids = [(m.shape[1], m.shape[2]) for m in maps]
    image_size = (finest_stride * grids[0][0], finest_stride * grids[0][1])
    return image_size, [region_anchors([g], image_size, [own], RATIOS) for g, own in zip(grids, sizes, strict=True)]


class ProposalHead(nn.Module):
    """Of every level, with the same weights: ``depth`` 3x3 convolutions, then objectness and boxes of each anchor."""

    depth: int = 2
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(
        self, features: Features
    ) -> tuple[tuple[Float[Array, "B _h _w A"], ...], tuple[Float[Array, "B _h _w A 4"], ...]]:
        options = {"use_bias": True, "dtype": self.style.dtype, "kernel_init": nn.initializers.normal(0.01)}
        width, count = features[0].shape[-1], len(RATIOS)
        convs = [Conv(width, 3, name=f"conv{i}", **options) for i in range(self.depth)]
        predict = Conv(count, name="predict_objectness", **options)
        predict_box = Conv(4 * count, name="predict_box", **options)
        objectness, deltas = [], []
        for x in features:
            for conv in convs:
                x = jax.nn.relu(conv(x))
            objectness.append(predict(x).astype(jnp.float32))
            deltas.append(predict_box(x).reshape(*x.shape[:3], count, 4).astype(jnp.float32))
        return tuple(objectness), tuple(deltas)


class RegionHead(nn.Module):
    """Both stages behind the pyramid.

    ``convs`` normalised 3x3 convolutions and ``denses`` fully connected layers of ``hidden`` channels lead from the 7x7
    bins of a proposal to its predictions: 4 and 1 in version 2 of torchvision's network, 0 and 2 in version 1. A fully
    connected layer is a convolution over all bins.
    """

    num_classes: int
    sizes: Sizes = Sizes()
    proposal_depth: int = 2
    convs: int = 4
    denses: int = 1
    hidden: int = 1024
    style: Style = Style("relu", epsilon=1e-5)

    @nn.compact
    def __call__(
        self, features: Features, train: bool, targets: Targets | None = None, key: PRNGKeyArray | None = None
    ) -> RegionOutputs:
        style, sizes = self.style, self.sizes
        objectness, deltas = ProposalHead(self.proposal_depth, style, name="proposal")(features)
        image_size, anchors = anchors_of(objectness, [(side,) for side in sizes.anchors])
        number = sizes.proposals if targets is None else sizes.training_proposals
        proposals = image_wise(
            partial(select_proposals, image_size=image_size, per_level=number, count=number),
            [x.reshape(x.shape[0], -1) for x in objectness],
            [x.reshape(x.shape[0], -1, 4) for x in deltas],
            anchors,
            shared=1,
        )
        samples = None
        if targets is not None:
            assert key is not None
            proposals, samples = draw_samples(key, jnp.concatenate(anchors), proposals, targets, sizes)

        # The coarsest level has anchors only.
        scales = [x.shape[1] / image_size[0] for x in features[:-1]]
        x = pyramid_roi_align(features[:-1], proposals.boxes, scales)
        batch, rows = x.shape[:2]
        x = x.reshape(batch * rows, *x.shape[2:])
        for i in range(self.convs):
            x = ConvBNAct(x.shape[-1], 3, style=style, name=f"conv{i}")(x, train)
        options = {"use_bias": True, "dtype": style.dtype}
        for i in range(self.denses):
            x = jax.nn.relu(Conv(self.hidden, x.shape[1], padding=0, name=f"dense{i}", **options)(x))
        count = self.num_classes + 1
        logits = Conv(count, name="predict_cls", **options)(x).reshape(batch, rows, count)
        boxes = Conv(4 * count, name="predict_box", **options)(x).reshape(batch, rows, count, 4)
        return RegionOutputs(
            objectness, deltas, proposals, logits.astype(jnp.float32), boxes.astype(jnp.float32), samples
        )


def draw_samples(
    key: PRNGKeyArray, anchors: Float[Array, "N 4"], proposals: Proposals, targets: Targets, sizes: Sizes
) -> tuple[Proposals, TrainingSamples]:
    """Draws the anchors and the proposals that carry the loss; the objects themselves count among the proposals.

    Returns the drawn proposals, and what they and the drawn anchors learn.
    """
    first_key, second_key = jax.random.split(key)
    every = jnp.broadcast_to(anchors[None], (proposals.boxes.shape[0], *anchors.shape))
    matched = overlap_assign(targets, every, low=0.3, high=0.7, keep_best=True)
    first = balanced_sample(first_key, matched, targets, sizes.first_sample, 0.5)

    objects = sort_by_content(targets)  # by content, so that their order does not decide which are drawn
    boxes = jnp.concatenate([jax.lax.stop_gradient(objects.boxes), proposals.boxes], axis=1)
    exists = jnp.concatenate([objects.assignable, proposals.valid], axis=1)
    found = overlap_assign(targets, boxes, low=0.5, high=0.5, keep_best=False)
    found = Matched(found.objects, found.positive & exists, found.negative & exists)
    second = balanced_sample(second_key, found, targets, sizes.second_sample, 0.25)
    drawn = jnp.take_along_axis(boxes, second.rows[..., None], axis=1)
    return Proposals(drawn, second.valid), TrainingSamples(first, second)


class RegionNetwork(nn.Module):
    """A backbone, a pyramid and a `RegionHead`. With ``targets`` and a ``key`` the head draws samples for training."""

    backbone: nn.Module
    neck: nn.Module
    head: RegionHead

    def __call__(
        self,
        images: Float[Array, "B H W 3"],
        train: bool,
        targets: Targets | None = None,
        key: PRNGKeyArray | None = None,
    ) -> RegionOutputs:
        return self.head(self.neck(self.backbone(images, train), train), train, targets, key)


def flat_predictions(outputs: RegionOutputs) -> tuple[Float[Array, "B N"], Float[Array, "B N 4"]]:
    """Objectness logits and deltas of the anchors of all levels along one axis."""
    return flatten_levels([x[..., None] for x in outputs.objectness])[..., 0], flatten_levels(outputs.deltas)
