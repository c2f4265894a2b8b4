"""Less memory for the backward pass: activations that are not kept but computed again from others.

A backward pass reads what the forward pass computed, and keeping all of it is what fills a device. The functions here
wrap a network's ``forward_train``, whichever library it is written in: they look at its operations, not at its layers.
The step computes the same; gradients differ by rounding.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var, jaxpr_as_fun
from jaxtyping import Array, Float, PRNGKeyArray

from yolojax.detector import ForwardTrain, Outputs, Variables
from yolojax.errors import ConfigError
from yolojax.jaxprs import inner_programs
from yolojax.structures import Targets

BUDGETS = 64
"""How many sizes of the memory for a backward pass are tried."""

UNCUT = (
    "no cut of this network would save memory (a loop is one operation, and is not cut), so it is trained as without; "
    "give activations, or write a loop's layers one after another"
)
"""What is said of a network of which nothing can be saved so."""

ARITHMETIC = "abs add and clamp div erf exp integer_pow log log1p logistic max min mul neg not or pow rsqrt sign sqrt"
SHAPING = "broadcast_in_dim convert_element_type expand_dims platform_index reshape slice squeeze"
CHEAP = {*ARITHMETIC.split(), "square", "sub", "tanh", "eq", "ge", "gt", "le", "lt", "ne", "select_n", *SHAPING.split()}
"""Operations that a compiler computes together with what reads them: their results take no memory of their own."""


def remat_function(remat: str) -> Callable[[ForwardTrain], ForwardTrain]:
    """Returns what wraps ``forward_train`` for a setting of `yolojax.config.TrainConfig`; `ConfigError` for no kind."""
    if remat not in KINDS:
        raise ConfigError(f"remat = {remat!r}: give one of {', '.join(KINDS)}")
    return KINDS[remat]


def keep_products(forward_train: ForwardTrain) -> ForwardTrain:
    """Wraps a network's ``forward_train``: the backward pass computes again whatever is cheap.

    Of the activations only the outputs of convolutions and matrix products stay in memory; normalisation, activation
    functions and sums are computed once more from them (`jax.checkpoint`; Chen et al., "Training Deep Nets with
    Sublinear Memory Cost", arXiv 1604.06174).
    """

    def is_kept(primitive: Primitive, *_: Any, **__: Any) -> bool:
        return primitive in (lax.conv_general_dilated_p, lax.dot_general_p)

    return jax.checkpoint(forward_train, policy=is_kept)


def in_segments(forward_train: ForwardTrain) -> ForwardTrain:
    """Wraps a network's ``forward_train``: only what passes between a few segments of it stays in memory.

    The backward pass computes one segment after another again, from the last to the first, so that besides what passes
    between segments only one segment's activations exist at a time (Chen et al., arXiv 1604.06174). All is computed
    twice: about a third more work for a step. Where to cut is chosen from the bytes of the network's own operations
    (see `cut`).
    """

    def segmented(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        arguments = (variables, images, targets, key)
        closed, shapes = jax.make_jaxpr(forward_train, return_shape=True)(*arguments)
        given = jax.tree.leaves(arguments)
        if inlined := _inlined(closed.jaxpr):
            given = [*closed.consts, *given]
            closed = jax.make_jaxpr(inlined)(*given)
        jaxpr: Jaxpr = closed.jaxpr
        known: dict[Var, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known.update(zip(jaxpr.invars, given, strict=True))
        jaxpr = _narrowed(jaxpr, known)
        cuts = cut(jaxpr)
        if not cuts:
            warnings.warn(f"remat = segments: {UNCUT}", stacklevel=2)
            return forward_train(*arguments)
        bounds = [0, *cuts, len(jaxpr.eqns)]
        last_read = _last_reads(jaxpr)
        for start, stop in itertools.pairwise(bounds):
            equations = jaxpr.eqns[start:stop]
            made = [var for equation in equations for var in _vars(equation.outvars)]
            own = set(made)
            read = dict.fromkeys(var for equation in equations for var in _vars(equation.invars) if var not in own)
            passed = [var for var in made if last_read.get(var, -1) >= stop]
            segment = jaxpr.replace(constvars=[], invars=list(read), outvars=passed, eqns=equations)
            part = jaxpr_as_fun(ClosedJaxpr(segment, ()))
            known.update(zip(passed, jax.checkpoint(part)(*(known[var] for var in read)), strict=True))
        leaves = [jnp.asarray(var.val) if isinstance(var, Literal) else known[var] for var in jaxpr.outvars]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return segmented


KINDS: dict[str, Callable[[ForwardTrain], ForwardTrain]] = {
    "none": lambda forward_train: forward_train,
    "activations": keep_products,
    "segments": in_segments,
}
"""What wraps a network's ``forward_train``, by the name of the setting."""


def _inlined(jaxpr: Jaxpr) -> Callable[..., list[Any]] | None:
    """Returns the same program without the borders of `jax.jit` around its layers; None where there are none."""
    inner = [_program_of(equation) for equation in jaxpr.eqns]
    if not any(inner):
        return None

    def run(*arguments: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), arguments, strict=True))

        def values(atoms: Sequence[Any]) -> list[Any]:
            return [atom.val if isinstance(atom, Literal) else known[atom] for atom in atoms]

        for equation, program in zip(jaxpr.eqns, inner, strict=True):
            read, made = _vars(equation.invars), _vars(equation.outvars)
            if program is None:
                alone = jaxpr.replace(constvars=[], invars=read, outvars=made, eqns=[equation])
                known.update(zip(made, jaxpr_as_fun(ClosedJaxpr(alone, ()))(*values(read)), strict=True))
            else:
                given, inside = values(equation.invars), _inlined(program.jaxpr)
                found = inside(*program.consts, *given) if inside else jaxpr_as_fun(program)(*given)
                known.update(zip(equation.outvars, found, strict=True))
        return values(jaxpr.outvars)

    return run


def _program_of(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program of a call of a compiled function that is more than cheap operations; None for anything else."""
    program = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
    return program if program is not None and any(map(_activations, program.jaxpr.eqns)) else None


def _narrowed(jaxpr: Jaxpr, known: dict[Var, Any]) -> Jaxpr:
    """Converts arguments to the smaller type in which the program reads them, and returns the rest of the program.

    Such as images of bfloat16, so that not those of float32 are kept.
    """
    rest = []
    for equation in jaxpr.eqns:
        name, read, made = equation.primitive.name, _vars(equation.invars), _vars(equation.outvars)
        smaller = name == "convert_element_type" and read and read[0] in known and _bytes(made[0]) < _bytes(read[0])
        if smaller:
            known[made[0]] = lax.convert_element_type(known[read[0]], equation.params["new_dtype"])
        else:
            rest.append(equation)
    return jaxpr.replace(eqns=rest)


class Life(NamedTuple):
    """When a value exists: after the operation ``made``, until the operation ``read``; and its bytes."""

    made: int
    read: int
    size: int


def cut(jaxpr: Jaxpr) -> list[int]:
    """Chooses the operations before which a program is cut so that its backward pass takes least memory.

    When the backward pass comes to a segment, memory holds the activations of this segment, the gradient of the largest
    of them, and what crossed the cuts before it, each value once however many cuts it crosses. What crosses later cuts
    alone is gone by then. The best cuts are found by dynamic programming. Arguments and results of the program exist in
    any case and cost nothing.
    """
    count, results = len(jaxpr.eqns), set(_vars(jaxpr.outvars))
    last_read = _last_reads(jaxpr)
    lives = [
        Life(index, last_read.get(var, index), 0 if var in results else _bytes(var))
        for index, equation in enumerate(jaxpr.eqns)
        for var in _vars(equation.outvars)
    ]
    work = np.array([_activations(equation) for equation in jaxpr.eqns], dtype=np.float64)
    if not work.any():
        return []
    # The choice of a platform's form is made while a program is lowered, and is never passed on.
    together = {
        between
        for index, equation in enumerate(jaxpr.eqns)
        if equation.primitive.name == "platform_index"
        for between in range(index + 1, last_read.get(equation.outvars[0], index) + 1)
    }
    places = [0, *(index for index in range(1, count) if work[index - 1] and index not in together), count]
    return [places[place] for place in least_memory(crossing(lives, places), within(work, places))]


def crossing(lives: Sequence[Life], places: Sequence[int]) -> np.ndarray:
    """``[i, j]``: bytes of what is made between places ``i`` and ``j`` and read after ``j``."""
    made, read, size = (np.array(column) for column in zip(*lives, strict=True))
    found = np.zeros((len(places), len(places)))
    segment = np.searchsorted(places, made, side="right") - 1
    for j, place in enumerate(places):
        passes = (made < place) & (read >= place)
        of_segment = np.bincount(segment[passes], size[passes], minlength=len(places))
        found[:, j] = np.cumsum(of_segment[::-1])[::-1]
    return found


def within(work: np.ndarray, places: Sequence[int]) -> np.ndarray:
    """``[i, j]``: bytes of a segment's backward pass: its activations, and the largest once more as a gradient."""
    between = np.split(work, places[1:-1])
    total, largest = (np.array([reduce(part) for part in between]) for reduce in (np.sum, np.max))
    sums = np.concatenate([[0.0], np.cumsum(total)])
    found = np.zeros((len(places), len(places)))
    for i in range(len(places) - 1):
        found[i, i + 1 :] = sums[i + 1 :] - sums[i] + np.maximum.accumulate(largest[i:])
    return found


def least_memory(crossed: np.ndarray, inside: np.ndarray) -> list[int]:
    """Returns the places of the cuts with which a step takes least memory, from what `crossing` and `within` give.

    A step's memory has two peaks: that of the backward pass at its dearest segment, and that of the loss, whose own
    memory is not known here, beside all that crosses cuts. Of the budgets for the first, the one is taken with which
    the sum of both is least.
    """
    budgets = np.geomspace(np.diagonal(inside, 1).max(), inside[0, -1], BUDGETS)
    found = [choice for budget in budgets if (choice := least_kept(crossed, inside, budget)) is not None]
    return min(found, key=lambda choice: choice.kept + choice.peak).places


class Cuts(NamedTuple):
    """Places to cut a program at: bytes that cross them, and bytes of the backward pass at its dearest segment."""

    places: list[int]
    kept: float
    peak: float


def least_kept(crossed: np.ndarray, inside: np.ndarray, budget: float) -> Cuts | None:
    """Returns the cuts that least crosses, of those with which no segment needs more than ``budget``; None if none."""
    count = len(crossed)
    least, before = np.full(count, np.inf), np.zeros(count, dtype=int)
    least[0] = 0.0
    for j in range(1, count):
        fits = least[:j] + inside[:j, j] <= budget
        kept = np.where(fits, least[:j] + crossed[:j, j], np.inf)
        before[j] = np.argmin(kept)
        least[j] = kept[before[j]]
    if not np.isfinite(least[-1]):
        return None
    bounds = [count - 1]
    while bounds[-1] > 0:
        bounds.append(int(before[bounds[-1]]))
    peak = max(least[start] + inside[start, stop] for stop, start in itertools.pairwise(bounds))
    return Cuts(bounds[-2:0:-1], float(least[-1]), float(peak))


def _vars(atoms: Sequence[Any]) -> list[Var]:
    """The variables among what an operation reads or gives."""
    # What nobody reads is a `DropVar`, which `jax.extend.core` does not give.
    return [atom for atom in atoms if isinstance(atom, Var) and type(atom).__name__ != "DropVar"]


def _last_reads(jaxpr: Jaxpr) -> dict[Var, int]:
    """The last operation that reads each value; results are read after all operations."""
    reads = {var: index for index, equation in enumerate(jaxpr.eqns) for var in _vars(equation.invars)}
    return reads | dict.fromkeys(_vars(jaxpr.outvars), len(jaxpr.eqns))


def _bytes(var: Var) -> int:
    """The bytes of a value; 0 for what has no array's type."""
    shape, dtype = getattr(var.aval, "shape", None), getattr(var.aval, "dtype", None)
    return 0 if shape is None or dtype is None else int(np.prod(shape)) * int(getattr(dtype, "itemsize", 0))


def _activations(equation: JaxprEqn) -> int:
    """The bytes of what a backward pass keeps of one operation, of a loop in all of its turns."""
    if equation.primitive.name in CHEAP:
        return 0
    own = sum(_bytes(var) for var in _vars(equation.outvars))
    inside = [sum(map(_activations, program.eqns)) for program in inner_programs(equation)]
    return max(own, int(equation.params.get("length", 1)) * max(inside, default=0))
