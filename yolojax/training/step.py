"""One training step as a pure function of state, batch and hyper-parameters, compiled once for a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from yolojax.augment import Augmentation
from yolojax.config import OptimiserConfig, Remat, TrainConfig
from yolojax.detector import Detector, freeze_mask, prepare_images
from yolojax.errors import ConfigError
from yolojax.structures import Batch, Hyper, hyper_as_arrays
from yolojax.training.gradient import Gradient, accumulated_gradient, whole_gradient
from yolojax.training.optimiser import ema_decay_at, make_optimiser, schedule_at, update_ema
from yolojax.training.packing import Packing
from yolojax.training.remat import remat_function
from yolojax.training.state import TrainState

HyperAt = Callable[[Hyper, Int[Array, ""], Int[Array, ""]], Hyper]
"""Hyper-parameters as a function of the step: ``(hyper, step, total_steps) -> hyper``.

The function is traced into the compiled step, so it must be pure and must not branch in Python on its arguments. It
gets the values of the configuration and returns those of this step:

    def l1_at_the_end(hyper, step, total_steps):
        return hyper._replace(lambda_l1=jnp.where(step >= 0.95 * total_steps, 1.0, 0.0))
"""


class StepReport(NamedTuple):
    """What one step tells the host.

    Attributes:
      loss: of the batch.
      parts: of the loss, by name.
      counts: diagnostics added up over the batch; ``dropped`` counts the objects beyond the padding, those of a mosaic
        included.
      gradient_norm: before clipping.
      finite: whether loss and gradient norm are.
      image_loss: each image's share of the loss, which names the culprit when ``finite`` is False.
    """

    loss: Float[Array, ""]
    parts: dict[str, Float[Array, ""]]
    counts: dict[str, Float[Array, ""]]
    gradient_norm: Float[Array, ""]
    finite: Bool[Array, ""]
    image_loss: Float[Array, " B"]


TrainStep = Callable[[TrainState, Batch, Hyper], tuple[TrainState, StepReport]]


AugmentStep = Callable[[Batch, Int[Array, ""], Int[Array, ""]], Batch]
"""``(batch, step, total_steps) -> batch``: the random changes that a step makes to its batch."""


def make_augment(
    augmentation: Augmentation, seed: PRNGKeyArray, *, mixing: Augmentation | None = None, close_mixing: float = 0.0
) -> AugmentStep:
    """Returns the random changes of a run's batches.

    Args:
      augmentation: of the whole batch, in every step.
      seed: of the run's steps; each step derives its own key from it.
      mixing: comes before ``augmentation``, except in the last ``close_mixing`` of the run (mosaic is closed before the
        end). It is the only part of the one compiled program that a step may leave out.
      close_mixing: a share, from 0 to 1.
    """

    def augment(batch: Batch, step: Int[Array, ""], total_steps: Int[Array, ""]) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(seed, 0), step)
        images, targets = batch.images, batch.targets
        if mixing is not None and close_mixing < 1:
            key, own = jax.random.split(key)
            mixes = step < jnp.round(total_steps * (1 - jnp.float32(close_mixing))).astype(jnp.int32)
            images, targets = jax.lax.cond(mixes, mixing, lambda _, *batch: batch, own, images, targets)
        images, targets = augmentation(key, images, targets)
        return batch._replace(images=images, targets=targets)

    return augment


def make_train_step(
    detector: Detector,
    config: OptimiserConfig,
    augmentation: Augmentation,
    seed: PRNGKeyArray,
    *,
    mixing: Augmentation | None = None,
    close_mixing: float = 0.0,
    accumulate: int = 1,
    remat: Remat = "none",
    freeze: Sequence[str] = (),
    hyper_at: HyperAt | None = None,
    packing: Packing | None = None,
) -> TrainStep:
    """Returns the step of a run: augment, forward, loss, gradient, update, average.

    A step whose loss or gradient is not finite leaves parameters, average and optimiser as they were and says so in
    its report.

    Args:
      detector: what is trained.
      config: how parameters move.
      augmentation, mixing, close_mixing: the random changes of its batches (see `make_augment`).
      seed: of these changes and of the network; each step derives its own keys from it.
      accumulate: in how many parts the batch is computed, one after another (see `accumulated_gradient`).
      remat: which activations are computed again in the backward pass (see `yolojax.training.remat`).
      freeze: parts of the detector, such as ``backbone``, whose parameters, running statistics and average do not move
        and which normalise as at inference (see `yolojax.detector.freeze_mask`).
      hyper_at: changes the hyper-parameters with the step.
      packing: the step takes and returns states that are packed so, which was made for this detector and ``freeze``.
    """
    augment = make_augment(augmentation, seed, mixing=mixing, close_mixing=close_mixing)
    gradient_of = whole_gradient if accumulate == 1 else accumulated_gradient(accumulate)
    if freeze:
        detector = detector._replace(forward_train=detector.freeze(detector.forward_train, tuple(freeze)))
    detector = detector._replace(forward_train=remat_function(remat)(detector.forward_train))
    if packing is not None:
        detector, freeze = packing.detector(detector), packing.freeze

    def train_step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepReport]:
        hyper = hyper._replace(progress=progress_at(state))
        if hyper_at is not None:
            own: Any = hyper_at(hyper, state.step, state.total_steps)
            if not isinstance(own, Hyper):
                raise ConfigError(
                    f"hyper returns a Hyper, such as hyper._replace(lambda_l1=1.0), not {type(own).__name__}"
                )
            hyper = hyper_as_arrays(own)
        with jax.named_scope("augmentation"):
            batch = augment(batch, state.step, state.total_steps)
            images = prepare_images(batch.images, detector.spec.preprocess)
        model_key = jax.random.fold_in(jax.random.fold_in(seed, 1), state.step)
        found = gradient_of(detector, state.variables, images, batch.targets, model_key, hyper)
        with jax.named_scope("optimiser"):
            new, norm, finite = apply_gradient(state, found, hyper, config, detector, freeze)
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


def progress_at(state: TrainState) -> Float[Array, ""]:
    """The share of the run that has passed before the step that this state takes next."""
    return state.step.astype(jnp.float32) / jnp.maximum(state.total_steps.astype(jnp.float32), 1.0)


def apply_gradient(
    state: TrainState,
    found: Gradient,
    hyper: Hyper,
    config: OptimiserConfig,
    detector: Detector,
    freeze: Sequence[str] = (),
) -> tuple[TrainState, Float[Array, ""], Bool[Array, ""]]:
    """Updates parameters, optimiser and average by a gradient.

    Returns the next state, the norm of the gradient, and whether loss and norm are finite. Where they are not, the
    state is returned as it was. Of the detector only ``decay_mask`` and ``learning_rates`` are read.
    """
    params = state.variables["params"]
    frozen = {name: freeze_mask(tree, freeze) for name, tree in state.variables.items()}
    gradient = keep_frozen(frozen["params"], found.parameters, jax.tree.map(jnp.zeros_like, found.parameters))
    norm = optax.tree.norm(gradient)
    finite = jnp.isfinite(found.loss) & jnp.isfinite(norm)

    factor = schedule_at(config, state.step, state.total_steps)
    optimiser = make_optimiser(config, hyper, factor, detector.decay_mask, detector.learning_rates)
    updates, optimiser_state = optimiser.update(gradient, state.optimiser, params)
    variables = {**found.state, "params": optax.apply_updates(params, updates)}
    ema = update_ema(state.ema, variables, ema_decay_at(state.step.astype(jnp.float32), config.ema_decay))
    # Weight decay moves parameters without a gradient, and averaging equal numbers rounds them. Frozen leaves are
    # therefore put back as they were.
    variables = keep_frozen(frozen, variables, state.variables)
    ema = keep_frozen(frozen, ema, state.ema)

    updated = TrainState(state.step + 1, state.total_steps, variables, ema, optimiser_state)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), updated, state), norm, finite


def keep_frozen(frozen: PyTree, new: PyTree, old: PyTree) -> PyTree:
    """Returns the leaves of ``new``, and those of ``old`` where ``frozen`` is True, to the byte."""
    return jax.tree.map(lambda is_frozen, a, b: b if is_frozen else a, frozen, new, old)


def make_hyper(config: TrainConfig, detector: Detector) -> Hyper:
    """Returns the traced hyper-parameters: the defaults, overridden by detector, optimiser and user in this order.

    Raises `ConfigError` for a name that `Hyper` does not have, or that is no setting.
    """
    known = [name for name in Hyper._fields if name != "progress"]
    for setting, values in (("hyper", config.hyper), ("final_hyper", config.final_hyper)):
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f"unknown hyper-parameter {setting}.{unknown[0]}: known are {', '.join(known)}")
    values = {
        **detector.spec.hyper,
        "learning_rate": config.optimiser.learning_rate,
        "weight_decay": config.optimiser.weight_decay,
        **config.hyper,
    }
    return hyper_as_arrays(Hyper()._replace(**values))


def make_hyper_at(config: TrainConfig, own: HyperAt | None = None) -> HyperAt | None:
    """Returns what changes the hyper-parameters with the step; None where nothing does.

    The last ``config.final_share`` of the run takes ``config.final_hyper``. A function of the user's own comes after.
    """
    if not config.final_hyper:
        return own

    def hyper_at(hyper: Hyper, step: Int[Array, ""], total_steps: Int[Array, ""]) -> Hyper:
        final_from = jnp.round(total_steps * (1 - jnp.float32(config.final_share))).astype(jnp.int32)
        final = hyper_as_arrays(hyper._replace(**config.final_hyper))
        hyper = jax.tree.map(lambda late, early: jnp.where(step >= final_from, late, early), final, hyper)
        return hyper if own is None else own(hyper, step, total_steps)

    return hyper_at
