"""The compiled training programs of a run, and the batch size that fits by XLA's analysis of their memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from yolojax.config import TrainConfig
from yolojax.data import InputImages, free_memory
from yolojax.detector import Detector
from yolojax.errors import ConfigError
from yolojax.processor.platform import compiler_options, for_platform
from yolojax.progress import Reporter
from yolojax.sharding.devices import Devices
from yolojax.structures import Batch, Hyper
from yolojax.training.packing import Packing
from yolojax.training.state import TrainState
from yolojax.training.step import StepReport, TrainStep

MEMORY_SHARE = 0.85
"""Share of a device's memory that a program may take; allocators need the rest."""

LARGEST_BATCH = 128
"""The largest batch that is chosen automatically: beyond it the default learning rates do not hold."""

STEPS_PER_EPOCH = 8
"""The batch size that is chosen automatically leaves at least so many steps in an epoch, where it can."""


class Programs:
    """A training step, compiled ahead of time for each shape of batch that comes.

    Nothing compiles unnoticed: a call whose types or placement differ from those compiled for is an error, so
    ``count`` is the number of training programs there are. ``seconds`` is how long compiling took.

    Args:
      step: the training step.
      devices: each holds the whole state and its part of a batch.
      donate: whether a call uses up the state it is given, which saves the memory of a second state; ``donates`` says
        so afterwards.
      packing: how the states of the step are packed; `pack` makes one of a state, `unpack` the state of one again. None
        where the step takes states as they are; both then change nothing.
    """

    def __init__(
        self, step: TrainStep, devices: Devices, *, donate: bool = True, packing: Packing | None = None
    ) -> None:
        self.seconds: float = 0.0
        self.donates: bool = donate
        self._devices = devices
        self.pack: Callable[[Any], Any] = _as_it_is
        self.unpack: Callable[[Any], Any] = _as_it_is
        if packing is not None:
            self.pack = jax.jit(packing.pack, out_shardings=devices.replicated)
            self.unpack = jax.jit(packing.unpack, out_shardings=devices.replicated)
        self._step = jax.jit(
            for_platform(devices.platform, step),
            donate_argnums=(0,) if donate else (),
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
        """Runs one step on a packed state; with ``donate``, ``state`` is used up."""
        key = _shapes(batch)
        if key not in self._compiled:
            self.compile(state, batch, hyper)
        return self._compiled[key](state, batch, hyper)

    def check(self, state: Any, example: Batch, config: TrainConfig, detector: Detector, hyper: Hyper) -> None:
        """Traces the step for batches like ``example``, so that what cannot be trained is found before any writing.

        ``state`` is not packed, and may be shapes.

        The trace is kept (which is why shapes have their sharding), and compiling begins where it ends. Raises
        `ConfigError` with what a layer or the loss says.
        """
        assert config.batch_size != "auto"
        batch = of_batch_size(example, config.batch_size)
        whole, split = self._devices.replicated, self._devices.split
        try:
            packed = jax.eval_shape(self.pack, state)
            self._step.eval_shape(_placed(packed, whole), _placed(batch, split), _placed(hyper, whole))
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            options = ", ".join(f"{key} = {value!r}" for key, value in config.model.options.items())
            trained = f"cannot be trained with {options}" if options else "cannot be trained"
            raise ConfigError(f"{detector.spec.name} {trained}: {type(error).__name__}: {error}") from error

    def compile(self, state: Any, batch: Any, hyper: Hyper, options: dict[str, Any] | None = None) -> int | None:
        """Compiles for these shapes (arrays or `jax.ShapeDtypeStruct`) of a packed state; returns its `memory`.

        ``options`` of XLA's compiler come beside those that training takes.
        """
        started, key = time.monotonic(), _shapes(batch)
        if key not in self._compiled:
            settings = compiler_options(self._devices.platform) | (options or {})
            compiled = self._step.lower(state, batch, hyper).compile(settings)
            self._compiled[key], self._memory[key] = compiled, _memory(compiled)
            self.seconds += time.monotonic() - started
        return self._memory[key]

    def memory(self) -> int | None:
        """Returns the bytes that the largest program needs on each device, by XLA's analysis; None without one."""
        return max((m for m in self._memory.values() if m is not None), default=None)

    def traffic(self) -> int | None:
        """Returns the bytes that a step of the last program reads and writes on all devices, by XLA's cost analysis.

        The analysis counts what each compiled operation touches, caches or not. None where XLA makes none.
        """
        analysis = next(reversed(self._compiled.values())).cost_analysis()
        bytes_ = (analysis or {}).get("bytes accessed")
        return None if not bytes_ else round(bytes_ * self._devices.number)

    def summary(self, expected: int = 1) -> str:
        """Returns one line for the end of a run that should need ``expected`` programs."""
        needs, plural = self.memory(), "" if self.count == 1 else "s"
        memory = "" if needs is None else f", which needs {needs / 1e9:.2f} GB of a device by XLA's analysis"
        return f"{self.count} training program{plural} compiled{memory}, {max(self.count - expected, 0)} recompilations"

    def compiled(self, batch: Any) -> Any:
        """Returns the compiled program for batches of these shapes, as `compile` made it."""
        return self._compiled[_shapes(batch)]

    def forget(self, batch: Any) -> None:
        """Drops the program for these shapes, which was compiled to be measured only."""
        self._compiled.pop(_shapes(batch), None)
        self._memory.pop(_shapes(batch), None)


def example_batch(images: InputImages) -> Batch:
    """Returns a batch of one image with the shapes and types of training batches; its pixels are zeros.

    No pixel is loaded: images that lie in the memory of several devices cannot be loaded one at a time.
    """
    return images.assemble(np.zeros((1, *images.input_size, 3), np.uint8), np.zeros(1, np.int64))


def of_batch_size(example: Batch, size: int) -> Any:
    """Returns the shapes of ``example`` with another number of images."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), example)


def choose_batch_size(need: Callable[[int], int], limit: int, unit: int, most: int) -> int:
    """Returns the largest ``unit * 2**n`` up to ``most`` whose program needs at most ``limit`` bytes.

    Args:
      need: bytes of the program for a batch size. It is expensive, so it is asked a few times only: memory grows
        linearly with the batch, up to the choices that XLA makes.
      limit: bytes of one device.
      unit: images that every device and part must have at least.
      most: at least ``unit``.

    Raises:
      ConfigError: when not even ``unit`` images fit.
    """
    size, first = unit, need(unit)
    if first > limit:
        raise ConfigError(
            f"batch_size = 'auto': even {unit} images need {first / 1e9:.2f} GB of {limit / 1e9:.2f} GB; "
            "give a smaller model.size or compute = bfloat16"
        )
    if most >= 2 * unit:
        second = min(4 * unit, unit * 2 ** int(math.log2(most / unit)))
        slope = max((need(second) - first) / (second - unit), 1.0)
        fits = min(most, unit + (limit - first) / slope)
        size = unit * 2 ** int(math.log2(fits / unit))
    while need(size) > limit:  # the linear extrapolation was too high
        size //= 2
    return size


def find_batch_size(
    programs: Programs,
    state: Any,
    images: InputImages,
    hyper: Hyper,
    devices: Devices,
    reporter: Reporter,
    accumulate: int = 1,
    input_size: tuple[int, int] | None = None,
) -> int:
    """Returns the batch size for ``auto``; its program is then compiled, and those of other sizes are forgotten.

    The choice rests on XLA's analysis of the compiled programs; nothing is run. ``state`` is not packed, and may be
    shapes. ``input_size`` is ``(height, width)`` of the batches in pixels, where it is not that of ``images``.
    """
    example = example_batch(images)
    if input_size is not None:
        example = example._replace(images=np.zeros((1, *input_size, 3), np.uint8))
    unit, limit = devices.number * accumulate, int(MEMORY_SHARE * memory_limit(devices.number))
    most = max(unit, min(LARGEST_BATCH, len(images) // STEPS_PER_EPOCH))
    asked: dict[int, int] = {}
    packed = jax.eval_shape(programs.pack, state)

    def need(size: int) -> int:
        if size not in asked:
            found = programs.compile(packed, of_batch_size(example, size), hyper)
            if found is None:
                raise ConfigError("batch_size = 'auto': this backend does not analyse memory; give a number")
            asked[size] = found
        return asked[size]

    size = choose_batch_size(need, limit, unit, most)
    for other in set(asked) - {size}:
        programs.forget(of_batch_size(example, other))
    reporter.say(
        f"batch size {size}: its program needs {asked[size] / 1e9:.2f} GB of the {limit / 1e9:.2f} GB that a device "
        f"may use ({len(asked)} sizes analysed, at most {most} for {len(images)} images)"
    )
    return size


def memory_limit(devices: int) -> int:
    """Returns the bytes of one device; processor devices share half of the machine's free memory."""
    told = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return told or free_memory() // 2 // devices


def _as_it_is(state: Any) -> Any:
    return state


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
