"""``yolojax predict``: photos and videos in, drawings, JSON, labels and crops out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.cli.tta import TTAOptions
from yolojax.config import SuppressionName
from yolojax.errors import ConfigError, DataError
from yolojax.paths import FOREIGN

if TYPE_CHECKING:
    import numpy as np

    from yolojax.cli.prediction_files import Files
    from yolojax.data.sources import Source
    from yolojax.inference.predict import Predictor
    from yolojax.inference.results import Result
    from yolojax.nms import Suppression
    from yolojax.nms.named import BuiltIn
    from yolojax.progress import Reporter

BATCH = 8
MODEL_SUFFIXES = (".cfg", ".weights", ".npz", ".names", ".txt", *FOREIGN)


@dataclass(frozen=True)
class Predict:
    """Find objects on photos and in videos.

    Attributes:
      images: photos and videos, folders of them (without their subfolders), patterns in quotes such as
        "photos/**/*.jpg", or - for standard input: a photo, or file names, one a line. Videos need the extra
        yolojax[video].
      model: a run directory or the name of one in runs/, a folder that holds a released detector, an .npz of YOLOX
        weights, the .cfg and .weights of a Darknet (with its .names, so that classes have names), or the .pt of a
        published YOLOv5, v5u, v8 to v10, 11, 12, 26, YOLOX, YOLO-NAS, Faster R-CNN or RetinaNet (.pth, .safetensors).
      size: longer side of the detector's input in pixels; larger finds smaller objects and takes longer.
      confidence: score from which a detection is reported; lower finds more and errs more.
      iou: overlap above which nms removes the box of lower score; other kinds of suppression do not read it.
      suppress: how several boxes on one object are reduced to one; what the detector needs, nms as a rule.
      suppress_parameter: of soft-linear, the IoU from which it lowers scores (.3); of soft-gaussian and matrix, sigma
        (.5); of diou and fast, the overlap above which they suppress (.5); of wbf, the IoU above which it averages
        boxes (.55). nms and none have no parameter.
      classes: report these only, by name or number.
      max_detections: most detections on a photo.
      out: folder for all files, among them predictions.json.
      save: draw the detections on the photos; so it is too when neither of the next three is given.
      json: print the detections as JSON and nothing else.
      txt: write a text file for each photo in labels/: class, centre x, centre y, width, height (as shares), score.
      crop: cut out each detection, into crops/CLASS/.
      dtype: floating-point type in which the network computes; bfloat16 is faster on accelerators and less exact.
      tta: Test-time augmentation.
    """

    images: Annotated[Positional[tuple[str, ...]], arg(metavar="PHOTO|FOLDER ...", help_behavior_hint="")]
    model: Annotated[tuple[Path, ...], arg(metavar="RUN|FILE ...")]
    size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as trained)")] = None
    confidence: Annotated[
        float | None, arg(aliases=["--conf"], metavar="FLOAT", help_behavior_hint="(default: the detector's, .25)")
    ] = None
    iou: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: the detector's, .45)")] = None
    suppress: Annotated[SuppressionName | None, arg(help_behavior_hint="(default: the detector's)")] = None
    suppress_parameter: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: see there)")] = None
    classes: Annotated[tuple[str, ...], arg(metavar="[NAME ...]", help_behavior_hint="(default: all)")] = ()
    max_detections: Annotated[
        int | None, arg(aliases=["--max-det"], metavar="INT", help_behavior_hint="(default: the detector's, 100)")
    ] = None
    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: predictions)")] = None
    save: bool = False
    json: bool = False
    txt: bool = False
    crop: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    tta: OmitArgPrefixes[TTAOptions] = field(default_factory=TTAOptions)

    def run(self) -> int:
        """Predict; what cannot be read is named, the rest is done, and the exit code is then 2."""
        model, names = split_model(self.model, self.images)
        if not names:
            raise ConfigError("which photos? give files or folders, as in: yolojax predict photo.jpg --model runs/demo")

        from yolojax.cli.progress import make_reporter
        from yolojax.data.sources import find_sources

        reporter = make_reporter()
        tta, suppress = self.tta.settings(), self._suppression()
        sources = find_sources(names, _read_input, reporter.say)
        draw = self.save or not (self.json or self.txt or self.crop)
        folder = None
        if draw or self.txt or self.crop or self.out is not None:
            folder = choose_folder(self.out, Path("predictions"))

        from yolojax.cli.prediction_files import Files
        from yolojax.inference.predict import load
        from yolojax.inference.tta import describe_tta
        from yolojax.processor.memory import prepare_processor

        batch = BATCH if any(source.is_video for source in sources) else min(BATCH, len(sources))
        prepare_processor(batch)
        predictor = load(
            *model,
            size=self.size,
            dtype=self.dtype,
            max_detections=self.max_detections,
            batch_size=batch,
            tta=tta,
            suppress=suppress,
        )
        if tta is not None:
            reporter.say(describe_tta(predictor.spec, tta))
        known = predictor.spec.class_names
        options: dict[str, Any] = {
            "confidence": self.confidence,
            "iou": self.iou,
            "classes": tuple(int(c) if c.isdecimal() and c not in known else c for c in self.classes) or None,
        }
        predictor.many((), **options)  # refuses what is wrong with them before anything is written
        files = Files(folder, sources, draw=draw, labels=self.txt, crops=self.crop)
        entries: list[dict[str, Any]] = []
        photos = [source for source in sources if not source.is_video]
        with reporter.task("detecting", len(sources)) as advance:
            for source, result in detect_photos(predictor, photos, options):
                entries.append(self._tell(source, result, files, reporter))
                advance(len(entries))
            for source in sources:
                if source.is_video:
                    entries.append(self._watch(predictor, source, options, files, reporter))
                    advance(len(entries))
        files.write_summary(entries)
        if self.json:
            print(json.dumps(entries, indent=1))
        elif folder is not None:
            print(f"{folder}: {files.description()}")
        failed = sum("error" in entry for entry in entries)
        if failed:
            reporter.say(f"{failed} of {len(sources)} photos could not be read or written")
        return 2 if failed else 0

    def _suppression(self) -> Suppression | BuiltIn | None:
        from yolojax.nms import named_suppression

        if self.suppress is not None:
            return named_suppression(self.suppress, self.suppress_parameter)
        if self.suppress_parameter is not None:
            raise ConfigError("--suppress-parameter belongs to a suppression; give --suppress as well")
        return None

    def _tell(self, source: Source, result: Result | DataError, files: Files, reporter: Reporter) -> dict[str, Any]:
        if isinstance(result, DataError):
            reporter.say(f"not read: {result}")
            return {"image": str(source.path), "error": str(result)}
        if not self.json:
            print(f"{source.path}: {summary(result.names)}")
        if result.truncated:
            reporter.say(f"{source.path}: {result.truncated} more were found; raise --max-detections to have them")
        entry = {"image": str(source.path), **result.as_dict()}
        try:
            files.add(source, result)
        except (OSError, ValueError, MemoryError) as error:  # this photo's files, and no reason to drop the others
            entry["error"] = f"{source.path}: its files cannot be written ({error})"
            reporter.say(f"not written: {entry['error']}")
        return entry

    def _watch(
        self, predictor: Predictor, source: Source, options: dict[str, Any], files: Files, reporter: Reporter
    ) -> dict[str, Any]:
        """A video: every frame is detected on by itself."""
        from yolojax.data.video import Video

        frames: list[dict[str, Any]] = []
        most: Counter[str] = Counter()
        truncated = 0
        try:
            video = Video(source.path)
            with (
                reporter.task(source.path.name, video.count) as advance,
                files.video(source, video.frames_per_second) as write,
            ):
                for result in predictor.many(video, **options):
                    write(result, len(frames))
                    most |= Counter(result.names)
                    truncated += result.truncated
                    frames.append(result.as_dict())
                    advance(len(frames))
        except (DataError, OSError, ValueError, MemoryError) as error:
            reporter.say(f"not read: {error}")
            return {"video": str(source.path), "error": str(error)}
        if not self.json:
            seen = ", ".join(f"{count} {name}" for name, count in most.most_common()) or "nothing found"
            print(f"{source.path}: {len(frames)} frames; at most on one: {seen}")
        if truncated:
            reporter.say(f"{source.path}: {truncated} more were found; raise --max-detections to have them")
        return {"video": str(source.path), "frames_per_second": video.frames_per_second, "frames": frames}


def detect_photos(
    predictor: Predictor, photos: list[Source], options: dict[str, Any]
) -> Iterator[tuple[Source, Result | DataError]]:
    """Every photo in order, with its detections, or with why it could not be read."""
    for start in range(0, len(photos), predictor.batch_size):
        read = [(photo, read_source(photo)) for photo in photos[start : start + predictor.batch_size]]
        results = predictor.many([image for _, image in read if not isinstance(image, DataError)], **options)
        for photo, image in read:
            yield photo, image if isinstance(image, DataError) else next(results)


def read_source(photo: Source) -> np.ndarray | DataError:
    """The pixels of a photo, or why it could not be read."""
    from yolojax.data.images import read_image_bytes
    from yolojax.inference.predict import read_photo

    try:
        return read_photo(photo.path) if photo.data is None else read_image_bytes(photo.data, str(photo.path))
    except DataError as error:
        return error


def _read_input() -> bytes:
    if sys.stdin is None:
        raise DataError("standard input is closed; give photos by name")
    return sys.stdin.buffer.read()


def split_model(model: tuple[Path, ...], images: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Which of the values of ``--model`` are the detector's; photos that follow it count as photos."""
    own = [path for i, path in enumerate(model) if i == 0 or path.suffix.lower() in MODEL_SUFFIXES]
    return own, [*images, *(str(path) for path in model if path not in own)]


def summary(names: list[str]) -> str:
    """The classes found, the most frequent first, with their numbers."""
    return ", ".join(f"{count} {name}" for name, count in Counter(names).most_common()) or "nothing found"
