"""The operations and the memory traffic that this machine's devices can do at most in a second."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from yolojax.sharding.devices import Devices


class Sheet(NamedTuple):
    """Operations a second of one device, and bytes that its memory moves in a second."""

    flops: float
    bandwidth: float


SHEETS: dict[str, Sheet] = {
    "GB200": Sheet(2500e12, 8000e9),
    "B200": Sheet(2250e12, 8000e9),
    "GH200": Sheet(989e12, 4000e9),
    "H200 NVL": Sheet(835e12, 4800e9),
    "H200": Sheet(989e12, 4800e9),
    "H100 PCIe": Sheet(756e12, 2000e9),
    "H100 NVL": Sheet(835e12, 3900e9),
    "H100": Sheet(989e12, 3350e9),
    "A100-SXM4-80GB": Sheet(312e12, 2039e9),
    "A100 80GB": Sheet(312e12, 1935e9),
    "A100": Sheet(312e12, 1555e9),
    "L40S": Sheet(362e12, 864e9),
    "L40": Sheet(181e12, 864e9),
    "L4": Sheet(121e12, 300e9),
    "A10G": Sheet(70e12, 600e9),
    "RTX 4090": Sheet(165e12, 1008e9),
    "RTX 3090": Sheet(71e12, 936e9),
    "V100": Sheet(125e12, 900e9),
    "T4": Sheet(65e12, 320e9),
    "TPU v6 lite": Sheet(918e12, 1640e9),
    "TPU v6e": Sheet(918e12, 1640e9),
    "TPU v5 lite": Sheet(197e12, 819e9),
    "TPU v5e": Sheet(197e12, 819e9),
    "TPU v5p": Sheet(459e12, 2765e9),
    "TPU v5": Sheet(459e12, 2765e9),
    "TPU v4 lite": Sheet(138e12, 614e9),
    "TPU v4": Sheet(275e12, 1228e9),
}
"""Figures of the vendors' data sheets by words of the device's name as jax tells it; the first that fits counts.

Operations are those of bfloat16 matrix products (V100 and T4: float16) without sparsity, summed in float32."""


class Peak(NamedTuple):
    """A maximum for all devices together, in a second, and where the number comes from."""

    value: float
    source: str


def peak_of(devices: Devices, stated: float | None = None) -> Peak | None:
    """Returns the operations a second of all devices; None when unknown.

    They are ``stated`` (for one device) where it is given, measured on a processor, and a data sheet's otherwise.

    Every comparison is with the bfloat16 peak of an accelerator, whatever the program computes in.
    """
    if stated is not None:
        return Peak(stated * devices.number, "as given")
    if jax.devices()[0].platform == "cpu":
        return Peak(measure_peak(devices), "float32 matrix product, measured")
    name, sheet = sheet_of(jax.devices()[0].device_kind)
    return Peak(sheet.flops * devices.number, f"data sheet, bfloat16, {devices.number} x {name}") if sheet else None


def bandwidth_of(devices: Devices) -> Peak | None:
    """Returns the bytes a second between devices and memories: measured on a processor, else a data sheet's or None."""
    if jax.devices()[0].platform == "cpu":
        return Peak(measure_bandwidth(devices), "sum of an array and a number, measured")
    name, sheet = sheet_of(jax.devices()[0].device_kind)
    return Peak(sheet.bandwidth * devices.number, f"data sheet, {devices.number} x {name}") if sheet else None


def sheet_of(kind: str) -> tuple[str, Sheet | None]:
    """Returns the name and entry of `SHEETS` for a device of this kind; no entry for the devices of laptops."""
    if "laptop" not in kind.lower():
        for name, sheet in SHEETS.items():
            if re.search(rf"\b{re.escape(name)}\b", kind, re.IGNORECASE):
                return name, sheet
    return "", None


def measure_peak(devices: Devices, side: int = 1024) -> float:
    """Measures products of square float32 matrices, one on each device at the same time; the fastest counts."""
    ones = jax.device_put(jnp.ones((devices.number, side, side)), devices.split)
    product = jax.jit(jnp.matmul, out_shardings=devices.split)
    return 2 * devices.number * side**3 / _fastest(lambda: product(ones, ones))


def measure_bandwidth(devices: Devices, length: int = 2**24) -> float:
    """Measures passes over a float32 array on each device that read it and write another; the fastest counts."""
    ones = jax.device_put(jnp.ones((devices.number, length)), devices.split)
    add = jax.jit(lambda x, y: x + y, out_shardings=devices.split)
    return 2 * 4 * devices.number * length / _fastest(lambda: add(ones, 1.0))


def _fastest(run: Callable[[], Any]) -> float:
    return min(seconds_of(run, 8))


def seconds_of(run: Callable[[], Any], repeats: int) -> list[float]:
    """Returns the seconds of each call, after one more call that may compile."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
