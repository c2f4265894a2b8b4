"""The optimiser of a run: optax transformations, the learning-rate schedule and the average of the parameters."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from yolojax.config import OptimiserConfig
from yolojax.detector import decay_matrices, equal_rates
from yolojax.errors import ConfigError
from yolojax.structures import Hyper

OPTIMIZERS: dict[str, Callable[[OptimiserConfig], optax.GradientTransformation]] = {
    "adamw": lambda c: optax.scale_by_adam(b1=c.b1, b2=c.b2),
    "sgd": lambda c: optax.trace(decay=c.momentum, nesterov=True),
    "nadamw": lambda c: optax.scale_by_adam(b1=c.b1, b2=c.b2, nesterov=True),
    "radam": lambda c: optax.scale_by_radam(b1=c.b1, b2=c.b2),
    "adabelief": lambda c: optax.scale_by_belief(b1=c.b1, b2=c.b2),
    "lion": lambda c: optax.scale_by_lion(b1=c.b1, b2=c.b2),
    "lamb": lambda c: optax.scale_by_adam(b1=c.b1, b2=c.b2, eps=1e-6),
    "rmsprop": lambda c: optax.chain(optax.scale_by_rms(decay=c.b2), optax.trace(decay=c.momentum)),
}
"""By name: the map from the clipped gradient to the direction of the step, before the learning rate is applied."""

ELEMENTWISE = frozenset(OPTIMIZERS) - {"lamb"}
"""Those that move every element by its own history; LAMB scales a step to the norm of a whole parameter."""


def make_optimiser(
    config: OptimiserConfig,
    hyper: Hyper,
    factor: float | Float[Array, ""] = 1.0,
    decay_mask: Callable[[PyTree], PyTree] = decay_matrices,
    learning_rates: Callable[[PyTree], PyTree] = equal_rates,
) -> optax.GradientTransformation:
    """Returns the optimiser: clip, precondition, decay weights, scale by the learning rate.

    Building it inside a traced step is cheap: its state depends neither on ``hyper`` nor on ``factor``, so learning
    rate and weight decay can be traced values, and changing one never recompiles.

    Args:
      config: kind and constants.
      hyper: its ``learning_rate`` and ``weight_decay`` are read.
      factor: of the learning rate at this step (`schedule_at`).
      decay_mask: says which parameters are decayed; a detector brings its own (`Detector.decay_mask`).
      learning_rates: says by what the rate of each parameter is multiplied; likewise (`Detector.learning_rates`).

    With ``config.decay`` "decoupled" a parameter p moves by ``-rate * (direction + weight_decay * p)`` (AdamW, arXiv
    1711.05101, algorithm 2). With "coupled" the decay is added to the gradient before the momentum, as in Darknet,
    YOLOX and `torch.optim.SGD`; a momentum m then makes it 1 / (1 - m) times as strong over many steps.
    """
    if config.name not in OPTIMIZERS:
        raise ConfigError(f"optimiser.name = {config.name!r}: give one of {', '.join(OPTIMIZERS)}")
    clip, direction = optax.clip_by_global_norm(config.clip_norm), OPTIMIZERS[config.name](config)
    decay = optax.add_decayed_weights(hyper.weight_decay, mask=decay_mask)
    steps = [clip, decay, direction] if config.decay == "coupled" else [clip, direction, decay]
    if config.name == "lamb":  # arXiv 1904.00962, algorithm 2: the decayed direction is scaled to the parameter's norm
        steps.append(optax.scale_by_trust_ratio())
    rate = -jnp.asarray(factor, jnp.float32) * hyper.learning_rate
    if learning_rates is equal_rates:
        return optax.chain(*steps, optax.scale(rate))

    def scale_each(updates: PyTree, params: PyTree | None) -> PyTree:
        del params
        own = jax.tree.broadcast(learning_rates(updates), updates)
        return jax.tree.map(lambda own, update: rate * own * update, own, updates)

    return optax.chain(*steps, optax.stateless(scale_each))


def schedule_at(
    config: OptimiserConfig, step: int | Int[Array, ""], total_steps: int | Int[Array, ""]
) -> Float[Array, ""]:
    """Returns the factor of the learning rate at a step: a linear warm-up to 1, then a fall to ``final_fraction``.

    The warm-up takes ``warmup_steps``, at most a tenth of the run. Then the factor falls by half a cosine (arXiv
    1608.03983, equation 5, without restarts), linearly, or not at all. Both arguments may be traced: the length of a
    run can change without recompiling.
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
    """Returns the decay of the running average after ``step`` updates: small at first, so that the start is forgotten.

    It is ``min(decay, (1 + step) / (10 + step))``.
    """
    return jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))


def update_ema(ema: PyTree, new: PyTree, decay: Float[Array, ""]) -> PyTree:
    """Returns the next running average. What is no floating-point number, such as a counter, is taken as it is."""

    def average(old: Array, now: Array) -> Array:
        return decay * old + (1 - decay) * now if jnp.issubdtype(now.dtype, jnp.inexact) else now

    return jax.tree.map(average, ema, new)
