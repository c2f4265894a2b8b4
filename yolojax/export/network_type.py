"""In which type a network computes, found in its operations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr

from yolojax.detector import Detector, Variables
from yolojax.errors import ConfigError
from yolojax.jaxprs import inner_programs
from yolojax.processor.platform import traced_for

_PRODUCTS = ("conv_general_dilated", "dot_general")


def network_type(detector: Detector, variables: Variables, given: str | None = None) -> str:
    """Returns the name of the type of most convolutions and matrix products of a network, such as ``bfloat16``.

    Raises `ConfigError` where ``given`` is another one: whoever reads the file would believe it.
    """
    images = jax.ShapeDtypeStruct((1, *detector.spec.input_size, 3), jnp.float32)
    with traced_for("other"):
        traced = jax.make_jaxpr(detector.forward)(variables, images)
    found = _product_types(traced.jaxpr)
    name = max(sorted(set(found)), key=found.count, default="float32")
    if given not in (None, name):
        raise ConfigError(
            f"dtype = {given!r}: the network of {detector.spec.name} computes in {name}; build or load it with "
            f"dtype={given!r}, or leave dtype out"
        )
    return name


def _product_types(jaxpr: Jaxpr) -> list[str]:
    """The type of each convolution and matrix product, those of inner programs included."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in _PRODUCTS:
            aval: Any = equation.invars[0].aval
            found.append(np.dtype(aval.dtype).name)
        for program in inner_programs(equation):
            found += _product_types(program)
    return found
