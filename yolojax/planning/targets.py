"""What a run can be planned for: TPU slices and GPUs, with their published figures, and the texts that name them.

The figures stand in ``devices.json`` with their sources.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from yolojax.errors import ConfigError

MOST_GPUS = 8
"""GPUs of one host, which is what is planned for."""


class Device(NamedTuple):
    """One chip.

    Attributes:
      kind: ``tpu`` or ``gpu``.
      key: as a target names it, such as ``v5e``.
      name: in words.
      memory: bytes of the device.
      flops: operations a second at most, of bfloat16 matrix products.
      bandwidth: bytes a second between the device and its memory.
      link: bytes a second that the device sends to others at most.
      clock: cycles a second of a TPU, by which the compiler's cycles become seconds; None for a GPU.
      source: who published these figures.
      facts: the whole entry of ``devices.json``.
    """

    kind: Literal["tpu", "gpu"]
    key: str
    name: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    clock: float | None
    source: str
    facts: dict[str, Any]


class Target(NamedTuple):
    """Chips that work as one.

    Attributes:
      device: one of them.
      slice: how they lie: ``2x2`` of a TPU, the number of GPUs otherwise.
      chips: their number.
    """

    device: Device
    slice: str
    chips: int

    @property
    def text(self) -> str:
        """As `parse_target` reads it."""
        return f"{self.device.key}:{self.slice}"


@cache
def devices() -> dict[str, Device]:
    """Returns the chips that can be planned for, by the name that a target begins with."""
    table = json.loads((files("yolojax.planning") / "devices.json").read_text(encoding="utf-8"))
    found: dict[str, Device] = {}
    for kind in ("tpu", "gpu"):
        for key, facts in table[kind].items():
            numbers = {name: float(facts[name]) for name in ("memory", "flops", "bandwidth", "link")}
            clock = facts.get("clock")
            found[key] = Device(kind, key, facts["name"], **numbers, clock=clock, source=facts["source"], facts=facts)
    return found


def slices(device: Device) -> tuple[str, ...]:
    """Returns the shapes in which chips of a kind work together."""
    if device.kind == "tpu":
        return tuple(device.facts["slices"])
    return tuple(str(number) for number in range(1, MOST_GPUS + 1))


def parse_target(text: str) -> Target:
    """Reads ``v5e:4x4``, ``h100:8`` or, for one GPU, ``h100``.

    Raises `ConfigError` for a chip that is not known, or a slice that does not exist.
    """
    key, colon, shape = text.strip().lower().partition(":")
    known = devices()
    if key not in known:
        raise ConfigError(f"unknown target {text!r}: known are {', '.join(known)}; --target list shows their slices")
    device = known[key]
    if not colon and device.kind == "gpu":
        shape = "1"
    if shape not in slices(device):
        what = f"there is no slice {shape} of {device.name}" if shape else f"{device.name} needs a slice"
        shapes = ", ".join(slices(device))
        raise ConfigError(f"target {text!r}: {what}; give one of {shapes}, as in {key}:{slices(device)[-1]}")
    return Target(device, shape, math.prod(int(side) for side in re.split("x", shape)))


def target_table() -> str:
    """Returns the text of ``--target list``."""
    lines = [f"{'target':<8} {'device':<26} {'memory':>8} {'bfloat16':>13} {'bandwidth':>10} {'link':>8}  slices"]
    for device in devices().values():
        shapes = slices(device)
        shown = ", ".join(shapes) if device.kind == "tpu" else f"{shapes[0]} to {shapes[-1]} GPUs of a host"
        lines.append(
            f"{device.key:<8} {device.name:<26} {device.memory / 1e9:>5.0f} GB {device.flops / 1e12:>6.0f} TFLOP/s "
            f"{device.bandwidth / 1e9:>5.0f} GB/s {device.link / 1e9:>3.0f} GB/s  {shown}"
        )
    lines += ["", "published figures of one chip; link: what it sends to others at most, in one direction", "sources:"]
    return "\n".join([*lines, *(f"  {device.key:<5} {device.source}" for device in devices().values())])


def gpu_description(device: Device, cuda: int) -> str:
    """Returns the text by which XLA's compiler knows a GPU: a ``GpuTargetConfigProto`` as protobuf text.

    ``cuda`` is the major version of CUDA that programs are compiled with.
    """
    facts = device.facts
    major, minor = facts["capability"]
    extension = "ACCELERATED_FEATURES" if facts["accelerated"] else "NONE"
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: {facts["threads_per_multiprocessor"]}
  core_count: {facts["multiprocessors"]}
  fpus_per_core: {facts["lanes"]}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {facts["shared_per_block"]}
  shared_memory_per_core: {facts["shared_per_multiprocessor"]}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  l2_cache_size: {facts["l2_cache"]}
  clock_rate_ghz: {facts["clock_ghz"]}
  memory_bandwidth: {facts["bandwidth"]}
  device_memory_size: {facts["memory"]}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: {cuda} minor: 0 }}
device_description_str: "{facts["name"]}"
"""
