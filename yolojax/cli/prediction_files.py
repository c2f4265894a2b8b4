"""The files that ``yolojax predict`` leaves in its folder."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from PIL import Image

from yolojax.data.sources import Source
from yolojax.data.video import video_writer
from yolojax.files import open_whole
from yolojax.inference.results import Result

QUALITY = 90
SUMMARY = "predictions.json"

LARGEST_JPEG = 65500
"""Pixels a side that libjpeg writes; larger pictures become PNG."""


class Files:
    """Drawings beside predictions.json, text files in labels/, cut-outs in crops/CLASS/; without a folder, nothing."""

    def __init__(self, folder: Path | None, sources: list[Source], *, draw: bool, labels: bool, crops: bool) -> None:
        self.folder, self.draw, self.labels, self.crops = folder, draw, labels, crops
        self.names = file_names(sources)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        for wanted, name in ((labels, "labels"), (crops, "crops")):
            if wanted:
                (folder / name).mkdir()

    def description(self) -> str:
        """What is in the folder."""
        parts = [
            (self.draw, "the photos with their detections"),
            (self.labels, "labels/"),
            (self.crops, "crops/"),
        ]
        return " and ".join([SUMMARY, *(text for there, text in parts if there)])

    def add(self, photo: Source, result: Result) -> None:
        """All files of one photo."""
        if self.folder is None:
            return
        name = self.names[photo]
        if self.draw:
            picture = result.plot()
            if max(picture.shape) > LARGEST_JPEG:
                name = f"{Path(name).stem}.png"
            Image.fromarray(picture).save(self.folder / name, quality=QUALITY)
        self._add_parts(Path(name).stem, result)

    @contextmanager
    def video(self, video: Source, frames_per_second: float) -> Iterator[Callable[[Result, int], None]]:
        """A function that takes the detections on each frame, with the frame's number from 0 on."""
        stem = Path(self.names[video]).stem
        if self.folder is None:
            yield lambda result, number: None
        elif self.draw:
            with video_writer(self.folder / f"{stem}.mp4", frames_per_second) as append:

                def write(result: Result, number: int) -> None:
                    append(result.plot())
                    self._add_parts(f"{stem}_{number:06d}", result)

                yield write
        else:
            yield lambda result, number: self._add_parts(f"{stem}_{number:06d}", result)

    def _add_parts(self, stem: str, result: Result) -> None:
        assert self.folder is not None
        if self.labels:
            lines = "".join(f"{line}\n" for line in result.to_yolo())
            (self.folder / "labels" / f"{stem}.txt").write_text(lines)
        if self.crops:
            for number, (name, pixels) in enumerate(zip(result.names, result.crops(), strict=True), 1):
                of_class = self.folder / "crops" / (re.sub(r"[^\w .-]", "_", name).strip(" .") or "_")
                of_class.mkdir(exist_ok=True)
                suffix = "jpg" if max(pixels.shape) <= LARGEST_JPEG else "png"
                Image.fromarray(pixels).save(of_class / f"{stem}_{number}.{suffix}", quality=QUALITY)


@contextmanager
def entry_list(folder: Path | None, *, printed: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends an entry to a JSON list: to ``predictions.json`` in the folder, standard output, or both.

    No entry is kept in memory. The file is there once the ``with`` block has ended without an exception.
    """
    with open_whole(folder / SUMMARY) if folder is not None else nullcontext() as file:
        outputs = [*([file] if file is not None else []), *([sys.stdout] if printed else [])]
        first = True

        def append(entry: dict[str, Any]) -> None:
            nonlocal first
            text = json.dumps([entry], indent=1, allow_nan=False).removeprefix("[").removesuffix("\n]")
            for output in outputs:
                output.write(f"{'[' if first else ','}{text}")
            first = False

        yield append
        for output in outputs:
            output.write("[]\n" if first else "\n]\n")


def file_names(sources: list[Source]) -> dict[Source, str]:
    """A file name for each source: its own, a photo's as JPEG or PNG, numbered where several would have the same stem.

    Stems, not names, are told apart: labels and cut-outs have other suffixes.
    """
    names: dict[Source, str] = {}
    taken: set[str] = set()
    for source in sources:
        own = source.path.name.replace(" ", "_") if source.data is not None else source.path.name
        suffix = Path(own).suffix.lower()
        suffix = suffix if suffix in (".jpg", ".jpeg", ".png") or source.is_video else ".png"
        stem, number = Path(own).stem, 1
        while (stem if number == 1 else f"{stem}_{number}").lower() in taken:
            number += 1
        stem = stem if number == 1 else f"{stem}_{number}"
        taken.add(stem.lower())
        names[source] = f"{stem}{suffix}"
    return names
