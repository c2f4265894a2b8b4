"""How large a detector is and how much work an image takes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from yolojax.detector import Detector, Outputs
from yolojax.models.network import convolution_flops, parameter_count

__all__ = ["forward_flops", "parameter_count"]


def forward_flops(detector: Detector) -> int:
    """Floating-point operations of one image's convolutions, a multiplication and an addition counting as two."""
    variables = jax.eval_shape(detector.init, jax.random.key(0))

    def forward(image: Float[Array, "1 H W 3"]) -> Outputs:
        return detector.forward(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables), image)

    return convolution_flops(forward, detector.spec.input_size)
