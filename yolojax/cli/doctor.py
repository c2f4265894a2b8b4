"""``yolojax doctor``: versions, devices, caches and optional packages, and whether this installation computes right."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from yolojax import __version__

REQUIRED = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "pillow", "pycocotools"),
    *("safetensors", "tyro", "matplotlib", "flatbuffers"),
)


class Optional(NamedTuple):
    """A package that is not needed: its name in the registry, the extra that installs it, and what it adds."""

    package: str
    extra: str
    adds: str

    @property
    def label(self) -> str:
        """The package, with the extra where an earlier entry has the same package."""
        first = next(entry for entry in OPTIONAL if entry.package == self.package)
        return self.package if first is self else f"{self.package} ({self.extra})"


OPTIONAL = (
    Optional("jax-cuda13-plugin", "cuda13", "computing on an NVIDIA GPU"),
    Optional("libtpu", "tpu", "computing on a TPU"),
    Optional("libtpu", "plan-tpu", "plan --target of a TPU, on any machine"),
    Optional("jax-cuda13-pjrt", "plan-gpu", "plan --target of a GPU, on any machine"),
    Optional("hotcoco", "fast-eval", "evaluation with pycocotools' numbers in a hundredth of the time"),
    Optional("orjson", "fast-eval", "faster reading of large annotation files"),
    Optional("msgspec", "fast-eval", "faster reading of large result lists"),
    Optional("opencv-python", "video", "prediction on films, cameras and streams"),
    Optional("trackers", "video", "predict --track"),
    Optional("pillow-heif", "heic", "photos in HEIC"),
    Optional("onnx", "export", "export to ONNX and prediction with exported files"),
    Optional("onnxruntime", "export", "exported files on onnxruntime, and int8"),
    Optional("openvino", "openvino", "exported files on OpenVINO (--runtime openvino)"),
    Optional("tensorboardX", "tensorboard", "train --log tensorboard"),
    Optional("wandb", "wandb", "train --log wandb (Weights & Biases)"),
    Optional("mlflow-skinny", "mlflow", "train --log mlflow"),
)
"""The optional packages by the extras of pyproject.toml."""

SAME = {"mlflow-skinny": ("mlflow",), "opencv-python": ("opencv-python-headless",)}
"""Other packages that serve as well."""


@dataclass(frozen=True)
class Doctor:
    """Tell versions, devices, caches and optional packages, and test that this installation computes right.

    Attributes:
      no_test: leave the test out, which takes ten to fifteen seconds of a processor core, most of it to compile.
      json: print JSON and nothing else.
    """

    no_test: bool = False
    json: bool = False

    def run(self) -> int:
        """Examine; the exit code is 2 when a check gives a wrong answer."""
        found = {
            "yolojax": __version__,
            "python": f"{platform.python_version()} on {platform.platform()}",
            "packages": {name: installed(name) for name in REQUIRED},
            "devices": devices(),
            "caches": caches(),
            "optional": {
                entry.label: {
                    "version": installed(entry.package, *SAME.get(entry.package, ())),
                    "adds": entry.adds,
                    "install": f"pip install 'yolojax[{entry.extra}]'",
                }
                for entry in OPTIONAL
            },
            "advice": advice(),
        }
        if not self.json:
            print(as_text(found))
        outcomes = []
        if not self.no_test:
            if not self.json:
                print("\nself-test")
            from yolojax.bench.self_test import run_checks

            for outcome in run_checks():
                outcomes.append(outcome)
                if not self.json:
                    verdict = "right" if outcome.right else "WRONG"
                    print(f"  {outcome.name:<12} {verdict}  {outcome.seconds:5.1f} s  {outcome.said}", flush=True)
        wrong = [outcome.name for outcome in outcomes if not outcome.right]
        if self.json:
            print(json.dumps({**found, "self_test": [outcome._asdict() for outcome in outcomes]}, indent=1))
        elif outcomes:
            verdict = f"does not compute right: {', '.join(wrong)}" if wrong else "computes right"
            print(f"\nthis installation {verdict}")
        return 2 if wrong else 0


def installed(*names: str) -> str | None:
    """The version of the first of these packages that is installed, or None."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def devices() -> list[str]:
    """The devices that JAX computes on, in words."""
    import jax

    told = []
    for device in jax.devices():
        limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
        memory = f", {limit / 2**30:.1f} GiB for this process" if limit else ""
        told.append(f"{device.platform} {device.id}: {device.device_kind}{memory}")
    return told


def caches() -> dict[str, str]:
    """Where compiled programs and decoded images are kept, and how much there is."""
    from yolojax.compilation_cache import cache_folder
    from yolojax.data import default_cache_folder
    from yolojax.data.index import index_folder

    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    programs = Path(given) if given else cache_folder()
    index = index_folder()
    return {
        "compiled programs": "turned off" if programs is None else told_folder(programs),
        "index of data sets": "turned off" if index is None else told_folder(index),
        "images on disk": told_folder(Path(default_cache_folder())),
    }


def told_folder(folder: Path) -> str:
    """A folder and its size, in words."""
    if not folder.is_dir():
        return f"{folder} (empty)"
    sizes = []
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(place, name)).st_size)
            except OSError:  # removed meanwhile
                continue
    return f"{folder} ({len(sizes)} files, {sum(sizes) / 1e6:,.1f} MB)"


def advice() -> list[str]:
    """What would make this installation better."""
    import jax

    said = []
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        said.append("there is an NVIDIA GPU that JAX does not use: pip install 'yolojax[cuda13]'")
    free = shutil.disk_usage(Path.cwd()).free
    if free < 2e9:
        said.append(f"only {free / 1e9:.1f} GB are free here; a training run needs more")
    if sys.version_info >= (3, 15):
        said.append("this Python is newer than those that yolojax is tested on (3.11 to 3.14)")
    return said


def as_text(found: dict[str, Any]) -> str:
    """What `Doctor.run` found, as lines."""
    lines = [f"yolojax {found['yolojax']}, Python {found['python']}"]
    lines += [", ".join(f"{name} {number or 'is missing'}" for name, number in found["packages"].items())]
    lines += ["", "devices", *(f"  {device}" for device in found["devices"])]
    lines += ["", "caches", *(f"  {name}: {folder}" for name, folder in found["caches"].items())]
    lines += ["", "optional packages"]
    for name, entry in found["optional"].items():
        have = entry["version"] or f"not installed; {entry['install']}"
        lines.append(f"  {name:<24} {entry['adds']}: {have}")
    if found["advice"]:
        lines += ["", "advice", *(f"  {line}" for line in found["advice"])]
    return "\n".join(lines)
