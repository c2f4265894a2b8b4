"""Reads the text of a compiled program (XLA's HLO): its instructions, what they call, and what they are said to cost.

The text is what ``compiled.as_text()`` gives. Everything here is a pure function of that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {
    **{"pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32},
    **{"s64": 64, "u64": 64, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128, "token": 0},
}
"""Bits of an element by XLA's name of its type; every type of 8-bit floating-point numbers begins with ``f8``."""


class Instruction(NamedTuple):
    """One instruction of a compiled program.

    Attributes:
      name: within its module.
      opcode: such as ``fusion``.
      shape: of its result, as XLA writes it; a tuple in brackets.
      operands: the names of its operands.
      calls: the computations that it calls: of a fusion, a loop, a conditional or a call.
      op_name: where it comes from, as JAX named it; empty where nobody did.
      cycles: as the compiler of a TPU estimates them; None where it does not.
      trips: of a loop, how often it runs; None where the compiler does not know it.
      target: of a custom call, what is called.
      channel: of a collective, its number; a collective in two halves bears the same one twice.
      groups: of a collective, how many devices take part in each group; None where the text does not say.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    op_name: str = ""
    cycles: int | None = None
    trips: int | None = None
    target: str = ""
    channel: int | None = None
    groups: int | None = None


class Module(NamedTuple):
    """A compiled program: instructions by the computation that they stand in, and which computation is entered."""

    computations: dict[str, list[Instruction]]
    entry: str
    partitions: int


_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\]")
_CALLS = re.compile(r"\b(?:calls|to_apply|body|condition|branch_computations|true_computation|false_computation)=")
_NAMES = re.compile(r"%?([\w.\-]+)")


def parse_module(text: str) -> Module:
    """Reads a whole program. Raises `ValueError` when the text has no entry, and so is no compiled program."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if line.startswith("}"):
            current = None
        elif not line.startswith(" ") and (head := _HEAD.match(line)):
            current = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif current is not None and (found := _LINE.match(line)):
            current.append(parse_instruction(found[1], found[2]))
    if not entry:
        raise ValueError("the text holds no ENTRY computation")
    partitions = re.search(r"\bnum_partitions=(\d+)", text[:20_000])
    return Module(computations, entry, int(partitions[1]) if partitions else 1)


def parse_instruction(name: str, rest: str) -> Instruction:
    """Reads what stands right of ``name =``: shape, opcode, operands and attributes."""
    end = _closing(rest, 0) if rest.startswith("(") else rest.find(" ")
    shape, after = rest[:end], rest[end:]
    opcode = _OPCODE.match(after)
    if opcode is None:
        return Instruction(name, "", shape)
    last = _closing(after, opcode.end() - 1)
    inside, attributes = after[opcode.end() : last - 1], after[last:]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    loop = re.search(r'"known_trip_count":\{"n":"(\d+)"', attributes)
    cycles = re.search(r'"estimated_cycles":"(\d+)"', attributes)
    channel = re.search(r"\bchannel_id=(\d+)", attributes)
    op_name = re.search(r'op_name="((?:[^"\\]|\\.)*)"', attributes)
    target = re.search(r'custom_call_target="([^"]*)"', attributes)
    return Instruction(
        name=name,
        opcode=opcode[1],
        shape=shape,
        operands=operands,
        calls=tuple(_called(attributes)),
        op_name=op_name[1] if op_name else "",
        cycles=int(cycles[1]) if cycles else None,
        trips=int(loop[1]) if loop else None,
        target=target[1] if target else "",
        channel=int(channel[1]) if channel else None,
        groups=group_size(attributes),
    )


def _called(attributes: str) -> Iterator[str]:
    for found in _CALLS.finditer(attributes):
        rest = attributes[found.end() :]
        if rest.startswith("{"):
            yield from _NAMES.findall(rest[1 : rest.index("}")])
        elif name := _NAMES.match(rest):
            yield name[1]


def _closing(text: str, start: int) -> int:
    """The position behind the bracket that closes the one at ``start``."""
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return at + 1
    return len(text)


def group_size(attributes: str) -> int | None:
    """Returns how many devices take part in each group of a collective.

    XLA writes groups as lists (``{{0,1},{2,3}}``), as a shape of all devices (``[2,4]<=[8]``, groups times members) or
    by the axes of a mesh (``mesh['data'=4,'model'=2] {'data'}``).
    """
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sides = {name: int(side) for name, side in re.findall(r"'([^']*)'=(\d+)", found[1])}
        size = 1
        for axis in re.findall(r"'([^']*)'", found[2]):
            size *= sides.get(axis, 1)
        return size
    return None


def bytes_of(shape: str) -> int:
    """Returns the bytes of all arrays of a shape, without the padding of its layout."""
    bits = 0
    for kind, sides in _ARRAY.findall(shape):
        elements = 1
        for side in filter(None, sides.split(",")):
            elements *= int(side)
        bits += elements * BITS.get(kind, 8 if kind.startswith("f8") else 0)
    return bits // 8


def parts_of(shape: str) -> list[str]:
    """Returns the parts of a tuple's shape, or the shape itself where it is none."""
    if not shape.startswith("("):
        return [shape]
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(shape):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(letter, 0)
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(re.sub(r"/\*.*?\*/", "", shape[start:at]).strip())
            start = at + 1
    return [part for part in parts if part]


class Step(NamedTuple):
    """An instruction that the device executes, how often, and the result shapes of its operands."""

    instruction: Instruction
    times: int
    operand_shapes: tuple[str, ...]
    in_unknown_loop: bool


def executed(module: Module) -> Iterator[Step]:
    """Yields what a run of the program executes: loops as often as they run, of each conditional its dearest branch.

    What stands inside a fusion is part of it and not yielded. A loop whose length the compiler does not know counts
    once.
    """
    yield from _executed(module, module.entry, 1, False)


def _executed(module: Module, computation: str, times: int, unknown: bool) -> Iterator[Step]:
    instructions = module.computations.get(computation, [])
    shapes = {instruction.name: instruction.shape for instruction in instructions}
    for instruction in instructions:
        opcode = instruction.opcode
        if opcode == "while":
            trips = instruction.trips
            for called in instruction.calls:
                yield from _executed(module, called, times * (trips or 1), unknown or trips is None)
        elif opcode == "conditional":
            branches = [list(_executed(module, called, times, unknown)) for called in instruction.calls]
            yield from max(branches, key=_weight, default=[])
        elif opcode in ("call", "async-start") and any(called in module.computations for called in instruction.calls):
            for called in instruction.calls:
                yield from _executed(module, called, times, unknown)
        else:
            operands = tuple(shapes[name] for name in instruction.operands if name in shapes)
            yield Step(instruction, times, operands, unknown)


def _weight(steps: list[Step]) -> tuple[int, int]:
    """By what the dearest of several branches is chosen: cycles, or where nobody estimates them bytes."""
    cycles = sum(step.times * (step.instruction.cycles or 0) for step in steps)
    return cycles, sum(step.times * bytes_of(step.instruction.shape) for step in steps)


def inside(module: Module, instruction: Instruction) -> Iterator[Instruction]:
    """Yields the instructions that a fusion is made of, those of fusions within it included."""
    for called in instruction.calls:
        for inner in module.computations.get(called, []):
            yield inner
            yield from inside(module, inner)
