"""A detector is a record of pure functions and one frozen description; nothing downstream asks which YOLO it holds.

Built once by a function of `yolojax.zoo` and closed over; never passed as an argument of `jit` (a record of functions
is not a pytree of arrays, and as a static argument every rebuilt record would retrace).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from yolojax.geometry import Preprocess
from yolojax.structures import Candidates, Hyper, LossTerms, Targets

Variables = dict[str, Any]
"""``{"params": {"backbone", "neck", "head"}, "batch_stats": ...}``: nested dicts of arrays."""

Outputs = Any
"""Any pytree whose prediction maps stay per level, ``[B, h, w, ...]``."""


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is, apart from its parameters; enough, with `zoo.build`, to make it again.

    Attributes:
      name: the zoo's name of the architecture.
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of the largest stride.
      strides: one per prediction level, finest first.
      preprocess: how pixels reach the network.
      suppression: ``nms``, or ``none`` for detectors that need no suppression.
      multi_label: whether one box may be reported under several classes.
      hyper: traced hyper-parameters that this detector wants other than `Hyper`'s defaults, by name.
      options: the remaining arguments of the architecture's builder (JSON values only), e.g. anchors and widths.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    strides: tuple[int, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    suppression: Literal["nms", "none"] = "nms"
    multi_label: bool = True
    hyper: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def prepare_images(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"], preprocess: Preprocess
) -> Float[Array, "B H W 3"]:
    """RGB input pixels 0..255 (uint8, or float after augmentation), in the network's channel order and range."""
    images = images.astype(jnp.float32) / jnp.float32(preprocess.scale)
    return images[..., ::-1] if preprocess.channels == "bgr" else images


@runtime_checkable
class Init(Protocol):
    def __call__(self, key: PRNGKeyArray) -> Variables: ...


@runtime_checkable
class Forward(Protocol):
    def __call__(self, variables: Variables, images: Float[Array, "B H W 3"]) -> Outputs: ...


@runtime_checkable
class ForwardTrain(Protocol):
    """Also returns the new non-trainable state (``{"batch_stats": ...}``)."""

    def __call__(
        self, variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]: ...


@runtime_checkable
class Loss(Protocol):
    def __call__(self, outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms: ...


@runtime_checkable
class Decode(Protocol):
    def __call__(self, outputs: Outputs) -> Candidates: ...


class Detector(NamedTuple):
    """The record. ``forward`` and ``forward_train`` take what `prepare_images` makes of a uint8 input image.

    ``fold`` gives an inference-only detector with BatchNorm folded into the convolutions, and its variables.
    """

    spec: DetectorSpec
    init: Init
    forward: Forward
    forward_train: ForwardTrain
    loss: Loss
    decode: Decode
    fold: Callable[[Variables], tuple[Detector, Variables]]
