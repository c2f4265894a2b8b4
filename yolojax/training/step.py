"""One training step as a pure function of state and batch, compiled once for a whole run."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from yolojax.augment.compose import Augmentation
from yolojax.config import OptimiserConfig
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.structures import Batch, Hyper, LossTerms
from yolojax.training.optimiser import ema_decay_at, make_optimiser
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


def make_train_step(
    detector: Detector,
    config: OptimiserConfig,
    total_steps: int,
    augmentation: Augmentation,
    seed: PRNGKeyArray,
    *,
    plain_from: int | None = None,
    plain_augmentation: Augmentation | None = None,
) -> TrainStep:
    """The step of a run: augment, forward, loss, gradient, update, average.

    A step whose loss or gradient is not finite leaves parameters, average and optimiser as they were and says so in its
    report. From step ``plain_from`` on, ``plain_augmentation`` takes the place of ``augmentation`` (mosaic closes
    before the end of a run); both live in the one compiled program.
    """

    def augment(step: Array, batch: Batch) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(seed, 0), step)
        if plain_from is None or plain_augmentation is None:
            images, targets = augmentation(key, batch.images, batch.targets)
        else:
            images, targets = jax.lax.cond(
                step < plain_from, augmentation, plain_augmentation, key, batch.images, batch.targets
            )
        return batch._replace(images=images, targets=targets)

    def train_step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepReport]:
        batch = augment(state.step, batch)
        images = prepare_images(batch.images, detector.spec.preprocess)
        model_key = jax.random.fold_in(jax.random.fold_in(seed, 1), state.step)

        def loss_of(params: Variables) -> tuple[Float[Array, ""], tuple[LossTerms, dict, Variables]]:
            variables = {**state.variables, "params": params}
            outputs, new_state = detector.forward_train(variables, images, batch.targets, model_key)
            terms = detector.loss(outputs, batch.targets, hyper)
            loss, parts = terms.reduce()
            return loss, (terms, parts, new_state)

        (loss, (terms, parts, new_state)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            state.variables["params"]
        )
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        optimiser = make_optimiser(config, total_steps, hyper)
        updates, optimiser_state = optimiser.update(gradient, state.optimiser, state.variables["params"])
        variables = {**new_state, "params": optax.apply_updates(state.variables["params"], updates)}
        decay = ema_decay_at(state.step.astype(jnp.float32), config.ema_decay)
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, variables)
        updated = TrainState(state.step + 1, variables, ema, optimiser_state)
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), updated, state)
        report = StepReport(
            loss=loss,
            parts=parts,
            counts={
                **{name: jnp.sum(value) for name, value in terms.counts.items()},
                "dropped": jnp.sum(batch.targets.dropped).astype(jnp.float32),
            },
            gradient_norm=norm,
            finite=finite,
            image_loss=sum(terms.sums.values(), start=jnp.zeros(batch.images.shape[0])),
        )
        return new, report

    return train_step
