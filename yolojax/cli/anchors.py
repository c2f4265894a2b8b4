"""``yolojax anchors``: anchor boxes for a data set, and how well they cover its objects."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from yolojax.errors import ConfigError
from yolojax.paths import check_writable

if TYPE_CHECKING:
    from yolojax.anchors import AnchorDesign

TRAINING_PART = "(default: train, or all of it where there are no parts)"


@dataclass(frozen=True)
class Anchors:
    """Find anchor boxes for a data set, and how well they cover its objects.

    Attributes:
      data: a data set, as for train.
      split: part of the data set.
      images: the folder of the images, where they do not lie at their format's usual place.
      levels: number of prediction levels; the coarsest has stride 32, each further one half the stride.
      per_level: anchors of each level. With 1, the median box of each area quantile; else k-means on 1 - IoU.
      size: side of the square input image that images are fitted to, in pixels.
      seed: of the random choices.
      evolve: rounds of a random search that improves the anchors further; 0 for none, 1000 is usual.
      plot: write a picture of all boxes and the anchors to this PNG file.
      json: print JSON and nothing else.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=TRAINING_PART)] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    levels: int = 3
    per_level: int = 3
    size: int = 640
    seed: int = 0
    evolve: int = 0
    plot: Annotated[Path | None, arg(metavar="FILE.png", help_behavior_hint="(default: none)")] = None
    json: bool = False

    def run(self) -> int:
        """Design; prints a table or JSON, warnings on standard error."""
        for name, value, low, high in (
            ("levels", self.levels, 1, 5),
            ("per-level", self.per_level, 1, 50),
            ("size", self.size, 32, 65536),
            ("seed", self.seed, 0, 2**63),
            ("evolve", self.evolve, 0, 10**6),
        ):
            if not low <= value <= high:
                raise ConfigError(f"--{name} {value}: give {low} to {high}")
        if self.plot is not None:
            _check_plot(self.plot)

        from yolojax.anchors import design_anchors
        from yolojax.cli.progress import make_reporter
        from yolojax.data import box_sizes_on_input, open_dataset
        from yolojax.data.dataset import say_findings
        from yolojax.data.index import keep_index
        from yolojax.data.splits import training_split
        from yolojax.training.plots import save_anchors

        strides = tuple(2 ** (5 - i) for i in reversed(range(self.levels)))
        keep_index()
        dataset = open_dataset(self.data, self.split or training_split(self.data), images=self.images)
        say_findings(dataset, make_reporter())
        sizes = box_sizes_on_input(dataset, (self.size, self.size))
        design = design_anchors(sizes, strides, self.per_level, self.seed, self.evolve)
        if self.plot is not None:
            save_anchors(self.plot, sizes, design)
        if design.warning:
            print(f"yolojax: warning: {design.warning}", file=sys.stderr)
        print(json.dumps(_as_json(design), indent=1) if self.json else _as_text(design, self.size))
        return 0


def _check_plot(path: Path) -> None:
    """Before any work is done."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--plot {path}: the picture is a PNG; give a name that ends in .png")
    if path.exists():
        raise ConfigError(f"--plot {path} exists already; give another name, or remove it")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path}: there is no folder {path.parent}; make it first")
    check_writable(path.parent, "give another --plot")


def _as_json(design: AnchorDesign) -> dict[str, Any]:
    retune = [level.stride for level in design.levels if level.retune]
    return asdict(design) | {"retune": retune}


def _as_text(design: AnchorDesign, size: int) -> str:
    lines = [
        f"{design.boxes} boxes on an input image of {size} x {size}; "
        f"{design.dropped} more left out (a side under 2 pixels)",
        f"mean IoU with the best anchor {design.mean_iou:.3f}; recall at IoU .5 {design.recall:.1%}",
        "",
        "stride  boxes  median IoU  recall  in area reach          anchors (width x height, pixels)",
    ]
    for level in design.levels:
        shapes = "  ".join(f"{w:.0f}x{h:.0f}" for w, h in level.anchors)
        median = "n/a" if level.median_iou is None else f"{level.median_iou:.3f}"
        recall, reach = ("n/a" if x is None else f"{x:.1%}" for x in (level.recall, level.area_coverage))
        flag = "retune" if level.retune else ""
        lines.append(f"{level.stride:6d}  {level.boxes:5d}  {median:>10}  {recall:>6}  {reach:>13}  {flag:6}  {shapes}")
    return "\n".join([*lines, "", design.recommendation])
