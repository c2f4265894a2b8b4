"""``yolojax predict``: photos and videos in, drawings, JSON, labels and crops out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.cli.tiling import TilingOptions
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
WRITERS = 2
"""Threads that draw and write; more would take the processor from the network."""
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
        published YOLOv5, v5u, v8 to v10, 11, 12, 26, YOLOX or YOLO-NAS (.pth, .safetensors).
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
      tiling: Tiles of large photos.
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
    tiling: OmitArgPrefixes[TilingOptions] = field(default_factory=TilingOptions)
    tta: OmitArgPrefixes[TTAOptions] = field(default_factory=TTAOptions)

    def run(self) -> int:
        """Predict; what cannot be read is named, the rest is done, and the exit code is then 2."""
        model, names = split_model(self.model, self.images)
        if not names:
            raise ConfigError("which photos? give files or folders, as in: yolojax predict photo.jpg --model runs/demo")

        from yolojax.cli.progress import LineReporter, make_reporter
        from yolojax.data.sources import find_sources

        # A terminal's bars break long lines, which JSON must not have.
        reporter = LineReporter() if self.json and sys.stdout.isatty() else make_reporter()
        tta, tiling, suppress = self.tta.settings(), self.tiling.settings(), self._suppression()
        sources = find_sources(names, _read_input, reporter.say)
        draw = self.save or not (self.json or self.txt or self.crop)
        folder = None
        if draw or self.txt or self.crop or self.out is not None:
            folder = choose_folder(self.out, Path("predictions"))

        from yolojax.cli.prediction_files import Files, entry_list
        from yolojax.compilation_cache import keep_programs
        from yolojax.inference.pipeline import Behind
        from yolojax.inference.predict import load
        from yolojax.inference.tta import describe_tta
        from yolojax.processor.memory import prepare_processor

        # One size of batch for few photos and one for many: each is a program of its own.
        many = len(sources) >= BATCH or tiling is not None or any(source.is_video for source in sources)
        batch = BATCH if many else 1
        keep_programs()
        prepare_processor(batch)
        predictor = load(
            *model,
            size=self.size,
            dtype=self.dtype,
            max_detections=self.max_detections,
            batch_size=batch,
            tta=tta,
            suppress=suppress,
            tiling=tiling,
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
        photos = [source for source in sources if not source.is_video]
        done = failed = 0
        with reporter.task("detecting", len(sources)) as advance, entry_list(folder, printed=self.json) as append:

            def tell(entry: dict[str, Any]) -> None:
                nonlocal done, failed
                append(entry)
                done, failed = done + 1, failed + ("error" in entry)
                advance(done)

            def write(found: tuple[Source, Result | DataError]) -> tuple[Source, Result | DataError, str | None]:
                return *found, write_files(files, *found)

            # Files are written behind the network, those of at most two batches at a time.
            with Behind(write, most=2 * batch, threads=WRITERS) as writing:
                for found in predictor.each(photos, read_source, **options):
                    for source, result, problem in writing.add(found):
                        tell(self._entry(source, result, problem, reporter))
                for source, result, problem in writing.rest():
                    tell(self._entry(source, result, problem, reporter))
            for source in sources:
                if source.is_video:
                    tell(self._watch(predictor, source, options, files, reporter))
        if folder is not None and not self.json:
            print(f"{folder}: {files.description()}")
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

    def _entry(
        self, source: Source, result: Result | DataError, problem: str | None, reporter: Reporter
    ) -> dict[str, Any]:
        """Prints what was found on a photo; returns its entry of predictions.json."""
        if isinstance(result, DataError):
            reporter.say(f"not read: {result}")
            return {"image": str(source.path), "error": str(result)}
        if not self.json:
            print(f"{source.path}: {summary(result.names)}")
        if result.truncated:
            reporter.say(f"{source.path}: {result.truncated} more were found; raise --max-detections to have them")
        entry = {"image": str(source.path), **result.as_dict()}
        if problem is not None:
            entry["error"] = problem
            reporter.say(f"not written: {problem}")
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


def write_files(files: Files, source: Source, result: Result | DataError) -> str | None:
    """Writes the files of one photo; returns why they cannot be written, which is no reason to drop the others."""
    try:
        if not isinstance(result, DataError):
            files.add(source, result)
    except (OSError, ValueError, MemoryError) as error:
        return f"{source.path}: its files cannot be written ({error})"
    return None


def read_source(photo: Source) -> np.ndarray:
    """The pixels of a photo; raises `DataError` when it cannot be read."""
    from yolojax.data.images import read_image_bytes
    from yolojax.inference.predict import read_photo

    return read_photo(photo.path) if photo.data is None else read_image_bytes(photo.data, str(photo.path))


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
