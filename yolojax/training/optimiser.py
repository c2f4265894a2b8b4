"""The optimiser of a run: optax transformations, schedule and the average of the parameters."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from yolojax.config import OptimiserConfig
from yolojax.errors import ConfigError
from yolojax.structures import Hyper


def decay_mask(params: PyTree) -> PyTree:
    """True for convolution and dense kernels: biases and normalisation scales are not decayed."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: getattr(path[-1], "key", None) == "kernel", params)


def make_optimiser(config: OptimiserConfig, total_steps: int, hyper: Hyper) -> optax.GradientTransformation:
    """Clip, precondition, decay kernels, scale by the schedule.

    Cheap to build inside a traced step: its state does not depend on ``hyper``, so learning rate and weight decay can
    be traced values and a change of either never recompiles.
    """
    if config.name == "adamw":
        direction = optax.scale_by_adam(b1=config.momentum, b2=config.second_moment)
    else:
        direction = optax.trace(decay=config.momentum, nesterov=True)
    schedule = make_schedule(config, total_steps)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        direction,
        optax.add_decayed_weights(hyper.weight_decay, mask=decay_mask),
        optax.scale_by_schedule(lambda step: -jnp.asarray(schedule(step)) * hyper.learning_rate),
    )


def make_schedule(config: OptimiserConfig, total_steps: int) -> optax.Schedule:
    """Linear warm-up to 1, then the chosen shape down to ``final_fraction`` at ``total_steps``."""
    warmup = min(config.warmup_steps, total_steps // 10)
    rest = max(total_steps - warmup, 1)
    if config.schedule == "cosine":
        main = optax.cosine_decay_schedule(1.0, rest, alpha=config.final_fraction)
    elif config.schedule == "linear":
        main = optax.linear_schedule(1.0, config.final_fraction, rest)
    elif config.schedule == "constant":
        main = optax.constant_schedule(1.0)
    else:
        raise ConfigError(f"optimiser.schedule = {config.schedule!r}: give cosine, linear or constant")
    if warmup == 0:
        return main
    return optax.join_schedules([optax.linear_schedule(1.0 / (warmup + 1), 1.0, warmup), main], [warmup])


def ema_decay_at(step: Float[Array, ""], decay: float) -> Float[Array, ""]:
    """Decay of the running average after ``step`` updates: short at first, so that the start is soon forgotten."""
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))
