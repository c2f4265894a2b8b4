"""The compiled training programs of a run: counted, and with what XLA says about their memory."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from yolojax.config import TrainConfig
from yolojax.errors import ConfigError
from yolojax.structures import Batch, Hyper
from yolojax.training.state import TrainState
from yolojax.training.step import StepReport, TrainStep


class Devices(NamedTuple):
    """All devices as one row: each holds the whole state (``replicated``) and its part of a batch (``split``)."""

    number: int
    replicated: NamedSharding
    split: NamedSharding


def all_devices() -> Devices:
    """Every device that jax sees."""
    count = len(jax.devices())
    mesh = jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))
    return Devices(count, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")))


class Programs:
    """A training step, compiled ahead of time for each shape of batch that comes.

    Nothing compiles behind its back: a call whose types or placement differ from those compiled for is an error, so
    ``count`` is the number of training programs there are. ``seconds`` is what compiling them took.
    """

    def __init__(self, step: TrainStep, devices: Devices) -> None:
        self.seconds = 0.0
        self._devices = devices
        self._step = jax.jit(
            step,
            donate_argnums=0,
            in_shardings=(devices.replicated, devices.split, devices.replicated),
            out_shardings=devices.replicated,
        )
        self._compiled: dict[tuple, Any] = {}
        self._memory: dict[tuple, int | None] = {}

    @property
    def count(self) -> int:
        """How many programs were compiled."""
        return len(self._compiled)

    def __call__(self, state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepReport]:
        """One step; ``state`` is used up."""
        key = _shapes(batch)
        if key not in self._compiled:
            self.compile(state, batch, hyper)
        return self._compiled[key](state, batch, hyper)

    def check(self, state: Any, example: Batch, config: TrainConfig, hyper: Hyper) -> None:
        """Trace the step for batches of such images: what cannot be trained is found before anything is written.

        The trace is kept (which is why shapes have their sharding), and compiling begins where it ends. Raises
        `ConfigError` with what a layer or the loss says.
        """
        size = config.batch_size
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), example)
        whole, split = self._devices.replicated, self._devices.split
        try:
            self._step.eval_shape(_placed(state, whole), _placed(batch, split), _placed(hyper, whole))
        except (TypeError, ValueError, ArithmeticError) as error:
            options = ", ".join(f"{key} = {value!r}" for key, value in config.model.options.items()) or "its defaults"
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{config.model.name} cannot be trained with {options}: {reason}") from error

    def compile(self, state: Any, batch: Any, hyper: Hyper) -> int | None:
        """Compile for these shapes (arrays or `jax.ShapeDtypeStruct`); gives `memory` of the program."""
        started, key = time.monotonic(), _shapes(batch)
        if key not in self._compiled:
            compiled = self._step.lower(state, batch, hyper).compile()
            self._compiled[key], self._memory[key] = compiled, _memory(compiled)
            self.seconds += time.monotonic() - started
        return self._memory[key]

    def memory(self) -> int | None:
        """Bytes that the largest program needs on each device, by XLA's own analysis; None where it makes none."""
        return max((m for m in self._memory.values() if m is not None), default=None)

    def traffic(self) -> int | None:
        """Bytes that a step of the last program reads and writes on all devices, by XLA's cost analysis; None where it
        makes none. It counts what each compiled operation touches, caches or not."""
        analysis = next(reversed(self._compiled.values())).cost_analysis()
        bytes_ = (analysis or {}).get("bytes accessed")
        return None if not bytes_ else round(bytes_ * self._devices.number)

    def summary(self, expected: int = 1) -> str:
        """One line for the end of a run that should need so many programs."""
        needs, plural = self.memory(), "" if self.count == 1 else "s"
        memory = "" if needs is None else f", which needs {needs / 1e9:.2f} GB of a device by XLA's analysis"
        return f"{self.count} training program{plural} compiled{memory}, {max(self.count - expected, 0)} recompilations"

    def forget(self, batch: Any) -> None:
        """Drop the program for these shapes: it was compiled to be measured only."""
        self._compiled.pop(_shapes(batch), None)
        self._memory.pop(_shapes(batch), None)


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of arrays, or of shapes, with where they lie."""

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        weak = getattr(x, "weak_type", False)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding, weak_type=weak)

    return jax.tree.map(placed, tree)


def _shapes(batch: Any) -> tuple:
    return tuple(x.shape for x in jax.tree.leaves(batch))


def _memory(compiled: Any) -> int | None:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    # Donated arguments are where the outputs lie: they count once.
    return (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        - analysis.alias_size_in_bytes
        + analysis.temp_size_in_bytes
        + analysis.generated_code_size_in_bytes
    )


def check_batch_size(batch_size: int, accumulate: int, devices: Devices) -> None:
    """Raises `ConfigError` unless every device has equally many images of every part of a batch."""
    if batch_size % (devices.number * accumulate):
        of = f"{devices.number} devices" + (f" times accumulate = {accumulate}" if accumulate > 1 else "")
        raise ConfigError(f"batch_size = {batch_size}: give a multiple of the {of}")


def device_memory() -> int | None:
    """Most bytes that were in use at once on the first device so far; None where the backend does not tell."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
