"""What a compiled program says about its cost: memory, collectives, launches, time by the compiler's model, and where.

Everything is computed from the program's text (`yolojax.planning.hlo`) and from what the compiler counts. Nothing is
measured.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from yolojax.planning.hlo import Instruction, Module, Step, bytes_of, executed, inside, parts_of
from yolojax.planning.targets import Device

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")

NO_WORK = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "add-dependency", "", "domain", "iota"),
}
"""Opcodes that cost nothing, or next to nothing, when they are run."""

OPERATIONS = 10
"""How many of the most expensive operations are told."""

GRAPH_SIZE = 5
"""Kernels from which on XLA makes a CUDA graph of them (its flag ``xla_gpu_graph_min_graph_size``)."""

NOTEWORTHY = 2**16
"""Bytes of a result from which on an operation without an estimate is told of. Below are single numbers and keys."""


@dataclass(frozen=True)
class Memory:
    """Bytes on each chip, by the compiler's analysis, the padding of layouts included.

    Attributes:
      arguments: what the program is given: parameters, running average, optimiser and batch for a training step.
      outputs: what it gives and that does not lie where an argument was.
      temporary: activations and whatever else lives for the time of a call.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporary: int
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.outputs + self.temporary + self.code


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind.

    Attributes:
      kind: such as ``all-reduce``.
      count: how many run in a call.
      bytes: what each chip sends, in a ring.
      seconds: what that takes at the link's published speed; they have a latency besides, and may overlap with other
        work.
    """

    kind: str
    count: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Operation:
    """Operations that come from one place of the program.

    Attributes:
      place: the layer, augmentation or other part.
      share: of the estimated cycles, or on a GPU of the bytes that all operations touch.
      count: how many there are.
      milliseconds: by the compiler's model; on a GPU what their bytes take at the memory's published bandwidth.
    """

    place: str
    share: float
    count: int
    milliseconds: float


def memory_of(stats: object) -> Memory:
    """Returns the memory of a program from what ``compiled.memory_analysis()`` gives."""

    def size(name: str) -> int:
        return int(getattr(stats, f"{name}_size_in_bytes"))

    # Donated arguments are where outputs lie: they count once.
    outputs = max(size("output") - size("alias"), 0)
    return Memory(size("argument"), outputs, size("temp"), size("generated_code"))


_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def refused_memory(message: str) -> tuple[int, int] | None:
    """Reads the error of a TPU's compiler for a program that does not fit: the bytes needed, and those there are.

    None for any other message.
    """
    size = r"([\d.]+)([KMGT]?)i?B?"
    for pattern in (rf"Used {size} of {size} hbm", rf"required .*\({size}\) exceeds available HBM \({size}\)"):
        if found := re.search(pattern, message, re.IGNORECASE):
            return round(float(found[1]) * _UNITS[found[2].upper()]), round(float(found[3]) * _UNITS[found[4].upper()])
    return None


def collectives_of(module: Module, device: Device) -> list[Collective]:
    """Returns what the chips send to each other in a call, by kind, those first that take longest.

    A ring of n chips is assumed: of ``b`` bytes an all-reduce sends ``2 (n - 1) / n b`` from each chip, a gather, a
    scatter or an exchange ``(n - 1) / n b``, where b is the whole array.
    """
    seen: set[int] = set()
    counts: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for step in executed(module):
        for instruction in (step.instruction, *inside(module, step.instruction)):
            kind = instruction.opcode.removesuffix("-start")
            if kind not in COLLECTIVES or (instruction.channel is not None and instruction.channel in seen):
                continue
            if instruction.channel is not None:  # the halves of one collective bear the same number
                seen.add(instruction.channel)
            counts[kind] += step.times
            sent[kind] += step.times * sent_bytes(instruction, module.partitions)
    found = [Collective(kind, counts[kind], sent[kind], sent[kind] / device.link) for kind in counts]
    return sorted(found, key=lambda collective: -collective.bytes)


def sent_bytes(instruction: Instruction, partitions: int) -> int:
    """Returns the bytes that each chip sends in a collective."""
    n = instruction.groups or partitions
    kind, shape = instruction.opcode.removesuffix("-start"), instruction.shape
    if kind != instruction.opcode and kind in ("all-gather", "collective-permute", "all-to-all", "reduce-scatter"):
        parts = parts_of(shape)  # (operands, results, ...)
        shape = parts[1] if len(parts) > 1 else parts[0]
    size = bytes_of(shape)
    if kind == "all-reduce":
        return round(2 * (n - 1) / n * size)
    if kind == "reduce-scatter":
        return (n - 1) * size
    return size if kind == "collective-permute" else round((n - 1) / n * size)


def launches_of(module: Module) -> dict[str, int]:
    """Returns how many kernels and copies a GPU starts in a call, by kind."""
    counts: Counter[str] = Counter()
    for step in executed(module):
        opcode = step.instruction.opcode
        if opcode not in NO_WORK and not opcode.endswith(("-done", "-update")):
            counts[launch_kind(step.instruction)] += step.times
    return dict(counts.most_common())


def launch_kind(instruction: Instruction) -> str:
    """Returns what is started: a fusion, a copy, a convolution, a matrix product, a collective or something else."""
    opcode, target = instruction.opcode.removesuffix("-start"), instruction.target
    if opcode == "custom-call":
        if target.startswith("__cudnn$"):
            return "cuDNN convolution" if "conv" in target.lower() else "cuDNN"
        return "matrix product" if target.startswith("__cublas$") else target.strip("_") or "custom call"
    if opcode in COLLECTIVES:
        return "collective"
    return opcode


@dataclass(frozen=True)
class Graphs:
    """What a GPU is given as CUDA graphs, each started at once.

    Attributes:
      count: graphs in a call.
      kernels: kernels and copies in them.
    """

    count: int
    kernels: int


def graphs_of(module: Module) -> Graphs:
    """Returns the CUDA graphs that XLA makes of a program by itself, from the order in which operations are started.

    Fusions and copies that follow each other are one graph, where they are at least `GRAPH_SIZE`; a convolution or a
    matrix product of a library, a collective, a loop or a conditional ends it. XLA 0.10.2's own list of what it starts
    says the same. With a driver at hand it may take in matrix products as well, which then join graphs.
    """
    found = _graphs(module, module.entry)
    return Graphs(len(found), sum(found))


def _graphs(module: Module, computation: str) -> list[int]:
    """The kernels of each graph that a call of a computation starts."""
    found: list[int] = []
    length = 0
    for instruction in module.computations.get(computation, []):
        opcode = instruction.opcode
        if opcode in NO_WORK or opcode.endswith(("-done", "-update")):
            continue
        if opcode in ("fusion", "copy"):
            length += 1
            continue
        found, length = [*found, length], 0
        called = [_graphs(module, name) for name in instruction.calls]
        if opcode == "conditional":
            found += max(called, key=sum, default=[])
        elif opcode in ("while", "call"):
            found += [kernels for graphs in called for kernels in graphs] * (instruction.trips or 1)
    return [kernels for kernels in [*found, length] if kernels >= GRAPH_SIZE]


@dataclass(frozen=True)
class Time:
    """Where a call spends its time.

    Attributes:
      seconds: of all operations one after another. On a TPU by the compiler's own model; on a GPU, whose compiler has
        none, what their arrays take at the memory's published bandwidth (more where only a part is read, less where
        caches serve).
      phases: the share of each part of the program.
      operations: the most expensive places, the dearest first.
      without_estimate: operations that the compiler of a TPU gives no estimate for, by opcode, those whose results are
        large (`NOTEWORTHY`); their time comes on top.
      bytes_without_estimate: bytes of their results.
      unknown_loops: operations in loops whose length the compiler does not know; they count once.
      bytes: what all operations read and write.
    """

    seconds: float
    phases: dict[str, float]
    operations: list[Operation]
    without_estimate: dict[str, int]
    bytes_without_estimate: int
    unknown_loops: int
    bytes: int


def time_of(module: Module, device: Device) -> Time:
    """Returns where a call of the program spends its time."""
    seconds: defaultdict[str, float] = defaultdict(float)
    phases: defaultdict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    missing_bytes = touched = unknown = 0
    for step in executed(module):
        instruction = step.instruction
        if instruction.opcode in NO_WORK or instruction.opcode.endswith(("-done", "-update")):
            continue
        if (opcode := instruction.opcode.removesuffix("-start")) in COLLECTIVES:
            continue  # they are told of by themselves
        moved = step.times * touched_bytes(step)
        touched += moved
        unknown += step.in_unknown_loop
        if device.clock is None:
            taken = moved / device.bandwidth
        elif instruction.cycles is not None:
            taken = step.times * instruction.cycles / device.clock
        else:
            size = bytes_of(instruction.shape)
            if size >= NOTEWORTHY and opcode not in ("copy", "slice"):
                missing[worst_opcode(module, instruction)] += step.times
                missing_bytes += step.times * size
            continue
        phase, place = place_of(op_name_of(module, instruction), instruction.opcode)
        seconds[place] += taken
        phases[phase] += taken
        counts[place] += step.times
    whole = sum(seconds.values()) or 1.0
    dearest = sorted(seconds, key=lambda place: -seconds[place])[:OPERATIONS]
    return Time(
        seconds=sum(seconds.values(), start=0.0),
        phases={name: phases[name] / whole for name in sorted(phases, key=lambda name: -phases[name])},
        operations=[Operation(name, seconds[name] / whole, counts[name], 1e3 * seconds[name]) for name in dearest],
        without_estimate=dict(missing.most_common()),
        bytes_without_estimate=missing_bytes,
        unknown_loops=unknown,
        bytes=touched,
    )


def touched_bytes(step: Step) -> int:
    """Returns what an operation reads and writes at most: its operands and its result."""
    instruction = step.instruction
    if instruction.opcode in ("gather", "dynamic-slice", "slice"):  # reads no more of its operand than it gives
        return 2 * bytes_of(instruction.shape)
    return bytes_of(instruction.shape) + sum(bytes_of(shape) for shape in step.operand_shapes)


def worst_opcode(module: Module, instruction: Instruction) -> str:
    """Returns ``gather`` or ``scatter`` for a fusion that holds one, else the opcode."""
    opcodes = {inner.opcode for inner in inside(module, instruction)} | {instruction.opcode}
    return next((opcode for opcode in ("gather", "scatter", "sort") if opcode in opcodes), instruction.opcode)


def op_name_of(module: Module, instruction: Instruction) -> str:
    """Returns where an instruction comes from; of a fusion that nobody named, where the first named part comes from."""
    if instruction.op_name or instruction.opcode != "fusion":
        return instruction.op_name
    return next((inner.op_name for inner in inside(module, instruction) if inner.op_name), "")


PHASES = ("augmentation", "loss", "optimiser", "decode", "postprocess")
"""Names that the programs give to their parts (`jax.named_scope`)."""

_WRAPPED = re.compile(r"^(?!p?jit\()\w+\((.*)\)$")
_NOISE = re.compile(
    r"^(while|body|cond|closed_call|shard_map|checkpoint|rematted_computation|branch_\d+_fun|platform_index|"
    r"custom_jvp_call|custom_vjp_call|body_fun|cond_fun|_\w+|.*\..*|p?jit\(.*|<.*)$"
)


def place_of(op_name: str, opcode: str) -> tuple[str, str]:
    """Returns the phase and the place that a name of JAX's speaks of.

    ``jit(train_step)/transpose(jvp(Network))/backbone/stem/conv/conv_general_dilated`` is the phase ``backward`` and
    the place ``backward: backbone/stem/conv``. Left out are the primitive, which comes last, the class of the network,
    JAX's own wrappings and functions of its library. What nobody named are copies and the like, which the compiler
    added.
    """
    if "/" not in op_name:
        return "unnamed", f"unnamed {opcode}"
    words = split_name(op_name)
    plain: list[str] = []
    for word in words[:-1]:
        while wrapped := _WRAPPED.match(word):
            word = wrapped[1]
        if word and not _NOISE.match(word):
            plain.append(word)
    if len(plain) > 1 and plain[0][0].isupper():
        plain = plain[1:]
    backward = any(word.startswith("transpose(") for word in words)
    for phase in PHASES:
        if phase in plain:
            place = "/".join(plain[plain.index(phase) :])
            return phase, f"{place} (backward)" if backward else place
    phase = "backward" if backward else "forward" if plain else "other"
    return phase, f"{phase}: {'/'.join(plain) or words[-1]}"


def split_name(op_name: str) -> list[str]:
    """Splits a name at its slashes, but not within brackets."""
    words, depth, word = [], 0, ""
    for letter in op_name:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "/" and depth <= 0:
            words.append(word)
            word = ""
        else:
            word += letter
    return [*words, word]


def largest_batch(first: tuple[int, int], second: tuple[int, int], limit: int, unit: int) -> int:
    """Returns the largest batch whose memory, on the line through two batches, is within a limit.

    Args:
      first, second: batch size and the bytes that a chip needs for it.
      limit: bytes of a chip.
      unit: the batch size is a multiple of it.
    """
    (a, needs_a), (b, needs_b) = first, second
    slope = (needs_b - needs_a) / (b - a)
    if slope <= 0:  # memory that does not grow tells nothing of what fits
        return max((size for size, needs in (first, second) if needs <= limit), default=0)
    return max(0, int((a + (limit - needs_a) / slope) // unit) * unit)


def sum_seconds(collectives: Iterable[Collective]) -> float:
    """Returns the time of collectives one after another."""
    return sum((collective.seconds for collective in collectives), start=0.0)
