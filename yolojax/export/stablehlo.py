"""StableHLO files: one program for processors, NVIDIA GPUs and TPUs, made on a machine that need have none of them.

A file is a zip archive of two entries, stored without compression, so that anybody can look inside:

- ``program.bin``: what `jax.export` serialises: the StableHLO module with its weights, in the portable form that later
  versions of JAX read (for six months at least: https://docs.jax.dev/en/latest/export/export.html);
- ``description.json``: what `yolojax.export.settings.Description` holds, with the SHA-256 of ``program.bin``.

It runs with ``jax`` and ``flatbuffers`` alone, see docs/export.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from yolojax.detector import Detector, Variables, fold_on_host
from yolojax.errors import CheckpointError, ConfigError, shortened, shown
from yolojax.export.program import make_program, narrowed
from yolojax.export.settings import Description, ExportSettings, describe_export, from_json, to_json
from yolojax.processor.convolution import traced_for_inference
from yolojax.processor.platform import traced_for

PLATFORMS = ("cpu", "cuda", "tpu")
"""For which a file is made unless told otherwise."""

KNOWN_PLATFORMS = (*PLATFORMS, "rocm")
DTYPES = ("float32", "bfloat16", "float16")

PROGRAM, TEXT = "program.bin", "description.json"

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of all entries, so that the same detector gives the same bytes."""


class Exported(NamedTuple):
    """A StableHLO file that was read: its description, and the program as `jax.export` gives it."""

    description: Description
    program: Any


def to_stablehlo(
    detector: Detector,
    variables: Variables,
    settings: ExportSettings = ExportSettings(),  # noqa: B008 (frozen)
    *,
    dtype: str | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> bytes:
    """The content of a StableHLO file of a detector.

    Args:
      detector: any record; what was replaced in it holds.
      variables: those of the detector, as trained.
      settings: what the file computes.
      dtype: in which the network computes; None takes what the detector was built in. The description says it, and
        with ``settings.half`` kernels are kept in it.
      platforms: for which the program is made, by JAX's names.

    Raises:
      ConfigError: a setting out of range, a ``dtype`` in which the network does not compute, or the package
        ``flatbuffers`` is missing.
    """
    export = _jax_export()
    if isinstance(platforms, str) or not platforms or not set(platforms) <= set(KNOWN_PLATFORMS):
        raise ConfigError(f"platforms = {shown(platforms)}: give a list of some of {', '.join(KNOWN_PLATFORMS)}")
    if dtype not in (None, *DTYPES):
        raise ConfigError(f"dtype = {shown(dtype)}: give one of {', '.join(DTYPES)}")
    description = describe_export(detector, variables, settings, dtype)
    description.facts["platforms"] = list(platforms)
    folded = fold_on_host(detector, variables)
    if settings.half:
        folded = narrowed(folded, description.dtype)
    program = make_program(detector, folded, description)
    # The choice between forms of a part is left to the lowering, which happens once for each platform.
    with traced_for(None), traced_for_inference(), _without_locations():
        exported = export.export(jax.jit(program), platforms=tuple(platforms))(input_shape(description, export))
    return pack(description, bytes(exported.serialize()))


@contextmanager
def _without_locations() -> Iterator[None]:
    """Programs do not say from which lines of which files they were traced, with the paths of this machine.

    The same detector then also gives the same bytes, whoever exports it.
    """
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def input_shape(description: Description, export: Any) -> jax.ShapeDtypeStruct:
    """The shape of the input; sides that may vary are symbols of `jax.export`."""
    names = [] if description.batch is not None else ["b"]
    names += ["h", "w"] if description.letterbox else []
    symbols = iter(export.symbolic_shape(", ".join(names)) if names else ())
    batch = description.batch if description.batch is not None else next(symbols)
    sides = (next(symbols), next(symbols)) if description.letterbox else description.input_size
    return jax.ShapeDtypeStruct((batch, *sides, 3), jnp.uint8)


def pack(description: Description, program: bytes) -> bytes:
    """The zip archive of a program and its description."""
    text = {**to_json(description), "program_sha256": hashlib.sha256(program).hexdigest()}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(TEXT, _LONG_AGO), json.dumps(text, indent=1))
        archive.writestr(zipfile.ZipInfo(PROGRAM, _LONG_AGO), program)
    return content.getvalue()


def read_stablehlo(path: Path) -> Exported:
    """Reads a StableHLO file that `to_stablehlo` made.

    Raises:
      CheckpointError: missing, damaged, of another kind, or of a newer version.
      ConfigError: the package ``flatbuffers`` is missing.
    """
    export = _jax_export()
    advice = "export the detector again"
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no ordinary file")
        with zipfile.ZipFile(path) as archive:
            for name in (TEXT, PROGRAM):  # ours are stored as they are; a compressed one could be of any length
                if archive.getinfo(name).file_size > path.stat().st_size:
                    raise ValueError(f"{name} would be larger than the file")
            text, program = archive.read(TEXT), archive.read(PROGRAM)
        plain = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); give an exported file") from error
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: no StableHLO file of yolojax, or damaged ({shortened(str(error))}); {advice}"
        ) from error
    description = from_json(plain, str(path))
    if plain.get("program_sha256") != hashlib.sha256(program).hexdigest():
        raise CheckpointError(f"{path}: damaged (the SHA-256 of its program differs from the one it states); {advice}")
    try:
        exported = export.deserialize(bytearray(program))
    except Exception as error:  # what a reader of flatbuffers and of MLIR raises is not documented
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{path}: this version of jax cannot read its program ({shortened(reason)}); {advice}"
        ) from error
    return Exported(description, exported)


def _jax_export() -> Any:
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise ConfigError("StableHLO files need the package flatbuffers: pip install flatbuffers") from None
    from jax import export

    return export
