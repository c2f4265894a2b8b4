"""The most floating-point operations a second that this machine's devices can do, to compare a program with."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from yolojax.training.programs import Devices

DENSE_BFLOAT16: dict[str, float] = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
    "TPU v6 lite": 918e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v4": 275e12,
}
"""Of one device, by a part of its name as jax tells it, the first that fits: matrix products of bfloat16 (V100 and T4:
float16) without sparsity, summed in float32, from the vendors' data sheets."""


class Peak(NamedTuple):
    """Operations a second of all devices together, and where the number comes from."""

    flops: float
    source: str


def peak_of(devices: Devices, stated: float | None = None) -> Peak | None:
    """``stated`` (for one device) where given; else a data sheet's; on a processor it is measured; None when unknown.

    Every comparison is with the bfloat16 peak of an accelerator, whatever the program computes in.
    """
    device = jax.devices()[0]
    if stated is not None:
        return Peak(stated * devices.number, "as given")
    if device.platform == "cpu":
        return Peak(measure_peak(devices), "float32 matrix product, measured")
    for name, flops in DENSE_BFLOAT16.items():
        if name.lower() in device.device_kind.lower():
            return Peak(flops * devices.number, f"data sheet, bfloat16, {devices.number} x {name}")
    return None


def measure_peak(devices: Devices, side: int = 1024, repeats: int = 8) -> float:
    """The best of a few products of square float32 matrices, one on each device at the same time."""
    left = jax.device_put(jnp.ones((devices.number, side, side)), devices.split)
    right = jax.device_put(jnp.ones((devices.number, side, side)), devices.split)
    product = jax.jit(jnp.matmul, out_shardings=devices.split)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        product(left, right).block_until_ready()
        seconds.append(time.perf_counter() - started)
    return 2 * devices.number * side**3 / min(seconds[1:])
