"""The state of a run as a few long vectors, for devices on which starting an operation takes longer than a small array.

An optimiser that treats every array by itself starts several kernels for each: a training step of YOLOv8s on a GPU had
1,574 kernels, and 600 of them belonged to the optimiser or moved kernels between two layouts. Arrays of one kind are
therefore laid end to end: an update of all of them is then one operation. What a step computes is the same; the norm of
the gradient is added up in another order.

Outside of the compiled step the state stays what it was: `yolojax.training.programs.Programs` packs and unpacks it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from yolojax.config import OptimiserConfig
from yolojax.detector import Detector, Outputs, Variables, equal_rates, freeze_mask, same_forward_train, variable_shapes
from yolojax.structures import Targets
from yolojax.training.optimiser import ELEMENTWISE
from yolojax.training.state import TrainState

FROZEN, FREE = "frozen", "free"
"""The two parts of a packed collection: what does not move, and the rest."""

Vectors = dict[str, dict[str, Array]]
"""A packed collection: vectors by their part (`FROZEN` or `FREE`) and kind."""


class Kind(NamedTuple):
    """What the arrays of one vector have in common.

    Attributes:
      part: `FROZEN` or `FREE`.
      dtype: of the elements.
      decayed: whether weight decay moves them.
      rate: by which their learning rate is multiplied.
    """

    part: str
    dtype: str
    decayed: bool
    rate: float

    @property
    def name(self) -> str:
        """The key of this vector within its part."""
        return f"{self.dtype}{', decayed' * self.decayed}" + (f", rate {self.rate}" if self.rate != 1 else "")


class Layout:
    """Where the arrays of a tree lie in vectors, one vector for each kind.

    Convolution kernels ``[height, width, in, out]`` lie in the order ``out, height, width, in``, which cuDNN wants for
    images ``[batch, height, width, channels]``: its gradients come so, and none is transposed.

    Args:
      shapes: the tree, of arrays or `jax.ShapeDtypeStruct`.
      kinds: the kind of every leaf, in the order of `jax.tree.leaves`.
    """

    def __init__(self, shapes: PyTree, kinds: Sequence[Kind]) -> None:
        leaves, self.structure = jax.tree.flatten(shapes)
        self.kinds = tuple(kinds)
        self._shapes = [leaf.shape for leaf in leaves]
        # Differentiated as slices are, every gradient would be a padded vector, and they would be added up.
        self.unpack = jax.custom_vjp(self._slices)
        self.unpack.defvjp(lambda vectors: (self._slices(vectors), None), lambda _, slopes: (self.pack(slopes),))

    def pack(self, tree: PyTree) -> Vectors:
        """Returns the vectors of a tree of arrays."""
        found: dict[Kind, list[Array]] = {}
        for leaf, kind in zip(jax.tree.leaves(tree), self.kinds, strict=True):
            ordered = jnp.transpose(leaf, (3, 0, 1, 2)) if jnp.ndim(leaf) == 4 else leaf
            found.setdefault(kind, []).append(ordered.reshape(-1))
        return self._by_name({kind: jnp.concatenate(parts) for kind, parts in found.items()})

    def _slices(self, vectors: Vectors) -> PyTree:
        leaves, starts = [], dict.fromkeys(self.kinds, 0)
        for kind, shape in zip(self.kinds, self._shapes, strict=True):
            start, size = starts[kind], math.prod(shape)
            own = jax.lax.slice(vectors[kind.part][kind.name], (start,), (start + size,))
            if len(shape) == 4:
                own = jnp.transpose(own.reshape(shape[3], *shape[:3]), (1, 2, 3, 0))
            leaves.append(own.reshape(shape))
            starts[kind] += size
        return jax.tree.unflatten(self.structure, leaves)

    def decay_mask(self, _: PyTree) -> PyTree:
        """The mask of `Detector.decay_mask` for packed parameters."""
        return self._by_name({kind: kind.decayed for kind in self.kinds})

    def learning_rates(self, _: PyTree) -> PyTree:
        """The rates of `Detector.learning_rates` for packed parameters."""
        return self._by_name({kind: kind.rate for kind in self.kinds})

    def _by_name(self, values: dict[Kind, Any]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for kind, value in values.items():
            found.setdefault(kind.part, {})[kind.name] = value
        return found


class Packing:
    """Packs the states of a run, and the detector that a step on packed states trains.

    Args:
      detector: what is trained.
      freeze: its parts that do not move, as for `yolojax.training.step.make_train_step`.
    """

    def __init__(self, detector: Detector, freeze: Sequence[str] = ()) -> None:
        shapes = variable_shapes(detector)
        self._layouts = {name: Layout(tree, kinds_of(name, tree, detector, freeze)) for name, tree in shapes.items()}
        self.freeze: tuple[str, ...] = (FROZEN,) if freeze else ()

    def pack(self, state: TrainState) -> TrainState:
        """Returns a state whose variables, average and optimiser are vectors."""
        params = self._layouts["params"]
        return state._replace(
            variables=self._pack_variables(state.variables),
            ema=self._pack_variables(state.ema),
            optimiser=_each(state.variables["params"], params.pack, state.optimiser),
        )

    def unpack(self, state: TrainState) -> TrainState:
        """Returns the state that was packed."""
        params = self._layouts["params"]
        return state._replace(
            variables=self._unpack_variables(state.variables),
            ema=self._unpack_variables(state.ema),
            optimiser=_each(state.variables["params"], params.unpack, state.optimiser),
        )

    def detector(self, detector: Detector) -> Detector:
        """Returns the detector whose variables are packed. Its ``forward_train`` has frozen parts frozen already."""
        params = self._layouts["params"]

        def init(key: PRNGKeyArray) -> Variables:
            return self._pack_variables(detector.init(key))

        def forward_train(
            variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
        ) -> tuple[Outputs, Variables]:
            outputs, new = detector.forward_train(self._unpack_variables(variables), images, targets, key)
            return outputs, self._pack_variables(new)

        unequal = any(kind.rate != 1 for kind in params.kinds)
        return detector._replace(
            init=init,
            forward_train=forward_train,
            freeze=same_forward_train,
            decay_mask=params.decay_mask,
            learning_rates=params.learning_rates if unequal else equal_rates,
        )

    def _pack_variables(self, variables: Variables) -> Variables:
        return {name: self._layouts[name].pack(tree) for name, tree in variables.items()}

    def _unpack_variables(self, variables: Variables) -> Variables:
        return {name: self._layouts[name].unpack(vectors) for name, vectors in variables.items()}


def packing_for(
    platform: str, detector: Detector, config: OptimiserConfig, freeze: Sequence[str] = ()
) -> Packing | None:
    """Returns how the states of a run are packed on a platform as JAX names it; None where they are left as they are.

    Processors start an operation in no time, and copying would cost them more. An optimiser that looks at whole arrays,
    such as LAMB, needs them apart.
    """
    return Packing(detector, freeze) if platform == "gpu" and config.name in ELEMENTWISE else None


def kinds_of(collection: str, shapes: PyTree, detector: Detector, freeze: Sequence[str]) -> list[Kind]:
    """Returns the kind of every leaf of a collection of variables, in the order of `jax.tree.leaves`."""
    leaves = jax.tree.leaves(shapes)
    frozen = jax.tree.leaves(freeze_mask(shapes, freeze))
    decayed, rates = [False] * len(leaves), [1.0] * len(leaves)
    if collection == "params":
        # One value may stand for a whole branch, as optax takes it in a mask.
        decayed = jax.tree.leaves(jax.tree.broadcast(detector.decay_mask(shapes), shapes))
        rates = jax.tree.leaves(jax.tree.broadcast(detector.learning_rates(shapes), shapes))
    return [
        Kind(FROZEN if still else FREE, str(leaf.dtype), bool(decays), float(rate))
        for leaf, still, decays, rate in zip(leaves, frozen, decayed, rates, strict=True)
    ]


def _each(params: PyTree, change: Callable[[PyTree], PyTree], optimiser: optax.OptState) -> optax.OptState:
    """Changes the trees of the parameters' structure and shapes in the state of an optimiser: its moments."""
    structure, shapes = jax.tree.structure(params), [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]

    def is_moment(tree: Any) -> bool:
        same = jax.tree.structure(tree) == structure
        return same and [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] == shapes

    return jax.tree.map(lambda tree: change(tree) if is_moment(tree) else tree, optimiser, is_leaf=is_moment)
