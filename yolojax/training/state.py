"""Everything that a training step changes, as one pytree."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from yolojax.config import OptimiserConfig
from yolojax.detector import Detector, Variables
from yolojax.structures import Hyper
from yolojax.training.optimiser import make_optimiser


class TrainState(NamedTuple):
    """``variables`` are trained, ``ema`` is their running average, which is what is evaluated and released.

    ``total_steps`` is where schedule and run end; a budget of time may move it, which never recompiles. There is no
    random key in it: every step derives its key from the run's seed and ``step``.
    """

    step: Int[Array, ""]
    total_steps: Int[Array, ""]
    variables: Variables
    ema: Variables
    optimiser: optax.OptState


def make_state(detector: Detector, config: OptimiserConfig, total_steps: int, key: PRNGKeyArray) -> TrainState:
    """A fresh state; pure, so that `jax.eval_shape` gives its shapes for restoring a checkpoint."""
    return wrap_variables(detector.init(key), config, total_steps)


def wrap_variables(variables: Variables, config: OptimiserConfig, total_steps: int) -> TrainState:
    """A state at step 0 around given variables."""
    optimiser = make_optimiser(config, Hyper())
    copy: PyTree = jax.tree.map(jnp.array, variables)
    zero, total = jnp.zeros((), jnp.int32), jnp.asarray(total_steps, jnp.int32)
    return TrainState(zero, total, variables, copy, optimiser.init(variables["params"]))
