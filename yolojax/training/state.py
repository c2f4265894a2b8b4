"""Everything that a training step changes, as one pytree."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from yolojax.config import OptimiserConfig
from yolojax.detector import Detector, Variables, check_variables
from yolojax.structures import Hyper
from yolojax.training.optimiser import make_optimiser


class TrainState(NamedTuple):
    """The arrays of a run.

    Attributes:
      step: number of steps done.
      total_steps: where the learning-rate schedule and the run end. A budget of time may move it without recompiling.
      variables: the variables that are trained.
      ema: their running average, which is what is evaluated and released.
      optimiser: the state of the optax optimiser.

    The state holds no random key: every step derives its key from the run's seed and ``step``.
    """

    step: Int[Array, ""]
    total_steps: Int[Array, ""]
    variables: Variables
    ema: Variables
    optimiser: optax.OptState


def make_state(detector: Detector, config: OptimiserConfig, total_steps: int, key: PRNGKeyArray) -> TrainState:
    """Returns a fresh state. It is a pure function, so that `jax.eval_shape` gives the shapes of a checkpoint."""
    variables = detector.init(key)
    check_variables(variables)
    return wrap_variables(variables, config, total_steps)


def wrap_variables(variables: Variables, config: OptimiserConfig, total_steps: int) -> TrainState:
    """Returns a state at step 0 around given variables."""
    optimiser = make_optimiser(config, Hyper())
    copy: PyTree = jax.tree.map(jnp.array, variables)
    zero, total = jnp.zeros((), jnp.int32), jnp.asarray(total_steps, jnp.int32)
    return TrainState(zero, total, variables, copy, optimiser.init(variables["params"]))
