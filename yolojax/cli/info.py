"""``yolojax info``: what a detector is and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from yolojax.catalogue import CATALOGUE, is_architecture, rows, split_scale
from yolojax.cli.model import unknown_model
from yolojax.cli.models import published
from yolojax.cli.train import option_values
from yolojax.errors import CheckpointError, ConfigError
from yolojax.paths import FOREIGN, user_path


@dataclass(frozen=True)
class Info:
    """Describe a detector: classes, input, size, and where it comes from.

    Attributes:
      detector: an architecture (see yolojax models), a run directory or the name of one in runs/, a folder that holds a
        released detector, an .npz of YOLOX weights, the .cfg and .weights of a Darknet (with its .names, so that
        classes have names), or a .pt, .pth, .safetensors or .onnx of any network, whose content is told. An
        exported .onnx or .stablehlo says what it takes and gives.
      model: the same, as the other commands take it.
      option: of an architecture, its settings as NAME=VALUE, such as scale=s.
      size: of an architecture, the side of the square input image in pixels.
      classes: of an architecture, how many classes it has.
    """

    detector: Annotated[Positional[tuple[Path, ...]], arg(metavar="NAME|RUN|FILE ...", help_behavior_hint="")] = ()
    model: Annotated[tuple[Path, ...], arg(metavar="NAME|RUN|FILE ...", help_behavior_hint="")] = ()
    option: Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")] = ()
    size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as published)")] = None
    classes: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as published, 80 or 20)")] = None

    def run(self) -> int:
        """Print the description."""
        if self.detector and self.model:
            raise ConfigError("give the detector once, as in: yolojax info runs/demo")
        model = self.detector or self.model
        if not model:
            raise ConfigError("which detector? give an architecture, a run or a file, as in: yolojax info yolov8s")
        name = str(model[0])
        if is_architecture(name):
            return self._describe_architecture(name)
        for given in ("option", "size", "classes"):
            if getattr(self, given) not in (None, ()):
                raise ConfigError(f"--{given} belongs to an architecture, and {name} is none; leave it out")
        is_name = model[0].parent == Path() and not model[0].suffix
        if is_name and not user_path(name).exists() and not (Path("runs") / name).is_dir():
            raise CheckpointError(f"{name}: no such folder; {unknown_model(name)}")
        return self._describe_files(model)

    def _describe_architecture(self, name: str) -> int:
        from yolojax import zoo
        from yolojax.detector import variable_shapes
        from yolojax.settings import shown

        if self.classes is not None and not 1 <= self.classes <= 65_536:
            raise ConfigError(f"--classes {self.classes}: give 1 to 65536")
        if self.size is not None and not 32 <= self.size <= 65_536:
            raise ConfigError(f"--size {self.size}: give 32 to 65536")
        options, (plain, scale) = option_values("option", self.option), split_scale(name)
        scale = scale or str(options.get("scale", ""))
        known = [row for row in rows() if row.architecture == plain]
        listed = next((row for row in known if row.scale == scale), known[0])
        as_published = set(options) <= {"scale"} and self.size is None and self.classes is None
        if plain in zoo.ANCHORED and "anchors" not in options:
            levels, per_level = zoo.ANCHORED[plain]
            options["anchors"] = [[[float(16 * 4**level)] * 2] * per_level for level in range(levels)]
        size = self.size or listed.size or 640
        classes = self.classes or next(entry.classes for entry in CATALOGUE if entry.name == plain)
        class_names = zoo.COCO_CLASSES if classes == 80 else tuple(f"class{i}" for i in range(classes))
        detector = zoo.build(name, class_names, (size, size), **options)
        spec = detector.spec
        settings = ", ".join(f"{key}={shown(value)}" for key, value in spec.options.items())
        shapes = variable_shapes(detector)
        figure = f"{published(listed)} ({listed.source})" if as_published and published(listed) else "not known"
        print_rows(
            {
                "detector": f"{spec.name}, an architecture without weights",
                "options": settings or "none",
                "classes": str(classes),
                "input": f"{size} x {size} pixels (width x height), {spec.preprocess.resize}, "
                f"{spec.preprocess.channels.upper()}",
                "strides": ", ".join(map(str, spec.strides)),
                "parameters": f"{zoo.parameter_count(shapes):,}",
                "work": f"{zoo.forward_flops(detector) / 1e9:.3g} GFLOPs a photo (multiply and add are two)",
                "suppression": spec.suppression,
                "published": figure,
                "files": listed.loads or "none are published",
            }
        )
        return 0

    def _describe_files(self, model: tuple[Path, ...]) -> int:
        from yolojax import zoo
        from yolojax.inference.loading import load_detector, load_origin
        from yolojax.weights.describe import describe
        from yolojax.weights.foreign import read_weight_file

        if len(model) == 1 and (exported := _exported(model[0])) is not None:
            print(exported)
            return 0
        if len(model) == 1 and model[0].suffix.lower() in FOREIGN:
            file = read_weight_file(model[0])
            try:
                found, note = zoo.identity(file), None
            except CheckpointError as error:  # a network that does not run here is described all the same
                found, note = None, str(error)
            print(describe(file, found))
            if note is not None:
                print(note)
            return 0
        detector, variables = load_detector(*model)
        description = load_origin(*model)
        spec, (height, width) = detector.spec, detector.spec.input_size
        try:
            training, versions = _entries(description, "training"), _entries(description, "versions")
            measured = {n.removeprefix("val/"): v for n, v in _entries(training, "validation").items() if v is not None}
        except CheckpointError as error:
            raise CheckpointError(f"{model[0]}: {error}") from error
        told = {
            "detector": spec.name,
            **({"read from": ", ".join(map(str, model))} if not description else {}),
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
        print_rows(told)
        return 0


def print_rows(told: dict[str, str]) -> None:
    """Prints names and values, one a line, the values below each other."""
    for name, value in told.items():
        print(f"{name:<11} {value}")


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
