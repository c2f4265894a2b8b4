"""How fast a detector trains on this machine, measured through the ordinary preparation, program and feeding."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from yolojax import zoo
from yolojax.bench.peak import bandwidth_of, peak_of, seconds_of
from yolojax.config import TrainConfig, check
from yolojax.data import device_batches, prefetch
from yolojax.detector import prepare_images
from yolojax.progress import Reporter
from yolojax.sharding.batches import on_split_batches
from yolojax.sharding.devices import device_memory
from yolojax.sharding.processes import replicate
from yolojax.structures import Batch
from yolojax.training.gradient import whole_gradient
from yolojax.training.log import EpochLog, checked
from yolojax.training.preparation import Preparation, prepare
from yolojax.training.state import TrainState
from yolojax.training.step import apply_gradient

WARM_UP = 8
"""Steps before the clock starts: the first ones touch their memory for the first time."""


@dataclass(frozen=True)
class Throughput:
    """What `measure_training` found. All numbers are of the whole program over all ``devices``.

    Attributes:
      detector: the zoo's name, with ``options``.
      input_size: ``(height, width)`` in pixels.
      batch_size: images a step.
      compute: floating-point type of the network.
      device: kind of the devices, and how many.
      parameters: trained values.
      forward_flops: of one image's convolutions; a multiplication and an addition count as two.
      programs: compiled for the steps that were timed; one is expected.
      compile_seconds: what compiling took.
      memory: bytes a device needs for the program, by XLA's analysis; None where it makes none.
      device_memory: most bytes in use on a device so far; None where the backend does not tell.
      steps: how many were timed.
      step_seconds: the median step.
      images_per_second: over all timed steps.
      waiting_share: share of the time in which the program waited for data.
      peak_flops, peak_source: operations a second that the devices can do, and who says so; None when nobody does.
      utilisation: ``3 x forward_flops x images_per_second / peak_flops``: the backward pass counts twice the forward.
      traffic: bytes that a step reads and writes on all devices, by XLA's cost analysis; None where it makes none.
      peak_bandwidth, bandwidth_source: bytes a second that the devices' memories can move, and who says so.
      bandwidth_share: ``traffic x steps a second / peak_bandwidth``, an upper bound: above 1 where caches serve most.
      parts: median seconds of parts of the step, each compiled by itself; empty when they were not asked for.
    """

    detector: str
    options: dict[str, Any]
    input_size: tuple[int, int]
    batch_size: int
    compute: str
    device: str
    devices: int
    parameters: int
    forward_flops: int
    programs: int
    compile_seconds: float
    memory: int | None
    device_memory: int | None
    steps: int
    step_seconds: float
    images_per_second: float
    waiting_share: float
    peak_flops: float | None
    peak_source: str | None
    utilisation: float | None
    traffic: int | None
    peak_bandwidth: float | None
    bandwidth_source: str | None
    bandwidth_share: float | None
    parts: dict[str, float]


def measure_training(
    config: TrainConfig, reporter: Reporter, *, seconds: float = 10.0, parts: bool = True, peak: float | None = None
) -> Throughput:
    """Trains for a while and measures it; nothing is kept.

    Args:
      config: the run; its length and validation do not matter.
      reporter: where progress goes.
      seconds: how long to train, at least; compilation and the first steps come on top.
      parts: also time the parts of the step apart, which compiles each once more.
      peak: operations a second of one device; None takes a data sheet's, or on a processor measures them.

    Raises:
      ConfigError, DataError: wrong settings or data, named.
      NonFiniteError: the loss stopped being finite.
    """
    ready = prepare(check(config), reporter)
    reporter.say("compiling")
    state = ready.step.pack(replicate(ready.fresh(total_steps=10**6), ready.devices.replicated))
    hyper = replicate(ready.hyper, ready.devices.replicated)
    feed = device_batches(
        ready.images, ready.sampler, ready.config.seed, ready.batch_size, ready.devices.split, resize=ready.resize
    )
    log, times, step = EpochLog(), [], 0
    batches = prefetch(feed)
    with closing(batches), reporter.task("training", round(seconds)) as advance:
        pending = None
        _, batch = next(batches)
        ready.step.compile(state, batch, hyper)
        started = last = time.perf_counter()
        # As in `fit`, the host is one step ahead of the device and reads each report while the next step computes.
        while step < WARM_UP + 3 or time.perf_counter() - started < seconds:
            if step == WARM_UP:
                started, log = time.perf_counter(), EpochLog()
                last = started
            waited = time.perf_counter()
            ids, batch = next(batches)
            log.waiting += time.perf_counter() - waited
            state, report = ready.step(state, batch, hyper)
            if pending is not None:
                log.add(checked(*pending, ready.images))
            pending = (step, ids, report)
            times.append(time.perf_counter() - last)
            last, step = time.perf_counter(), step + 1
            advance(min(round(last - started), round(seconds)), log.note())
        assert pending is not None
        checked(*pending, ready.images)
        elapsed = time.perf_counter() - started

    timed, state = step - WARM_UP, ready.step.unpack(state)
    rate = timed * ready.batch_size / elapsed
    forward = zoo.forward_flops(ready.detector)
    found, memory, traffic = peak_of(ready.devices, peak), bandwidth_of(ready.devices), ready.step.traffic()
    return Throughput(
        detector=ready.detector.spec.name,
        options=ready.config.model.options,
        input_size=ready.detector.spec.input_size,
        batch_size=ready.batch_size,
        compute=ready.config.compute,
        device=jax.devices()[0].device_kind,
        devices=ready.devices.number,
        parameters=zoo.parameter_count(state.variables),
        forward_flops=forward,
        programs=ready.step.count,
        compile_seconds=ready.step.seconds,
        memory=ready.step.memory(),
        device_memory=device_memory(),
        steps=timed,
        step_seconds=statistics.median(times[WARM_UP:]),
        images_per_second=rate,
        waiting_share=log.waiting / elapsed,
        peak_flops=found.value if found else None,
        peak_source=found.source if found else None,
        utilisation=3 * forward * rate / found.value if found else None,
        traffic=traffic,
        peak_bandwidth=memory.value if memory else None,
        bandwidth_source=memory.source if memory else None,
        bandwidth_share=traffic * rate / ready.batch_size / memory.value if memory and traffic else None,
        parts=measure_parts(ready, state, batch, reporter) if parts else {},
    )


def measure_parts(
    ready: Preparation, state: TrainState, batch: Batch, reporter: Reporter, repeats: int = 5
) -> dict[str, float]:
    """Returns the median seconds of augmentation, forward pass, loss, backward pass and optimiser.

    ``state`` is used up.

    Each is a program of its own, so that they need not add up to the step: the compiler merges what stands together.
    The loss includes its gradient with regard to what the network gave out; the backward pass is what the whole
    gradient takes beyond loss and forward pass, and the optimiser includes the running average. Of a batch in parts
    (``accumulate``) the parts of the whole batch are measured.
    """
    detector, hyper = on_split_batches(ready.detector, ready.devices.split), ready.hyper
    key = jax.random.fold_in(ready.step_seed, 1)

    @jax.jit
    def augment(batch: Batch) -> tuple[Any, Any]:
        changed = ready.augment(batch, jnp.int32(0), jnp.int32(1))
        return prepare_images(changed.images, detector.spec.preprocess), changed.targets

    @jax.jit
    def forward(variables: Any, images: Any, targets: Any) -> Any:
        return detector.forward_train(variables, images, targets, key)

    @jax.jit
    def loss(outputs: Any, targets: Any) -> Any:
        # Outputs may hold whole numbers too, such as the rows that a two-stage detector drew.
        gradient = jax.value_and_grad(lambda out: detector.loss(out, targets, hyper).reduce()[0], allow_int=True)
        return gradient(outputs)

    @jax.jit
    def gradient(variables: Any, images: Any, targets: Any) -> Any:
        return whole_gradient(detector, variables, images, targets, key, hyper)

    def follow(state: TrainState, found: Any) -> TrainState:
        return apply_gradient(state, found, hyper, ready.config.optimiser, detector, ready.config.freeze)[0]

    optimise = jax.jit(follow, donate_argnums=0, out_shardings=ready.devices.replicated)

    with reporter.task("timing the parts of a step", 5) as advance:
        images, targets = augment(batch)
        found = {"augmentation": _median(lambda: augment(batch), repeats)}
        advance(1)
        outputs, _ = forward(state.variables, images, targets)
        found["forward"] = _median(lambda: forward(state.variables, images, targets), repeats)
        advance(2)
        found["loss"] = _median(lambda: loss(outputs, targets), repeats)
        advance(3)
        del outputs
        slope = gradient(state.variables, images, targets)
        whole = _median(lambda: gradient(state.variables, images, targets), repeats)
        found["backward"] = whole - found["forward"] - found["loss"]
        advance(4)
        slope = replicate(slope, ready.devices.replicated)

        def one() -> TrainState:
            nonlocal state
            state = optimise(state, slope)
            return state

        found["optimiser"] = _median(one, repeats)
        advance(5)
    return found


def _median(run: Callable[[], Any], repeats: int) -> float:
    return statistics.median(seconds_of(run, repeats))
