"""Moved to `yolojax.progress`."""

from yolojax.progress import Quiet, Reporter, Task

__all__ = ["Quiet", "Reporter", "Task"]
