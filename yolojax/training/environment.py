"""What must be the same for a continued run to come out in the same bytes."""

from __future__ import annotations

import os
from typing import Any

import jax
import jaxlib.version
import numpy as np

import yolojax


def environment() -> dict[str, Any]:
    """Versions, devices, processor cores and compiler flags; no name of a machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "yolojax": yolojax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "processes": jax.process_count(),
        "cores": cores,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "").strip(),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Each thing that has changed, as ``cores 2 then, 1 now``."""
    return [
        f"{name} {then.get(name, 'unknown')} then, {now.get(name, 'unknown')} now"
        for name in [*now, *sorted(set(then) - set(now))]
        if then.get(name) != now.get(name)
    ]
