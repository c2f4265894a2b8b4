"""`make_plan`: compiles the programs of a run for a target and gathers what its compiler says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from yolojax import zoo
from yolojax.config import Remat, TrainConfig, check
from yolojax.data import Dataset
from yolojax.errors import ConfigError
from yolojax.planning.analysis import (
    Collective,
    Graphs,
    Memory,
    Time,
    collectives_of,
    graphs_of,
    largest_batch,
    launches_of,
    memory_of,
    refused_memory,
    sum_seconds,
    time_of,
)
from yolojax.planning.compilers import compiler_version, open_target
from yolojax.planning.hlo import parse_module
from yolojax.planning.limits import SMALLER, limits, memory_limit
from yolojax.planning.programs import (
    WORDS,
    Program,
    ProgramName,
    Workload,
    evaluation,
    prediction,
    train_program,
    workload,
)
from yolojax.planning.targets import Target
from yolojax.progress import Reporter
from yolojax.sharding.devices import Devices

PROGRAMS: tuple[ProgramName, ...] = ("train", "evaluate", "predict")


@dataclass(frozen=True)
class ProgramPlan:
    """What the compiler says of one program. All figures are its estimates, or follow from them; none is measured.

    Attributes:
      program: ``train``, ``evaluate`` or ``predict``.
      batch_size: images of a call, on all chips together.
      compile_seconds: what compiling took here.
      fits: whether the memory of a chip suffices.
      needs: bytes on each chip; where the compiler refused a program that does not fit, what it says it would need.
      limit: bytes that a program may have.
      memory: the same by kind; None where the compiler refused.
      state: bytes of parameters, running average, optimiser and batch on each chip, before the padding of layouts.
      beside: bytes that lie on the chip besides, because training goes on after an evaluation.
      collectives: what chips send to each other.
      launches: of a GPU, kernels and copies that are started; None for a TPU.
      graphs: how many of them XLA starts together, as CUDA graphs; None for a TPU.
      time: where a call spends its time; None where the compiler refused.
      work: operations of the network's convolutions on each chip, three times those of the forward pass in training.
      utilisation: ``work`` over what a TPU could do in the estimated time; None for a GPU.
      floor_seconds: what no call can be faster than, by published figures: the work at the chip's peak.
      limits: a sentence that says what limits it.
    """

    program: str
    batch_size: int
    compile_seconds: float
    fits: bool
    needs: int
    limit: int
    memory: Memory | None
    state: dict[str, int]
    beside: int
    collectives: list[Collective]
    launches: dict[str, int] | None
    graphs: Graphs | None
    time: Time | None
    work: float
    utilisation: float | None
    floor_seconds: float
    limits: str


@dataclass(frozen=True)
class Plan:
    """A run on a target, by the target's compiler.

    Attributes:
      target: such as ``v5e:4x4``.
      device: one chip, in words.
      chips: their number.
      compiler: its package and version.
      detector, options, input_size, classes, objects, compute, accumulate, remat: what was compiled.
      batch_size: images a step, on all chips.
      programs: what was compiled, in the order of `PROGRAMS`.
      largest_batch: the largest that fits, on the line through two compiled batches; None where it was not asked for.
      estimated: always true: no figure is a measurement.
    """

    target: str
    device: str
    chips: int
    compiler: str
    detector: str
    options: dict[str, Any]
    input_size: tuple[int, int]
    classes: int
    objects: int
    compute: str
    accumulate: int
    remat: Remat
    batch_size: int
    programs: list[ProgramPlan]
    largest_batch: int | None
    estimated: bool = True


def make_plan(
    config: TrainConfig,
    target: Target,
    reporter: Reporter,
    *,
    data: Dataset | None = None,
    classes: int = 80,
    objects: int = 128,
    programs: Sequence[ProgramName] = PROGRAMS,
    largest: bool = True,
) -> Plan:
    """Compiles the programs of a run for a target, and tells what the compiler says of them. Nothing is run.

    Args:
      config: the run; its batch size is a number.
      target: the chips.
      reporter: told how far compiling is.
      data: training images, whose classes, shape and number of objects hold; none needs to be decoded.
      classes, objects: those of a run without ``data``; see `yolojax.planning.programs.workload`.
      programs: which of the programs.
      largest: also find the largest batch that fits, which compiles the training step once more.

    Raises:
      ConfigError: a setting is wrong, the chips cannot share the batch equally, or the compiler is missing.
    """
    config = check(config)
    devices = open_target(target)
    work = workload(config, data, classes=classes, objects=objects)
    assert config.batch_size != "auto"
    makers: dict[ProgramName, Callable[[], Program]] = {
        "train": lambda: train_program(work, devices, int(config.batch_size)),
        "evaluate": lambda: evaluation(work, devices),
        "predict": lambda: prediction(work, devices),
    }
    wanted = [makers[name]() for name in PROGRAMS if name in programs]
    second = _second_batch(work, devices) if largest and "train" in programs else None
    beside = _beside(wanted)
    found: list[ProgramPlan] = []
    largest_fitting = None
    with reporter.task(f"compiling for {target.device.name}", len(wanted) + (second is not None)) as advance:
        for done, program in enumerate(wanted):
            kept = beside if program.name == "evaluate" else 0
            found.append(_planned(program, target, work, devices, reporter, kept))
            advance(done + 1, WORDS[program.name])
        if second is not None:
            other = _planned(second, target, work, devices, reporter, 0)
            first = next(plan for plan in found if plan.program == "train")
            largest_fitting = largest_batch(
                (first.batch_size, first.needs),
                (other.batch_size, other.needs),
                first.limit,
                devices.number * config.accumulate,
            )
            advance(len(wanted) + 1)
    return Plan(
        target=target.text,
        device=target.device.name,
        chips=target.chips,
        compiler=compiler_version(target),
        detector=work.detector.spec.name,
        options=dict(config.model.options),
        input_size=work.input_size,
        classes=len(work.detector.spec.class_names),
        objects=work.max_objects,
        compute=config.compute,
        accumulate=config.accumulate,
        remat=config.remat,
        batch_size=config.batch_size,
        programs=found,
        largest_batch=largest_fitting,
    )


def _second_batch(work: Workload, devices: Devices) -> Program:
    """The training step with another batch, half as large where that can be shared."""
    batch_size, unit = int(work.config.batch_size), devices.number * work.config.accumulate
    half = batch_size // 2 // unit * unit
    return train_program(work, devices, half or 2 * batch_size)


def _beside(programs: Sequence[Program]) -> int:
    """Bytes of the state that an evaluation during a run does not read, and that stay on the chip meanwhile."""
    sizes = next((program.sizes for program in programs if program.name == "train"), None)
    return 0 if sizes is None else sizes.parameters + sizes.optimiser


def _planned(
    program: Program, target: Target, work: Workload, devices: Devices, reporter: Reporter, beside: int
) -> ProgramPlan:
    what = f"{WORDS[program.name]}, batch {program.batch_size}"
    reporter.say(f"compiling {what}, for {target.text} (this takes minutes)")
    started = time.monotonic()
    refused: tuple[int, int] | None = None
    compiled: Any = None
    try:
        compiled = program.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = refused_memory(str(error))
        if refused is None:
            first_line = str(error).strip().splitlines()[0]
            raise ConfigError(f"target {target.text}: its compiler cannot compile the {what}: {first_line}") from error
    seconds = time.monotonic() - started
    reporter.say(f"compiled {what} in {seconds:.0f} s")
    device, images = target.device, program.batch_size / target.chips
    height, width = work.detector.spec.input_size
    larger = work.input_size[0] * work.input_size[1] / (height * width) if program.name == "train" else 1.0
    work_done = program.passes * zoo.forward_flops(work.detector) * images * larger
    floor = work_done / device.flops
    sizes = {name: size for name, size in program.sizes._asdict().items() if size}
    common: dict[str, Any] = {
        "program": program.name,
        "batch_size": program.batch_size,
        "compile_seconds": seconds,
        "state": sizes,
        "beside": beside,
        "work": work_done,
        "floor_seconds": floor,
    }
    if compiled is None:
        assert refused is not None
        needs, limit = refused
        return ProgramPlan(
            **common,
            fits=False,
            needs=needs,
            limit=limit,
            memory=None,
            collectives=[],
            launches=None,
            graphs=None,
            time=None,
            utilisation=None,
            limits=f"memory: it needs {needs / 1e9:.1f} GB of the {limit / 1e9:.1f} GB of a chip; {SMALLER}",
        )
    module = parse_module(compiled.as_text())
    memory, limit = memory_of(compiled.memory_analysis()), memory_limit(device)
    collectives, spent = collectives_of(module, device), time_of(module, device)
    launches = launches_of(module) if device.kind == "gpu" else None
    utilisation = floor / spent.seconds if device.kind == "tpu" and spent.seconds else None
    fits = memory.total + beside <= limit
    return ProgramPlan(
        **common,
        fits=fits,
        needs=memory.total + beside,
        limit=limit,
        memory=memory,
        collectives=collectives,
        launches=launches,
        graphs=graphs_of(module) if device.kind == "gpu" else None,
        time=spent,
        utilisation=utilisation,
        limits=limits(
            device,
            memory,
            beside,
            limit,
            spent,
            sum_seconds(collectives),
            sum(launches.values()) if launches else 0,
            floor,
        ),
    )
