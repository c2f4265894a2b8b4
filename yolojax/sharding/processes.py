"""Several processes as one job: how they find each other, and what happens when one of them is lost.

Every process runs the same program with the same settings. All take the same decisions, because losses and measurements
are computed on all devices together. Only the first process writes to the disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import PyTree

from yolojax.errors import ConfigError, LostProcessError


class Job(NamedTuple):
    """How many processes there are, which this is, and where they meet: ``HOST:PORT`` of the first."""

    coordinator: str
    processes: int
    process: int


VARIABLES = ("YOLOJAX_COORDINATOR", "YOLOJAX_PROCESSES", "YOLOJAX_PROCESS")
"""Environment variables that say the same as a `Job`, for launchers that have no scheduler jax knows."""


def job_of_environment() -> Job | None:
    """Returns the job that `VARIABLES` describe; None where none is set. Raises `ConfigError` when they make no job."""
    values = [os.environ.get(name) for name in VARIABLES]
    if not any(values):
        return None
    if not all(values):
        missing = [name for name, value in zip(VARIABLES, values, strict=True) if not value]
        raise ConfigError(f"a job of several processes needs {', '.join(VARIABLES)}; {', '.join(missing)} is not set")
    try:
        job = Job(str(values[0]), int(str(values[1])), int(str(values[2])))
    except ValueError:
        raise ConfigError(f"{VARIABLES[1]} = {values[1]}, {VARIABLES[2]} = {values[2]}: give whole numbers") from None
    if not 0 <= job.process < job.processes or ":" not in job.coordinator:
        raise ConfigError(
            f"{VARIABLES[0]} = {job.coordinator}, {VARIABLES[1]} = {job.processes}, {VARIABLES[2]} = {job.process}: "
            "give HOST:PORT, and a process from 0 to below the number of processes"
        )
    return job


def in_a_job(distributed: bool) -> bool:
    """Whether this process is one of several, or was told so."""
    return distributed or job_of_environment() is not None


def join(distributed: bool) -> None:
    """Joins the job that this process belongs to; to be called before anything asks jax for its devices.

    `VARIABLES` say which; with ``distributed`` but without them jax asks the scheduler (SLURM, Open MPI, Kubernetes, a
    TPU's metadata). Raises `ConfigError` when neither tells, or when the others cannot be reached.
    """
    job = job_of_environment()
    if job is None and not distributed:
        return
    try:
        # Two minutes to meet; half a minute of silence means that a process is lost.
        limits: dict[str, Any] = {"initialization_timeout": 120, "heartbeat_timeout_seconds": 30}
        if job is None:
            jax.distributed.initialize(**limits)
        else:
            jax.distributed.initialize(job.coordinator, job.processes, job.process, **limits)
    except (RuntimeError, ValueError) as error:
        where = f"{VARIABLES[0]} = {job.coordinator}" if job else f"no scheduler that jax knows, and no {VARIABLES[0]}"
        raise ConfigError(f"the processes of the job cannot find each other ({where}): {error}") from error


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns when every process has come to the point of this name."""
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


@contextmanager
def noticing_lost_processes(advice: str) -> Iterator[None]:
    """Turns jax's error about a broken connection into `LostProcessError`, with the advice how to go on."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        first_line = str(error).strip().splitlines()[0]
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()} lost another of the job ({first_line}); {advice}"
        ) from error


def any_process(flag: bool) -> bool:
    """Whether the flag is True in any process; all must ask at the same point of the program."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.asarray(process_allgather(np.array(flag))).any())


def first_of(value: float) -> float:
    """Returns the first process's value, for what depends on a clock; all must ask at the same point of the program."""
    if jax.process_count() == 1:
        return value
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return float(np.asarray(broadcast_one_to_all(np.array(value, np.float32))))


def replicate(tree: PyTree, replicated: Sharding) -> PyTree:
    """Puts arrays that every process holds on all devices of all processes."""
    if jax.process_count() > 1:
        tree = jax.tree.map(np.asarray, tree)
    return jax.device_put(tree, replicated)
