"""``yolojax info``: what a detector is and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Info:
    """Describe a detector: classes, input, size, and where it comes from.

    Attributes:
      model: a run directory or the name of one in runs/, a folder that holds a released detector, an .npz of YOLOX
        weights, or the .cfg and .weights of a Darknet (with its .names, so that classes have names).
    """

    model: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN|FILE ...", help_behavior_hint="")]

    def run(self) -> int:
        """Print the description."""
        from yolojax import zoo
        from yolojax.loading import load_detector, load_origin

        detector, variables = load_detector(*self.model)
        description = load_origin(*self.model)
        spec, (height, width) = detector.spec, detector.spec.canvas
        training, versions = description.get("training", {}), description.get("versions", {})
        measured = {name.removeprefix("val/"): value for name, value in training.get("validation", {}).items()}
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
            "measured": ", ".join(f"{k} {v:.3f}" for k, v in measured.items() if v is not None) or "not recorded",
            "written by": ", ".join(f"{k} {v}" for k, v in versions.items()) or "not recorded",
        }
        for name, value in rows.items():
            print(f"{name:<11} {value}")
        return 0
