"""``yolojax predict``: photos in, drawings and JSON out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np

    from yolojax.predict import Predictor, Result

BATCH = 8


@dataclass(frozen=True)
class Predict:
    """Find objects on photos.

    Attributes:
      images: photos, or folders of photos (without their subfolders).
      model: a run directory, or a folder that holds a released detector.
      confidence: score from which a detection is reported; lower finds more and errs more.
      iou: overlap above which the weaker of two boxes of a class is taken for the same object.
      max_detections: most detections on a photo.
      out: folder for the photos with the detections drawn on them, and predictions.json.
      json: print the detections as JSON and nothing else; nothing is drawn unless --out is given.
    """

    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="PHOTO|FOLDER ...", help_behavior_hint="")]
    model: Annotated[Path, arg(metavar="RUN")]
    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 100
    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: predictions)")] = None
    json: bool = False

    def run(self) -> int:
        """Predict; a photo that cannot be read is named, the others are done, and the exit code is then 2."""
        if not self.images:
            raise ConfigError("which photos? give files or folders, as in: yolojax predict photo.jpg --model runs/demo")
        photos = list_photos(self.images)
        folder = None if self.json and self.out is None else choose_folder(self.out, Path("predictions"))

        from PIL import Image

        from yolojax.cli.progress import make_reporter
        from yolojax.eval.files import write_json
        from yolojax.predict import load

        reporter = make_reporter()
        predictor = load(self.model, max_detections=self.max_detections, batch_size=min(BATCH, len(photos)))
        names = drawing_names(photos)
        entries: list[dict[str, Any]] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with reporter.task("detecting", len(photos)) as advance:
            for photo, pixels, result in _detect(predictor, photos, self.confidence, self.iou):
                if isinstance(result, DataError) or pixels is None:
                    entries.append({"image": str(photo), "error": str(result)})
                    reporter.say(f"not read: {result}")
                else:
                    entries.append({"image": str(photo), **result.as_dict()})
                    if folder is not None:
                        Image.fromarray(result.draw(pixels)).save(folder / names[photo], quality=90)
                    if not self.json:
                        print(f"{photo}: {summary(result.names)}")
                    if result.truncated:
                        reporter.say(
                            f"{photo}: {result.truncated} more were found; raise --max-detections to have them"
                        )
                advance(len(entries))
        if folder is not None:
            write_json(folder / "predictions.json", entries, indent=1)
        if self.json:
            print(json.dumps(entries, indent=1))
        elif folder is not None:
            print(f"{folder}: predictions.json and the photos with their detections")
        failed = sum("error" in entry for entry in entries)
        if failed:
            reporter.say(f"{failed} of {len(photos)} photos could not be read")
        return 2 if failed else 0


def _detect(
    predictor: Predictor, photos: list[Path], confidence: float, iou: float
) -> Iterator[tuple[Path, np.ndarray | None, Result | DataError]]:
    """Every photo in order, with its pixels and detections, or with why it could not be read."""
    from yolojax.data.images import read_image

    for start in range(0, len(photos), predictor.batch_size):
        read: dict[Path, np.ndarray | DataError] = {}
        for photo in photos[start : start + predictor.batch_size]:
            try:
                read[photo] = read_image(photo)
            except DataError as error:
                read[photo] = error
        pixels = [image for image in read.values() if not isinstance(image, DataError)]
        results = predictor.many(pixels, confidence=confidence, iou=iou)
        for photo, image in read.items():
            yield (photo, None, image) if isinstance(image, DataError) else (photo, image, next(results))


def list_photos(paths: tuple[Path, ...]) -> list[Path]:
    """The files named, and the images in the folders named, each once, in order; a folder without any is an error."""
    from yolojax.data.images import IMAGE_SUFFIXES

    photos: list[Path] = []
    for path in paths:
        if not path.is_dir():
            photos.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not inside:
            raise DataError(f"{path}: no image in this folder; give another, or the photos themselves")
        photos += inside
    return list(dict.fromkeys(photos))


def drawing_names(photos: list[Path]) -> dict[Path, str]:
    """A file name for the drawing of each photo: its own, as JPEG or PNG, numbered where several would be the same."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for photo in photos:
        suffix = photo.suffix.lower() if photo.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        name, number = f"{photo.stem}{suffix}", 1
        while name in taken:
            number += 1
            name = f"{photo.stem}_{number}{suffix}"
        taken.add(name)
        names[photo] = name
    return names


def summary(names: list[str]) -> str:
    """The classes found, the most frequent first, with their numbers."""
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common()) or "nothing found"
