"""Whether a program fits a chip, and the sentence that says what limits it."""

from __future__ import annotations

from yolojax.planning.analysis import Memory, Time
from yolojax.planning.targets import Device
from yolojax.training.programs import MEMORY_SHARE

LAUNCH_SECONDS = 4e-6
"""What it takes to start a kernel on a GPU, as is assumed here. A call cannot be faster than the sum of its starts."""

SMALLER = "give a smaller batch, more parts (accumulate), remat of segments, bfloat16, or more or larger chips"


def memory_limit(device: Device) -> int:
    """Returns the bytes of a chip that a program may have: those that the compiler of a TPU allows, a share of a GPU's.

    A GPU's memory also holds CUDA's context, cuDNN's workspaces and what the allocator cannot use.
    """
    return round(device.facts["usable"] if device.kind == "tpu" else MEMORY_SHARE * device.memory)


def limits(
    device: Device,
    memory: Memory,
    beside: int,
    limit: int,
    spent: Time,
    sending: float,
    launches: int,
    floor: float,
) -> str:
    """Returns one sentence that says what limits a program.

    Args:
      device: one chip.
      memory: of the program.
      beside: further bytes on the chip.
      limit: bytes that a program may have.
      spent: where its time goes.
      sending: seconds of its collectives at the link's published speed.
      launches: of a GPU.
      floor: seconds of the network's operations at the chip's peak.
    """
    if memory.total + beside > limit:
        kinds = {
            "temporary arrays (activations)": memory.temporary,
            "arguments (parameters, optimiser, batch)": memory.arguments,
            "outputs": memory.outputs,
        }
        most = max(kinds, key=lambda kind: kinds[kind])
        return (
            f"memory: it needs {(memory.total + beside) / 1e9:.1f} GB of {limit / 1e9:.1f} GB, "
            f"{kinds[most] / 1e9:.1f} GB of it for {most}; {SMALLER}"
        )
    if device.kind == "gpu":
        started = f"starting {launches:,} kernels, at an assumed {1e6 * LAUNCH_SECONDS:g} microseconds each"
        parts = {
            started: launches * LAUNCH_SECONDS,
            "reading and writing memory, at the published bandwidth": spent.seconds,
            "the network's operations, at the published peak": floor,
            "sending between GPUs, at the link's published speed": sending,
        }
        most = max(parts, key=lambda part: parts[part])
        others = ", ".join(
            f"{1e3 * seconds:.1f} ms for {part}" for part, seconds in parts.items() if seconds and part != most
        )
        return f"{most}, takes longest: {1e3 * parts[most]:.1f} ms; beside it {others}"
    gathers = spent.without_estimate
    if gathers:
        count, kinds = sum(gathers.values()), ", ".join(gathers)
        hidden = (
            f"; {count} operations ({kinds}), whose results hold {spent.bytes_without_estimate / 1e9:.2f} GB, come on "
            "top without an estimate"
        )
    else:
        hidden = ""
    if sending > spent.seconds:
        return (
            f"sending between chips: {1e3 * sending:.1f} ms against {1e3 * spent.seconds:.1f} ms of computing{hidden}"
        )
    phase, share = max(spent.phases.items(), key=lambda entry: entry[1], default=("nothing", 0.0))
    dearest = spent.operations[0] if spent.operations else None
    place = "" if dearest is None else f"; the dearest place is {dearest.place} with {dearest.share:.0%}"
    reached = f"the network's operations alone would take {1e3 * floor:.1f} ms at the chip's peak"
    return f"{phase} takes {share:.0%} of the estimated {1e3 * spent.seconds:.1f} ms{place}; {reached}{hidden}"
