"""One training step as a pure function of state and batch, compiled once for a whole run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from yolojax.augment.compose import Augmentation
from yolojax.config import OptimiserConfig
from yolojax.detector import Detector, freeze_mask, prepare_images
from yolojax.structures import Batch, Hyper
from yolojax.training.freeze import keep_frozen
from yolojax.training.gradient import Gradient, accumulated_gradient, whole_gradient
from yolojax.training.optimiser import ema_decay_at, make_optimiser, schedule_at
from yolojax.training.state import TrainState


class StepReport(NamedTuple):
    """What one step tells.

    ``counts["dropped"]`` are objects beyond the padding, those of a mosaic included; ``image_loss`` is each image's
    share, which names the culprit when ``finite`` is False.
    """

    loss: Float[Array, ""]
    parts: dict[str, Float[Array, ""]]
    counts: dict[str, Float[Array, ""]]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    image_loss: Float[Array, " B"]


TrainStep = Callable[[TrainState, Batch, Hyper], tuple[TrainState, StepReport]]


def augmentation_key(seed: PRNGKeyArray, step: int | Int[Array, ""]) -> PRNGKeyArray:
    """The key of the random changes that a step makes to its batch."""
    return jax.random.fold_in(jax.random.fold_in(seed, 0), step)


def follow_gradient(
    state: TrainState,
    found: Gradient,
    hyper: Hyper,
    config: OptimiserConfig,
    detector: Detector,
    freeze: Sequence[str] = (),
) -> tuple[TrainState, Float[Array, ""], Bool[Array, ""]]:
    """The next state, the norm of the gradient, and whether loss and norm are finite; if not, the state stays."""
    frozen = freeze_mask(state.variables["params"], freeze)
    frozen_variables = {name: freeze_mask(tree, freeze) for name, tree in state.variables.items()}
    gradient = keep_frozen(frozen, found.parameters, jax.tree.map(jnp.zeros_like, found.parameters))
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(found.loss) & jnp.isfinite(norm)

    params = state.variables["params"]
    optimiser = make_optimiser(
        config, hyper, schedule_at(config, state.step, state.total_steps), decay_mask=detector.decay_mask
    )
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, params)
    variables = {**found.state, "params": optax.apply_updates(params, updates)}
    decay = ema_decay_at(state.step.astype(jnp.float32), config.ema_decay)
    ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, variables)
    # Weight decay moves what has no gradient, and an average of equal numbers is rounded: hence to the byte.
    variables = keep_frozen(frozen_variables, variables, state.variables)
    ema = keep_frozen(frozen_variables, ema, state.ema)

    updated = TrainState(state.step + 1, state.total_steps, variables, ema, optimiser_state)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), updated, state), norm, finite


def make_train_step(
    detector: Detector,
    config: OptimiserConfig,
    augmentation: Augmentation,
    seed: PRNGKeyArray,
    *,
    plain_augmentation: Augmentation | None = None,
    plain_share: float = 0.0,
    accumulate: int = 1,
    freeze: Sequence[str] = (),
) -> TrainStep:
    """The step of a run: augment, forward, loss, gradient, update, average.

    A step whose loss or gradient is not finite leaves parameters, average and optimiser as they were and says so in its
    report.

    Args:
      detector: what is trained.
      config: how parameters move.
      augmentation: of the whole batch.
      seed: of augmentation and network; each step derives its own keys from it.
      plain_augmentation: takes the place of ``augmentation`` for the last ``plain_share`` of the run (mosaic closes
        before the end); both live in the one compiled program.
      plain_share: from 0 to 1.
      accumulate: parts of the batch that are computed one after another (see `accumulated_gradient`).
      freeze: parts of the detector (`freeze_mask`) whose parameters, running statistics and average do not move, and
        which normalise as at inference.
    """
    frozen = detector._replace(forward_train=detector.freeze(detector.forward_train, tuple(freeze)))
    gradient_of = whole_gradient if accumulate == 1 else accumulated_gradient(accumulate)

    def augment(state: TrainState, batch: Batch) -> Batch:
        key = augmentation_key(seed, state.step)
        if plain_augmentation is None:
            images, targets = augmentation(key, batch.images, batch.targets)
        else:
            plain_from = jnp.round(state.total_steps * (1 - jnp.float32(plain_share))).astype(jnp.int32)
            images, targets = jax.lax.cond(
                state.step < plain_from, augmentation, plain_augmentation, key, batch.images, batch.targets
            )
        return batch._replace(images=images, targets=targets)

    def train_step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepReport]:
        batch = augment(state, batch)
        images = prepare_images(batch.images, detector.spec.preprocess)
        model_key = jax.random.fold_in(jax.random.fold_in(seed, 1), state.step)
        found = gradient_of(frozen, state.variables, images, batch.targets, model_key, hyper)
        new, norm, finite = follow_gradient(state, found, hyper, config, detector, freeze)
        report = StepReport(
            loss=found.loss,
            parts=found.parts,
            counts={
                **{name: jnp.sum(value) for name, value in found.terms.counts.items()},
                "dropped": jnp.sum(batch.targets.dropped).astype(jnp.float32),
            },
            gradient_norm=norm,
            finite=finite,
            image_loss=sum(found.terms.sums.values(), start=jnp.zeros(batch.images.shape[0])),
        )
        return new, report

    return train_step
