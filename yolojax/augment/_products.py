"""Resampling by matrix products, for devices that are fast at them and slow at reading single pixels.

Magnification and shift treat rows and columns apart: a bilinear sample is ``rows @ image @ columns.T``, where each
line of a matrix holds the two weights of one output pixel. A TPU reads pixels at computed places one after another,
while its matrix unit does nothing; as products the same values come from that unit.

The products are exact. Positions are rounded to 1/256 of a pixel, so that weights are multiples of 1/256, and pixels
are counted from the padding's grey, which makes what lies outside zero. Both fit bfloat16 without rounding. The result
of the first product, a multiple of 1/256 with up to 16 bits, enters the second as two bfloat16 numbers side by side,
their sum, so that the second is one product over twice as many pixels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

FRACTIONS = 256
"""Positions are multiples of 1/256 pixel, whose weights bfloat16 holds exactly."""


def bilinear_weights(positions: Float[Array, "*N out"], length: int) -> Float[Array, "*N out length"]:
    """The weight of each of ``length`` pixels in each sample along one axis, in bfloat16.

    Args:
      positions: where samples are taken, in pixels (centres lie at +.5).
      length: pixels along the axis. Those beyond have no weight, so that a sample fades to zero outside.
    """
    nearest = jnp.round((positions - 0.5) * FRACTIONS) / FRACTIONS
    pixels = jnp.expand_dims(jnp.arange(length, dtype=jnp.float32), tuple(range(positions.ndim)))
    return jnp.maximum(1 - jnp.abs(pixels - nearest[..., None]), 0).astype(jnp.bfloat16)


def resample(
    images: UInt8[Array, "*N H W 3"],
    rows: Float[Array, "*N h H"],
    columns: Float[Array, "*N w W"],
    pad: int,
) -> UInt8[Array, "*N 3 h w"]:
    """Samples of images by the weights of their rows and columns; grey (``pad``) where these are zero.

    Channels come before rows and columns, as the products leave them; turned at once, they would be copied once more.
    """
    centred = (images.astype(jnp.float32) - pad).astype(jnp.bfloat16)
    planes = jnp.moveaxis(centred, -1, -3)  # a matrix for each channel
    exact = jnp.matmul(rows[..., None, :, :], planes, preferred_element_type=jnp.float32)
    # Told to the compiler as a reduction of precision: a conversion there and back is one that it may leave out.
    high = jax.lax.reduce_precision(exact, exponent_bits=8, mantissa_bits=7)
    parts = jnp.concatenate([part.astype(jnp.bfloat16) for part in (high, exact - high)], -1)
    across = jnp.swapaxes(jnp.concatenate([columns, columns], -1), -1, -2)[..., None, :, :]
    samples = jnp.matmul(parts, across, preferred_element_type=jnp.float32) + pad
    return jnp.clip(jnp.round(samples), 0, 255).astype(jnp.uint8)
