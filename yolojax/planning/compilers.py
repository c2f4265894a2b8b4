"""The compilers of TPUs and GPUs, which work on a machine that has neither.

A TPU's compiler is the package libtpu, a GPU's is JAX's CUDA plugin; both are optional. They compile for devices that
are only described (`jax.experimental.topologies`).
"""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from yolojax.errors import ConfigError
from yolojax.planning.targets import Target, gpu_description
from yolojax.sharding.devices import Devices, row_of

EXTRAS = {"tpu": "plan-tpu", "gpu": "plan-gpu"}
"""The extra that installs the compiler of each kind of device."""

_CUDA = {13: "jax_plugins.xla_cuda13", 12: "jax_plugins.xla_cuda12"}


def missing_compiler(target: Target) -> str | None:
    """Returns what is missing to compile for a target and the command that installs it; None where nothing is."""
    kind = target.device.kind
    if kind == "tpu" and _is_installed("libtpu"):
        return None
    if kind == "gpu" and cuda_version() is not None:
        return None
    package = "libtpu" if kind == "tpu" else "JAX's CUDA plugin"
    return (
        f"target {target.text}: its compiler ({package}) is not installed; "
        f"install it with: pip install 'yolojax[{EXTRAS[kind]}]'"
    )


def cuda_version() -> int | None:
    """Returns the major version of CUDA that the installed plugin of JAX is made for; None without a plugin."""
    return next((number for number, module in _CUDA.items() if _is_installed(module)), None)


def compiler_version(target: Target) -> str:
    """Returns the package that compiles for a target, and its version."""
    package = "libtpu" if target.device.kind == "tpu" else f"jax-cuda{cuda_version()}-pjrt"
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # a build of its own
        return package


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that would hold it
        return False


def compile_on_processor() -> None:
    """Makes the processor this process's device, to be called before JAX initialises any.

    A plan needs no device, and one that is at hand may be in use. What the compilers log about themselves, such as that
    they are slow, is turned off.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    jax.config.update("jax_platforms", "cpu")


def open_target(target: Target) -> Devices:
    """Returns the devices of a target for compiling; nothing can run on them.

    Raises `ConfigError` when the compiler is not installed, or does not know the target.
    """
    if missing := missing_compiler(target):
        raise ConfigError(missing)
    from jax.experimental import topologies

    try:
        topology = topologies.get_topology_desc(**_description(target))
    except Exception as error:  # whatever a plugin raises: it comes from compiled code of another project
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"target {target.text}: {compiler_version(target)} does not take it: {first_line}") from error
    if len(topology.devices) != target.chips * target.device.facts.get("devices", 1):
        raise ConfigError(f"target {target.text}: the compiler describes {len(topology.devices)} devices for it")
    return row_of(topology.devices)


def _description(target: Target) -> dict[str, Any]:
    """The arguments of `get_topology_desc`."""
    facts = target.device.facts
    if target.device.kind == "gpu":
        cuda = cuda_version()
        assert cuda is not None
        return {
            "platform": "cuda",
            "topology_name": "",
            "target_config": gpu_description(target.device, cuda),
            "topology": f"1x1x{target.chips}",
        }
    # libtpu would otherwise ask the metadata server of a TPU's host what it runs on, for a minute.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Only one process may use a TPU, but any number may compile for one.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ["TPU_ACCELERATOR_TYPE"] = facts["accelerator"].format(cores=target.chips * facts["cores"])
    description = {"platform": "tpu", "topology_name": f"{facts['platform_name']}:{target.slice}"}
    # A host has four chips or more unless it is said to have one.
    return description | ({"chips_per_host_bounds": [1, 1, 1]} if target.chips == 1 else {})
