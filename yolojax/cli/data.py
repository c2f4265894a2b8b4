"""``yolojax data`` and ``yolojax anchors``: a look at a data set before training on it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.errors import ConfigError


@dataclass(frozen=True)
class Data:
    """Look at a data set: what is in it, what is wrong with it, and a sheet of labelled images.

    Attributes:
      action: check names every error and whatever deserves a look.
      path: a folder or file in Pascal VOC, COCO or YOLO layout, or "shapes" for generated images.
      split: part of the data set.
      images: the folder of the images, where they do not lie at their format's usual place.
      out: folder for summary.txt, labels.png and sheet.png.
    """

    action: Annotated[Positional[Literal["check"]], arg(metavar="check")]
    path: Annotated[Positional[str], arg(metavar="DATA")]
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: all of it)")] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    out: Annotated[
        Path | None,
        arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/check, runs/check2, ...)"),
    ] = None

    def run(self) -> int:
        """Check; prints the report, and the exit code is 2 when something could not be used."""
        out = choose_folder(self.out, Path("runs/check"))

        from yolojax.cli.progress import make_reporter
        from yolojax.data import open_dataset
        from yolojax.data.check import check_dataset, write_report

        dataset = open_dataset(self.path, self.split, images=self.images, skip_bad=True)
        with make_reporter().task("reading images", len(dataset)) as advance:
            report = check_dataset(dataset, progress=lambda done, _: advance(done))
        print(report.text())
        written = write_report(dataset, report, out)
        print(f"\n{out}: {', '.join(path.name for path in written)}")
        return 2 if report.errors else 0


@dataclass(frozen=True)
class Anchors:
    """Find anchor boxes for a data set, and how well they cover its objects.

    Attributes:
      data: a data set, as for train.
      split: part of the data set.
      levels: number of prediction levels; the coarsest has stride 32, each further one half the stride.
      per_level: anchors of each level.
      size: side of the square canvas that images are fitted to, in pixels.
      seed: of the random starts.
      json: print JSON and nothing else.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: all of it)")] = None
    levels: int = 3
    per_level: int = 3
    size: int = 640
    seed: int = 0
    json: bool = False

    def run(self) -> int:
        """Design; prints a table or JSON."""
        if not 1 <= self.levels <= 5:
            raise ConfigError(f"--levels {self.levels}: give 1 to 5")

        from yolojax.anchors import design_anchors
        from yolojax.data import open_dataset
        from yolojax.training.inputs import box_sizes_on_canvas

        strides = tuple(2 ** (5 - i) for i in reversed(range(self.levels)))
        sizes = box_sizes_on_canvas(open_dataset(self.data, self.split), (self.size, self.size))
        design = design_anchors(sizes, strides, self.per_level, self.seed)
        if self.json:
            print(json.dumps(asdict(design), indent=1))
            return 0
        print(
            f"{design.boxes} boxes, {design.dropped} left out (a side under 2 pixels); canvas {self.size} x {self.size}"
        )
        print(f"mean IoU with the best anchor {design.mean_iou:.3f}; {design.recall:.1%} of the boxes above .5\n")
        print("stride  boxes  median IoU  above .5  anchors (width x height, pixels)")
        for level in design.levels:
            shapes = "  ".join(f"{w:.0f}x{h:.0f}" for w, h in level.anchors)
            median = "n/a" if level.median_iou is None else f"{level.median_iou:.3f}"
            recall = "n/a" if level.recall is None else f"{level.recall:.1%}"
            print(f"{level.stride:6d}  {level.boxes:5d}  {median:>10}  {recall:>8}  {shapes}")
        print()
        if design.warning:
            print(f"warning: {design.warning}")
        print(design.recommendation)
        return 0
