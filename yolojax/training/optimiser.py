"""The optimiser of a run: optax transformations, schedule and the average of the parameters."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from yolojax.config import OptimiserConfig
from yolojax.detector import decay_matrices
from yolojax.errors import ConfigError
from yolojax.structures import Hyper

Direction = Callable[[OptimiserConfig], optax.GradientTransformation]

DIRECTIONS: dict[str, Direction] = {
    "adamw": lambda c: optax.scale_by_adam(b1=c.momentum, b2=c.second_moment),
    "sgd": lambda c: optax.trace(decay=c.momentum, nesterov=True),
    "nadamw": lambda c: optax.scale_by_adam(b1=c.momentum, b2=c.second_moment, nesterov=True),
    "radam": lambda c: optax.scale_by_radam(b1=c.momentum, b2=c.second_moment),
    "adabelief": lambda c: optax.scale_by_belief(b1=c.momentum, b2=c.second_moment),
    "lion": lambda c: optax.scale_by_lion(b1=c.momentum, b2=c.second_moment),
    "lamb": lambda c: optax.scale_by_adam(b1=c.momentum, b2=c.second_moment, eps=1e-6),
    "rmsprop": lambda c: optax.chain(optax.scale_by_rms(decay=c.second_moment), optax.trace(decay=c.momentum)),
}
"""From the clipped gradient to the direction of the step, before weight decay and learning rate."""


def make_optimiser(
    config: OptimiserConfig,
    hyper: Hyper,
    factor: float | Float[Array, ""] = 1.0,
    *,
    decay_mask: Callable[[PyTree], PyTree] = decay_matrices,
) -> optax.GradientTransformation:
    """Clip, precondition, decay kernels, scale by the learning rate times ``factor`` (the schedule's, at this step).

    ``decay_mask`` says which parameters weight decay moves (`Detector.decay_mask`).

    Cheap to build inside a traced step: its state depends neither on ``hyper`` nor on ``factor``, so learning rate and
    weight decay can be traced values and a change of either never recompiles.
    """
    if config.name not in DIRECTIONS:
        raise ConfigError(f"optimiser.name = {config.name!r}: give one of {', '.join(DIRECTIONS)}")
    steps = [
        optax.clip_by_global_norm(config.clip_norm),
        DIRECTIONS[config.name](config),
        optax.add_decayed_weights(hyper.weight_decay, mask=decay_mask),
    ]
    if config.name == "lamb":  # arXiv 1904.00962, algorithm 2: the decayed direction is scaled to the parameter's norm
        steps.append(optax.scale_by_trust_ratio())
    return optax.chain(*steps, optax.scale(-jnp.asarray(factor, jnp.float32) * hyper.learning_rate))


def schedule_at(
    config: OptimiserConfig, step: int | Int[Array, ""], total_steps: int | Int[Array, ""]
) -> Float[Array, ""]:
    """The factor of the learning rate at a step: linear warm-up to 1, then the chosen shape to ``final_fraction``.

    The warm-up takes ``warmup_steps``, at most a tenth of the run. The rest falls by half a cosine (arXiv 1608.03983,
    equation 5, without restarts), linearly, or not at all. Both arguments may be traced: the length of a run can
    change without recompiling.
    """
    step, total = jnp.asarray(step, jnp.float32), jnp.asarray(total_steps, jnp.float32)
    warmup = jnp.minimum(config.warmup_steps, jnp.floor(total / 10))
    progress = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1), 0, 1)
    if config.schedule == "cosine":
        left = (1 + jnp.cos(jnp.pi * progress)) / 2
    elif config.schedule == "linear":
        left = 1 - progress
    elif config.schedule == "constant":
        left = jnp.ones_like(progress)
    else:
        raise ConfigError(f"optimiser.schedule = {config.schedule!r}: give cosine, linear or constant")
    return jnp.where(
        step < warmup, (step + 1) / (warmup + 1), config.final_fraction + (1 - config.final_fraction) * left
    )


def ema_decay_at(step: Float[Array, ""], decay: float) -> Float[Array, ""]:
    """Decay of the running average after ``step`` updates: short at first, so that the start is soon forgotten."""
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))
