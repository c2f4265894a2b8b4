"""The files that ``yolojax predict`` leaves in its folder."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import indent
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
            picture = result.picture()
            if max(picture.size) > LARGEST_JPEG:
                name = f"{Path(name).stem}.png"
            picture.save(self.folder / name, quality=QUALITY)
        self._add_parts(Path(name).stem, result)

    @contextmanager
    def film(self, video: Source, frames_per_second: float) -> Iterator[Callable[[Result, int], None]]:
        """A function that takes the detections on each frame, with the frame's number from 0 on.

        The drawn film is whole at the end of the ``with`` block, also after an exception in it.
        """
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


class EntryList:
    """A JSON list that is written as it grows; no entry of it is kept in memory. The text is that of `json.dumps`."""

    def __init__(self, outputs: list[Callable[[str], object]]) -> None:
        """Takes the functions that each piece of text is given to."""
        self._outputs = outputs
        self.is_empty = True

    def append(self, entry: dict[str, Any]) -> None:
        """Writes an entry."""
        self._begin(_inner(entry, 1))

    @contextmanager
    def film(self, head: dict[str, Any]) -> Iterator[tuple[Callable[[dict[str, Any]], None], dict[str, Any]]]:
        """An entry that ends in a list ``frames``, written frame by frame.

        Gives a function that writes a frame, and a dictionary: what it holds at the end of the ``with`` block stands
        behind the frames. The entry is whole also after an exception in the block.
        """
        self._begin(_inner(head, 1).removesuffix("\n }") + ',\n  "frames": [')
        first = True

        def append(frame: dict[str, Any]) -> None:
            nonlocal first
            self._write(f"{'' if first else ','}{_inner(frame, 3)}")
            first = False

        tail: dict[str, Any] = {}
        try:
            yield append, tail
        finally:
            rest = _inner(tail, 1).removeprefix("\n {").removesuffix("\n }") if tail else ""
            self._write(f"{']' if first else f'{chr(10)}  ]'}{',' if rest else ''}{rest}\n }}")

    def end(self) -> None:
        """Closes the list."""
        self._write("[]\n" if self.is_empty else "\n]\n")

    def _begin(self, text: str) -> None:
        self._write(f"{'[' if self.is_empty else ','}{text}")
        self.is_empty = False

    def _write(self, text: str) -> None:
        for output in self._outputs:
            output(text)


def _inner(entry: dict[str, Any], depth: int) -> str:
    """A dictionary as `json.dumps` with an indent of 1 writes it at this depth, from its line break on."""
    # A line break in JSON is never part of a string.
    return indent(f"\n{json.dumps(entry, indent=1, allow_nan=False)}", " " * depth)


@contextmanager
def entry_list(folder: Path | None, *, printed: bool) -> Iterator[EntryList]:
    """A JSON list that goes to ``predictions.json`` in the folder, standard output, or both.

    The file is there once the ``with`` block has ended without an exception.
    """
    with open_whole(folder / SUMMARY) if folder is not None else nullcontext() as file:
        entries = EntryList([output.write for output in (file, sys.stdout if printed else None) if output is not None])
        yield entries
        entries.end()


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
