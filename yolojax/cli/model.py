"""What ``--model`` means in the commands that build a detector: an architecture, a run, or a file of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolojax.catalogue import is_architecture, known_names, nearest
from yolojax.config import ModelConfig
from yolojax.errors import ConfigError
from yolojax.paths import FOREIGN, user_path

FILES = (".cfg", ".weights", ".npz", *FOREIGN)
"""Suffixes that no name of an architecture has."""

DEFAULT = ModelConfig().name
"""The architecture where none is asked for."""


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


def choose_model(model: str | None, options: dict[str, Any], init: str | None = None) -> ModelChoice:
    """Finds what a ``--model`` to be built means: an architecture's name first, then a run or a weight file.

    Without one it is the detector that ``init`` holds the weights of, or the default architecture where there is no
    ``init``, or it holds a part of one alone. ``options`` are those of the command line; they take precedence over
    those of the run or file.

    Raises:
      ConfigError: there is no such architecture, run or file; the message names the nearest.
      CheckpointError: the run or file cannot be read, or has parts that files cannot hold.
    """
    if model is None:
        found = None if init is None else _model_of(init, options)
        return found or ModelChoice(DEFAULT, options)
    if is_architecture(model):
        return ModelChoice(model, options)
    path = user_path(model)
    is_path = path.exists() or path.suffix.lower() in FILES or len(path.parts) > 1
    if not is_path and not (Path("runs") / path).is_dir():
        raise ConfigError(unknown_model(model))

    if (found := _model_of(str(path), options)) is None:
        raise ConfigError(
            f"--model {model}: no whole detector of the zoo; give an architecture's name, and this as --init; a "
            "detector with parts of your own is trained from Python"
        )
    return found


def _model_of(path: str, options: dict[str, Any]) -> ModelChoice | None:
    """The detector of a run or weight file; None where it is no whole one, or has parts that the zoo does not have."""
    from yolojax import zoo
    from yolojax.training.initialise import detector_of

    if (detector := detector_of(path)) is None or zoo.custom_parts(detector):
        return None
    spec = detector.spec
    return ModelChoice(spec.name, {**spec.options, **options}, max(spec.input_size), path)


def unknown_model(model: str) -> str:
    """The message for a name that is neither an architecture nor a run nor a file."""
    runs = [path.name for path in Path("runs").iterdir() if path.is_dir()] if Path("runs").is_dir() else []
    near = nearest(model, [*known_names(), *runs])
    hint = f"did you mean {near}?" if near else "yolojax models lists the architectures"
    return f"unknown architecture {model!r}, and no run or file of this name: {hint}"
