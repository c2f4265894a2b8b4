"""What ``--model`` means in the commands that build a detector: an architecture, a run, or a file of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolojax.catalogue import is_architecture, known_names, nearest
from yolojax.errors import ConfigError
from yolojax.paths import FOREIGN, user_path

FILES = (".cfg", ".weights", ".npz", *FOREIGN)
"""Suffixes that no name of an architecture has."""


@dataclass(frozen=True)
class ModelChoice:
    """An architecture, and what is known of it beside its name.

    Attributes:
      name: of the architecture, perhaps with its scale.
      options: of its builder.
      size: longer side of the input of the detector that was named; None where an architecture was named.
      weights: where that detector's weights are; None where an architecture was named.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    size: int | None = None
    weights: str | None = None


def choose_model(model: str, options: dict[str, Any]) -> ModelChoice:
    """Finds what a ``--model`` to be built means: an architecture's name first, then a run or a weight file.

    ``options`` are those of the command line; they take precedence over those of the run or file.

    Raises:
      ConfigError: there is no such architecture, run or file; the message names the nearest.
      CheckpointError: the run or file cannot be read, or has parts that files cannot hold.
    """
    if is_architecture(model):
        return ModelChoice(model, options)
    path = user_path(model)
    is_path = path.exists() or path.suffix.lower() in FILES or len(path.parts) > 1
    if not is_path and not (Path("runs") / path).is_dir():
        raise ConfigError(unknown_model(model))

    from yolojax import zoo
    from yolojax.inference.loading import load_detector

    detector, _ = load_detector(path)
    if custom := zoo.custom_parts(detector):
        raise ConfigError(f"--model {model}: its {', '.join(custom)} are no parts of the zoo; train it from Python")
    spec = detector.spec
    return ModelChoice(spec.name, {**spec.options, **options}, max(spec.input_size), str(path))


def unknown_model(model: str) -> str:
    """The message for a name that is neither an architecture nor a run nor a file."""
    runs = [path.name for path in Path("runs").iterdir() if path.is_dir()] if Path("runs").is_dir() else []
    near = nearest(model, [*known_names(), *runs])
    hint = f"did you mean {near}?" if near else "yolojax models lists the architectures"
    return f"unknown architecture {model!r}, and no run or file of this name: {hint}"
