"""Two detectors that share nothing with Flax: plain functions on tuples, and a frozen dataclass as Equinox has it."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from yolojax.detector import Detector, DetectorSpec
from yolojax.structures import Candidates, LossTerms

SIZE = (32, 32)
NAMES = ("bright",)


def middle_loss(outputs, targets, hyper):
    """Squared distance of the predicted middle to the mean middle of the objects."""
    number = targets.valid.sum(1)
    centres = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2 / SIZE[0]
    middle = jnp.where(targets.valid[..., None], centres, 0.0).sum(1) / jnp.maximum(number, 1)[:, None]
    one = jnp.ones(number.shape)
    return LossTerms({"middle": hyper.lambda_coord * jnp.sum((outputs - middle) ** 2, -1)}, {"middle": one}, {})


def middle_decode(outputs):
    """One box of 16 pixels around the predicted middle."""
    centre = outputs[:, None, :2] * SIZE[0]
    boxes = jnp.concatenate([centre - 8, centre + 8], -1)
    return Candidates(boxes, jnp.full((*boxes.shape[:2], len(NAMES)), 0.5))


def convolve(images: Float[Array, "B H W 3"], weight: Array, bias: Array) -> Array:
    maps = lax.conv_general_dilated(images, weight, (8, 8), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.mean(jnp.tanh(maps + bias[None, None, None]), axis=(1, 2))


def tuple_detector() -> Detector:
    """Parameters ``(first layer, second layer)``, beside a counter of steps."""

    def init(key):
        first, second = jax.random.split(key)
        trunk = {"w": 0.1 * jax.random.normal(first, (8, 8, 3, 4)), "offset": jnp.zeros(4)}
        return {
            "params": (trunk, (0.1 * jax.random.normal(second, (4, 2)), jnp.zeros(2))),
            "seen": jnp.zeros((), jnp.int32),
        }

    def forward(variables, images):
        trunk, (weight, bias) = variables["params"]
        return convolve(images, trunk["w"], trunk["offset"]) @ weight + bias[None]

    def forward_train(variables, images, targets, key):
        return forward(variables, images), {"seen": variables["seen"] + 1}

    return Detector(
        DetectorSpec("tuples", NAMES, SIZE, (32,)), init, forward, forward_train, middle_loss, middle_decode
    )


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "bias"], meta_fields=["activation"])
@dataclass(frozen=True)
class Dense:
    """A layer as a pytree, with a field that is no array."""

    weight: Array
    bias: Array
    activation: str = "none"

    def __call__(self, x: Array) -> Array:
        return x @ self.weight + self.bias[None]


@partial(jax.tree_util.register_dataclass, data_fields=["trunk", "last"], meta_fields=[])
@dataclass(frozen=True)
class Model:
    """A model as a pytree of layers."""

    trunk: Dense
    last: Dense

    def __call__(self, images: Array) -> Array:
        return self.last(convolve(images, self.trunk.weight, self.trunk.bias))


def dataclass_detector() -> Detector:
    """Parameters are the `Model` itself."""

    def init(key):
        first, second = jax.random.split(key)
        trunk = Dense(0.1 * jax.random.normal(first, (8, 8, 3, 4)), jnp.zeros(4), "tanh")
        return {"params": Model(trunk, Dense(0.1 * jax.random.normal(second, (4, 2)), jnp.zeros(2)))}

    def forward(variables, images):
        return variables["params"](images)

    def forward_train(variables, images, targets, key):
        return forward(variables, images), {}

    spec = replace(tuple_detector().spec, name="dataclass")
    return Detector(spec, init, forward, forward_train, middle_loss, middle_decode)
