"""Looks into programs as JAX traces them."""

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def inner_programs(equation: JaxprEqn) -> list[Jaxpr]:
    """Returns the programs of one operation: body of a loop, branches of a choice, a function called."""
    parts = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr))
    programs = [part.jaxpr if isinstance(part, ClosedJaxpr) else part for part in parts]
    return [program for program in programs if isinstance(program, Jaxpr)]
