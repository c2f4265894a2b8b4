"""``yolojax data``: check a data set before training on it, see what is learnt where, cut it into tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Union

from tyro.conf import Positional, arg, subcommand

from yolojax.cli.assign import Assign
from yolojax.cli.folders import choose_folder, whole_folder


@dataclass(frozen=True)
class Check:
    """Name every error of a data set and everything that looks wrong.

    Attributes:
      path: a folder or file in Pascal VOC, COCO or YOLO layout, or "shapes" for generated images.
      split: part of the data set.
      images: the folder of the images, where they do not lie at their format's usual place.
      out: folder for summary.txt, labels.png and sheet.png (in a folder for each part under a summary of all, where
        DATA has several that are data sets by themselves and no split is named).
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

        from yolojax.data.index import keep_index
        from yolojax.data.opening import separate_parts

        keep_index()
        parts = separate_parts(self.path) if self.split is None else ()
        if not parts:
            return self._check(self.split, out)[0]
        from yolojax.data.paths import shared_images
        from yolojax.files import write_whole

        codes, files = [], {}
        for split in parts:
            print(f"{'' if not codes else chr(10)}[{split}]\n")
            code, files[split] = self._check(split, out / split)
            codes.append(code)
        warnings = [f"warning: {said}" for said in shared_images(files)]
        print("".join(f"\n{warning}\n" for warning in warnings), end="")
        counts = [f"{split}: {len(files[split])} images; see {split}/summary.txt" for split in parts]
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "summary.txt", "\n".join([*counts, *warnings]) + "\n")
        return max(codes)

    def _check(self, split: str | None, out: Path) -> tuple[int, list[str | Path]]:
        """Prints the report of a part; returns the exit code and the image files."""
        from yolojax.cli.progress import make_reporter
        from yolojax.data.check import check_dataset, write_report
        from yolojax.data.opening import read_dataset

        dataset = read_dataset(self.path, split, images=self.images, skip_bad=True)
        with make_reporter().task("reading images", len(dataset)) as advance:
            report = check_dataset(dataset, progress=lambda done, _: advance(done))
        print(report.text())
        written = write_report(dataset, report, out)
        print(f"\n{out}: {', '.join(path.name for path in written)}")
        files = [source for source in dataset.columns.sources if isinstance(source, str | Path)]
        return 2 if report.errors or not report.images else 0, files


@dataclass(frozen=True)
class Tile:
    """Cut large images into tiles, with the boxes of each tile, and write them as a data set to train on.

    An object belongs to every tile that shows enough of it. What a tile shows of other objects becomes a crowd region,
    which training leaves out of account; the YOLO layout cannot say so and leaves it out.

    Attributes:
      path: a data set, as train takes it.
      out: folder for the new data set.
      tile: side of a tile in pixels.
      overlap: least share of a tile's side that neighbours have in common.
      whole: also keep the images themselves, for objects that are larger than a tile.
      visible: share of an object's box that a tile must show for the object to belong to it.
      without_background: leave out tiles that show no object.
      split: the parts to cut.
      layout: of the new data set.
    """

    path: Annotated[Positional[str], arg(metavar="DATA")]
    out: Annotated[Path, arg(metavar="FOLDER")]
    tile: int = 640
    overlap: float = 0.2
    whole: bool = False
    visible: float = 0.4
    without_background: bool = False
    split: Annotated[tuple[str, ...], arg(metavar="[NAME ...]", help_behavior_hint="(default: all of them)")] = ()
    layout: Literal["coco", "yolo", "voc"] = "coco"

    def run(self) -> int:
        """Cut and write; prints how many tiles there are, and what became of objects that seams cut."""
        out = choose_folder(self.out, self.out)

        from yolojax.cli.progress import make_reporter
        from yolojax.data import list_splits, open_dataset, write_coco, write_voc, write_yolo
        from yolojax.data.dataset import say_findings
        from yolojax.data.tiles import tile_dataset
        from yolojax.tiling import Tiling

        tiling = Tiling(self.tile, self.overlap, self.whole)
        splits = self.split or list_splits(self.path) or (None,)
        reporter = make_reporter()
        parts, known = {}, {}
        for split in splits:
            name = split or "train"
            whole = open_dataset(self.path, split)
            say_findings(whole, reporter, name)
            known[name] = len(whole.summary.findings)
            parts[name] = tile_dataset(whole, tiling, visible=self.visible, backgrounds=not self.without_background)
        write = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}[self.layout]
        total = sum(len(part) for part in parts.values())
        with whole_folder(out) as folder, reporter.task("writing tiles", total) as advance:
            write(parts, folder, progress=advance)
        for split, part in parts.items():
            print(f"{split}: {len(part)} tiles with {part.object_count} objects")
            for finding in part.summary.findings[known[split] :]:
                print(f"  {finding.detail}")
        print(f"{out}: a data set in the layout {self.layout.upper()}")
        return 0


@dataclass(frozen=True)
class Convert:
    """Write a data set in another layout: COCO, YOLO or Pascal VOC. What the layout cannot hold is named.

    Attributes:
      path: a data set, as train takes it.
      out: folder for the new data set.
      to: the layout.
      split: the parts to write.
      images: the folder of the images, where they do not lie at their format's usual place.
      png: write all images as PNG, instead of copying files of usual formats as they are.
      skip_bad: leave out images that cannot be used, and name them, instead of stopping at the first.
    """

    path: Annotated[Positional[str], arg(metavar="DATA")]
    out: Annotated[Path, arg(metavar="FOLDER")]
    to: Literal["coco", "yolo", "voc"]
    split: Annotated[tuple[str, ...], arg(metavar="[NAME ...]", help_behavior_hint="(default: all of them)")] = ()
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    png: bool = False
    skip_bad: bool = False

    def run(self) -> int:
        """Write; prints how much was written, and what the layout could not hold."""
        out = choose_folder(self.out, self.out)

        from yolojax.cli.progress import make_reporter
        from yolojax.data import list_splits, lost_in, open_dataset, write_coco, write_voc, write_yolo
        from yolojax.data.dataset import say_findings

        splits = self.split or list_splits(self.path) or (None,)
        parts = {
            split or "train": open_dataset(self.path, split, images=self.images, skip_bad=self.skip_bad)
            for split in splits
        }
        reporter = make_reporter()
        for name, part in parts.items():
            say_findings(part, reporter, name)
        write = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc}[self.to]
        total = sum(len(part) for part in parts.values())
        with whole_folder(out) as folder, reporter.task("writing images", total) as advance:
            write(parts, folder, progress=advance, copy=not self.png)
        for split, part in parts.items():
            print(f"{split}: {len(part)} images with {part.object_count} objects")
            for finding in part.summary.of("skipped"):
                print(f"  left out: {finding.where}: {finding.detail}")
            for sentence in lost_in(part, self.to):
                print(f"  not kept: {sentence}")
        print(f"{out}: a data set in the layout {self.to.upper()}")
        return 0


@dataclass(frozen=True)
class Data:
    """Look at a data set: what is in it, what is wrong with it, what a detector learns where; tile it, convert it."""

    action: Annotated[
        Union[  # noqa: UP007 (its members are annotations)
            Annotated[Check, subcommand("check", prefix_name=False)],
            Annotated[Assign, subcommand("assign", prefix_name=False)],
            Annotated[Tile, subcommand("tile", prefix_name=False)],
            Annotated[Convert, subcommand("convert", prefix_name=False)],
        ],
        arg(name=""),
    ]

    def run(self) -> int:
        """What was asked for."""
        return self.action.run()
