"""``yolojax data``: check a data set before training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Union

from tyro.conf import Positional, arg, subcommand

from yolojax.cli.assign import Assign
from yolojax.cli.folders import choose_folder


@dataclass(frozen=True)
class Check:
    """Name every error of a data set and everything that looks wrong.

    Attributes:
      path: a folder or file in Pascal VOC, COCO or YOLO layout, or "shapes" for generated images.
      split: part of the data set.
      images: the folder of the images, where they do not lie at their format's usual place.
      out: folder for summary.txt, labels.png and sheet.png (in a folder for each part, where DATA has several that
        are data sets by themselves and no split is named).
    """

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

        from yolojax.data.opening import separate_parts

        parts = separate_parts(self.path) if self.split is None else ()
        if not parts:
            return self._check(self.split, out)
        codes = []
        for split in parts:
            print(f"{'' if not codes else chr(10)}[{split}]\n")
            codes.append(self._check(split, out / split))
        return max(codes)

    def _check(self, split: str | None, out: Path) -> int:
        from yolojax.cli.progress import make_reporter
        from yolojax.data.check import check_dataset, write_report
        from yolojax.data.opening import read_dataset

        dataset = read_dataset(self.path, split, images=self.images, skip_bad=True)
        with make_reporter().task("reading images", len(dataset)) as advance:
            report = check_dataset(dataset, progress=lambda done, _: advance(done))
        print(report.text())
        written = write_report(dataset, report, out)
        print(f"\n{out}: {', '.join(path.name for path in written)}")
        return 2 if report.errors or not report.images else 0


@dataclass(frozen=True)
class Data:
    """Look at a data set: what is in it, what is wrong with it, and what a detector would learn where."""

    action: Annotated[
        Union[  # noqa: UP007 (its members are annotations)
            Annotated[Check, subcommand("check", prefix_name=False)],
            Annotated[Assign, subcommand("assign", prefix_name=False)],
        ],
        arg(name=""),
    ]

    def run(self) -> int:
        """What was asked for."""
        return self.action.run()
