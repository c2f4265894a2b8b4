"""``yolojax info``: what a detector is and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from yolojax.errors import CheckpointError
from yolojax.paths import FOREIGN


@dataclass(frozen=True)
class Info:
    """Describe a detector: classes, input, size, and where it comes from.

    Attributes:
      model: a run directory or the name of one in runs/, a folder that holds a released detector, an .npz of YOLOX
        weights, the .cfg and .weights of a Darknet (with its .names, so that classes have names), or a .pt, .pth,
        .safetensors or .onnx of any network, whose content is told. An exported .onnx or .stablehlo says what it takes
        and gives.
    """

    model: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN|FILE ...", help_behavior_hint="")]

    def run(self) -> int:
        """Print the description."""
        from yolojax import zoo
        from yolojax.inference.loading import load_detector, load_origin
        from yolojax.weights.describe import describe
        from yolojax.weights.foreign import read_weight_file

        if len(self.model) == 1 and (exported := _exported(self.model[0])) is not None:
            print(exported)
            return 0
        if len(self.model) == 1 and self.model[0].suffix.lower() in FOREIGN:
            file = read_weight_file(self.model[0])
            try:
                found, note = zoo.identity(file), None
            except CheckpointError as error:  # a network that does not run here is described all the same
                found, note = None, str(error)
            print(describe(file, found))
            if note is not None:
                print(note)
            return 0
        detector, variables = load_detector(*self.model)
        description = load_origin(*self.model)
        spec, (height, width) = detector.spec, detector.spec.input_size
        try:
            training, versions = _entries(description, "training"), _entries(description, "versions")
            measured = {n.removeprefix("val/"): v for n, v in _entries(training, "validation").items() if v is not None}
        except CheckpointError as error:
            raise CheckpointError(f"{self.model[0]}: {error}") from error
        rows = {
            "detector": spec.name,
            **({"read from": ", ".join(map(str, self.model))} if not description else {}),
            "classes": f"{len(spec.class_names)}: {', '.join(spec.class_names)}",
            "input": f"{width} x {height} pixels (width x height), {spec.preprocess.resize}, "
            f"{spec.preprocess.channels.upper()}",
            "strides": ", ".join(map(str, spec.strides)),
            "parameters": f"{zoo.parameter_count(variables):,}",
            "work": f"{zoo.forward_flops(detector) / 1e9:.3g} GFLOPs a photo (multiply and add are two)",
            "trained": f"{training['step']} steps" if "step" in training else "not recorded",
            "measured": ", ".join(f"{k} {_figure(v)}" for k, v in measured.items()) or "not recorded",
            "written by": ", ".join(f"{k} {v}" for k, v in versions.items()) or "not recorded",
        }
        for name, value in rows.items():
            print(f"{name:<11} {value}")
        return 0


def _exported(path: Path) -> str | None:
    """What a file of ``yolojax export`` says of itself; None for other files."""
    import json

    from yolojax.export.settings import ENTRY, from_json
    from yolojax.weights.onnx import read_metadata

    if path.suffix.lower() == ".stablehlo":
        from yolojax.export.stablehlo import read_stablehlo

        description = read_stablehlo(path).description
    elif path.suffix.lower() == ".onnx" and path.is_file() and ENTRY in (metadata := read_metadata(path)):
        try:
            description = from_json(json.loads(metadata[ENTRY]), str(path))
        except ValueError as error:
            raise CheckpointError(f"{path}: its description is damaged ({error}); export it again") from error
    else:
        return None
    (height, width), thresholds = description.input_size, description.thresholds
    batch = "any number of" if description.batch is None else description.batch
    sides = "any size" if description.letterbox else f"{width} x {height} pixels (width x height)"
    rows = {
        "exported": f"{description.name}, {description.dtype}",
        "classes": f"{len(description.class_names)}: {', '.join(description.class_names)}",
        "input": f"{description.input_name}: {batch} uint8 RGB of {sides}",
        "outputs": ", ".join(description.output_names),
        "suppressed": "no: all candidates"
        if thresholds is None
        else f"confidence {thresholds.confidence:g}, "
        + ("no IoU" if thresholds.iou is None else f"IoU {thresholds.iou:g}")
        + f", at most {thresholds.max_detections} detections",
        **{name: str(value) for name, value in description.facts.items()},
    }
    return "\n".join(f"{name:<14} {value}" for name, value in rows.items())


def _entries(description: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of what a detector says of itself; no part is needed to use it, but each is what it should be."""
    part = description.get(name, {})
    if not isinstance(part, dict):
        raise CheckpointError(f"the description's entry {name!r} is {part!r}, not named values; the file is damaged")
    return part


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
