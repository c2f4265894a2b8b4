"""A plan as text for people, and as plain values for programs."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from yolojax.planning.plan import Plan, ProgramPlan
from yolojax.planning.programs import WORDS

HONEST = (
    "All figures are estimates of the target's compiler, or follow from them and from published speeds; nothing was "
    "measured."
)


def as_dict(plan: Plan) -> dict[str, Any]:
    """Returns a plan as values that JSON can hold."""
    return {**dataclasses.asdict(plan), "note": HONEST}


def as_text(plan: Plan) -> str:
    """Returns a plan as a page of text."""
    height, width = plan.input_size
    chips = f"{plan.chips} x {plan.device}" if plan.chips > 1 else plan.device
    options = "".join(f", {key} = {value!r}" for key, value in plan.options.items())
    parts = f" in {plan.accumulate} parts" if plan.accumulate > 1 else ""
    head = (
        f"{plan.detector}{options}: {width} x {height} pixels, batch {plan.batch_size}{parts}, {plan.compute}, "
        f"{'' if plan.remat == 'none' else f'remat of {plan.remat}, '}"
        f"{plan.classes} classes, {plan.objects} objects"
    )
    lines = [*textwrap.wrap(head, 118), f"{plan.target}: {chips}, by {plan.compiler}", "", verdict(plan)]
    for program in plan.programs:
        lines += ["", *program_lines(program)]
    return "\n".join([*lines, "", *textwrap.wrap(HONEST, 118)])


def verdict(plan: Plan) -> str:
    """Returns the answer in one sentence: whether everything fits, and the largest batch that does."""
    failed = [WORDS[program.program] for program in plan.programs if not program.fits]
    fits = f"does not fit: {', '.join(failed)}" if failed else "fits"
    if plan.largest_batch is None:
        return fits
    of = f" ({plan.largest_batch // plan.chips} on each chip)" if plan.chips > 1 else ""
    how = "on the line through two compiled batches"
    if not plan.largest_batch:
        return f"{fits}; no batch of the training step does, {how}"
    return f"{fits}; the largest batch that fits is about {plan.largest_batch:,}{of}, {how}"


def program_lines(program: ProgramPlan) -> list[str]:
    """Returns what is told of one program."""
    rows: list[tuple[str, str]] = []
    share = program.needs / program.limit
    rows.append(("memory", f"{gigabytes(program.needs)} of {gigabytes(program.limit)} on each chip ({share:.0%})"))
    if program.memory is not None:
        kinds = {
            "arguments": program.memory.arguments,
            "outputs": program.memory.outputs,
            "temporary": program.memory.temporary,
            "code": program.memory.code,
            "beside it": program.beside,
        }
        rows.append(("", ", ".join(f"{name} {gigabytes(size)}" for name, size in kinds.items() if size)))
    rows.append(("", "given: " + ", ".join(f"{name} {gigabytes(size)}" for name, size in program.state.items())))
    if program.collectives:
        told = [
            f"{c.count} {c.kind} of {gigabytes(c.bytes)} in all: {1e3 * c.seconds:.2f} ms" for c in program.collectives
        ]
        rows.append(("sending", "; ".join(told) + ", at the link's published speed"))
    elif program.time is not None:
        rows.append(("sending", "nothing goes between chips"))
    if program.launches is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in list(program.launches.items())[:6])
        started = sum(program.launches.values())
        rows.append(("launches", f"{started:,}: {kinds}"))
        if program.graphs is not None and program.graphs.count:
            count, inside = program.graphs.count, program.graphs.kernels
            rows.append(
                ("", f"{inside:,} of them in {count:,} CUDA graphs, so that {started - inside + count:,} are started "
                 "one by one")
            )  # fmt: skip
    if program.time is not None:
        rows += time_rows(program)
    rows.append(("limits", program.limits))
    fits = "fits" if program.fits else "DOES NOT FIT"
    title = f"{WORDS[program.program]}, batch {program.batch_size}"
    lines = [f"{title}: {fits} (compiled in {program.compile_seconds:.0f} s)"]
    for name, text in rows:
        wrapped = textwrap.wrap(text, 106, break_long_words=False, break_on_hyphens=False)
        lines += [f"  {name if i == 0 else '':<10}{line}" for i, line in enumerate(wrapped)]
    if program.time is not None and program.time.operations:
        of = "of the estimated cycles" if program.launches is None else "of the bytes that operations touch"
        lines.append(f"  most expensive, {of}:")
        lines += [
            f"    {operation.share:>6.1%} {operation.milliseconds:>9.3f} ms  {operation.place} ({operation.count})"
            for operation in program.time.operations
        ]
    return lines


def time_rows(program: ProgramPlan) -> list[tuple[str, str]]:
    """Returns the rows about time."""
    spent = program.time
    assert spent is not None
    rows: list[tuple[str, str]] = []
    if program.utilisation is not None:
        rate = program.batch_size / spent.seconds
        rows.append(
            ("time", f"{1e3 * spent.seconds:.2f} ms by the compiler's model ({rate:,.0f} images/s), "
             f"{program.utilisation:.1%} of the chip's peak")
        )  # fmt: skip
    else:
        moved = (
            f"{1e3 * spent.seconds:.2f} ms for the memory to move {gigabytes(spent.bytes)} at its published bandwidth"
        )
        rows.append(("time", f"{moved}; {1e3 * program.floor_seconds:.2f} ms for the network at the published peak"))
    rows.append(("", ", ".join(f"{name} {share:.0%}" for name, share in spent.phases.items() if share >= 0.005)))
    if spent.without_estimate:
        kinds = ", ".join(f"{count} {kind}" for kind, count in spent.without_estimate.items())
        rows.append(
            ("", f"on top of it, without an estimate: {kinds}; their results hold "
             f"{gigabytes(spent.bytes_without_estimate)}")
        )  # fmt: skip
    if spent.unknown_loops:
        rows.append(("", f"{spent.unknown_loops} operations in loops of unknown length count once"))
    return rows


def gigabytes(size: int | float) -> str:
    """Returns bytes as a text with three digits."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"
