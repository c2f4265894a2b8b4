"""``yolojax predict``: photos and videos in, drawings, JSON, labels and crops out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
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

    from yolojax.cli.prediction_files import EntryList, Files
    from yolojax.data.sources import Source
    from yolojax.data.video import Frame
    from yolojax.inference.predict import Predictor
    from yolojax.inference.results import Result
    from yolojax.nms import Suppression
    from yolojax.nms.named import BuiltIn
    from yolojax.progress import Reporter

BATCH = 8
WRITERS = 2
"""Threads that draw and write; more would take the processor from the network."""
MODEL_SUFFIXES = (".cfg", ".weights", ".npz", ".names", ".txt", ".stablehlo", *FOREIGN)


@dataclass(frozen=True)
class Predict:
    """Find objects on photos and in videos.

    Attributes:
      images: photos and videos, folders of them (without their subfolders), patterns in quotes such as
        "photos/**/*.jpg", or - for standard input: a photo, or file names, one a line. The number of a camera (0) or
        the address of a stream (rtsp://...) is a video without end; Ctrl-C ends it. Videos need the extra
        yolojax[video].
      model: a run directory or the name of one in runs/, a folder that holds a released detector, an .npz of YOLOX
        weights, the .cfg and .weights of a Darknet (with its .names, so that classes have names), or the .pt of a
        published YOLOv5, v5u, v8 to v10, 11, 12, 26, YOLOX, YOLO-NAS, RT-DETR, D-FINE, DEIMv2, Faster R-CNN or
        RetinaNet (.pth, .safetensors, a folder of Hugging Face's), or an exported .onnx or .stablehlo.
      runtime: what runs an .onnx; the first that is installed unless given.
      size: longer side of the detector's input in pixels; larger finds smaller objects and takes longer.
      confidence: score from which a detection is reported; lower finds more and errs more.
      iou: overlap above which nms removes the box of lower score; other kinds of suppression do not read it.
      suppress: how several boxes on one object are reduced to one; what the detector needs, nms as a rule.
      suppress_parameter: of soft-linear, the IoU from which it lowers scores (.3); of soft-gaussian and matrix,
        sigma (.5); of diou and fast, the overlap above which they suppress (.5); of wbf, the IoU above which it
        averages boxes (.55). nms and none have no parameter.
      classes: report these only, by name or number.
      max_detections: most detections on a photo.
      out: folder for all files, among them predictions.json.
      save: draw the detections on the photos; so it is too when neither of the next three is given.
      json: print the detections as JSON and nothing else.
      txt: write a text file for each photo in labels/: class, centre x, centre y, width, height (as shares), score.
      crop: cut out each detection, into crops/CLASS/.
      track: follow the objects of films: each has an identity, in the drawing and in predictions.json.
      frames_per_second: of a film, take at most this many frames of each second.
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
    track: bool = False
    frames_per_second: Annotated[
        float | None, arg(aliases=["--fps"], metavar="FLOAT", help_behavior_hint="(default: all)")
    ] = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    runtime: Annotated[
        Literal["onnxruntime", "openvino"] | None, arg(help_behavior_hint="(default: what is installed)")
    ] = None
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

        # A camera or stream has no end, so that it comes last.
        films = sorted((source for source in sources if source.is_video), key=lambda film: film.stream is not None)
        self._check_films(sources)
        # One size of batch for few photos and one for many: each is a program of its own. A camera does not wait.
        live = any(source.stream is not None for source in sources)
        many = not live and (len(sources) >= BATCH or tiling is not None or bool(films))
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
            runtime=self.runtime,
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
        interrupted: KeyboardInterrupt | None = None
        with reporter.task("detecting", len(sources)) as advance, entry_list(folder, printed=self.json) as entries:

            def tell(entry: dict[str, Any]) -> None:
                nonlocal done, failed
                entries.append(entry)
                count(entry)

            def count(entry: dict[str, Any]) -> None:
                nonlocal done, failed
                done, failed = done + 1, failed + ("error" in entry)
                advance(done)

            def write(found: tuple[Source, Result | DataError]) -> tuple[Source, Result | DataError, str | None]:
                return *found, write_files(files, *found)

            try:
                # Files are written behind the network, those of at most two batches at a time.
                with Behind(write, most=2 * batch, threads=WRITERS) as writing:
                    for found in predictor.each(photos, read_source, **options):
                        for source, result, problem in writing.add(found):
                            tell(self._entry(source, result, problem, reporter))
                    for source, result, problem in writing.rest():
                        tell(self._entry(source, result, problem, reporter))
                for source in films:
                    count(self._watch(predictor, source, options, files, entries, reporter))
            except KeyboardInterrupt as stop:  # what was found so far is worth its file
                interrupted = stop
        if interrupted is not None:
            kept = [] if folder is None else [f"what was found so far is in {folder}"]
            raise type(interrupted)(*interrupted.args, *kept)
        if folder is not None and not self.json:
            print(f"{folder}: {files.description()}")
        if failed:
            kind = "photos" if photos else "films"
            reporter.say(f"{failed} of {len(sources)} {kind} could not be read or written")
        return 2 if failed else 0

    def _check_films(self, sources: list[Source]) -> None:
        """Raises `ConfigError` for options of films with photos, several cameras, or without the tracking package."""
        endless = [source.name for source in sources if source.stream is not None]
        if len(endless) > 1:
            raise ConfigError(
                f"several cameras or streams, {endless[0]} and {endless[1]}: the first may never end; give one"
            )
        photos = [source.name for source in sources if not source.is_video]
        for option, given in (("--track", self.track), ("--fps", self.frames_per_second is not None)):
            if given and photos:
                others = f" and {len(photos) - 1} others are photos" if len(photos) > 1 else " is a photo"
                raise ConfigError(f"{option} is for films; {photos[0]}{others}: give films alone or leave {option} out")
        if self.track:
            from yolojax.inference.tracking import byte_track

            byte_track()

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
            return {"image": source.name, "error": str(result)}
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
        self,
        predictor: Predictor,
        source: Source,
        options: dict[str, Any],
        files: Files,
        entries: EntryList,
        reporter: Reporter,
    ) -> dict[str, Any]:
        """A film: decoded ahead of the network, written behind it. Returns its entry without the frames.

        What was found until an error or Ctrl-C is written, too.
        """
        from yolojax.data.video import Video
        from yolojax.inference.pipeline import Ahead, Behind
        from yolojax.inference.results import Result
        from yolojax.inference.tracking import LEAST_SCORE, byte_track, identify

        try:
            video = Video(source.path if source.stream is None else source.stream, self.frames_per_second)
        except (DataError, OSError, ValueError, MemoryError) as error:
            reporter.say(f"not read: {error}")
            entry = {"video": source.name, "error": str(error)}
            entries.append(entry)
            return entry
        least = self.confidence
        if least is None:
            least = predictor.spec.postprocess.prediction.confidence
        tracker = None
        if self.track:
            tracker = byte_track(confidence=least, frames_per_second=video.frames_per_second)
            options = {**options, "confidence": min(least, LEAST_SCORE)}

        head = {"video": source.name, "frames_per_second": video.frames_per_second}
        seen = Seen()
        size = predictor.batch_size
        with (
            reporter.task(source.path.name, video.count) as advance,
            entries.film(head) as (append, tail),
            Ahead(video, most=size, drop_oldest=video.is_live) as frames,
        ):
            failure: DataError | None = None

            def until_failure() -> Iterator[Frame]:
                """The frames up to one that cannot be had; those before it are still on their way then."""
                nonlocal failure
                try:
                    yield from frames
                except DataError as error:
                    failure = error

            def found() -> Iterator[tuple[Frame, Result]]:
                for frame, result in predictor.each(until_failure(), attrgetter("image"), **options):
                    assert isinstance(result, Result)  # pixels in memory can be read
                    yield frame, result if tracker is None else identify(result, tracker, confidence=least)

            def record(pair: tuple[Frame, Result]) -> None:
                frame, result = pair
                append({"frame": frame.number, "seconds": round(frame.seconds, 6), **result.as_dict()})
                seen.add(result)
                advance(seen.frames, total=max(video.count, seen.frames))

            try:
                with files.film(source, video.frames_per_second) as write:

                    def draw(pair: tuple[Frame, Result]) -> tuple[Frame, Result]:
                        write(pair[1], pair[0].number)
                        return pair

                    # One thread, because the frames of a film are in order.
                    with Behind(draw, most=2 * size, threads=1) as writing:
                        try:
                            for pair in found():
                                for done in writing.add(pair):
                                    record(done)
                        finally:
                            for done in writing.rest():
                                record(done)
                if failure is not None:
                    raise failure
            except KeyboardInterrupt:
                tail["interrupted"] = True
                raise
            except (DataError, OSError, ValueError, MemoryError) as error:
                reporter.say(f"not read to its end: {error}; {seen.frames} frames were done")
                tail["error"] = str(error)
            finally:
                if frames.dropped:
                    tail["dropped_frames"] = frames.dropped
        if frames.dropped:
            reporter.say(f"{source.name}: {frames.dropped} frames came faster than the network and were left out")
        if not self.json:
            print(f"{source.name}: {seen}")
        if seen.truncated:
            reporter.say(f"{source.name}: {seen.truncated} more were found; raise --max-detections to have them")
        return {**head, **tail}


class Seen:
    """What was found in a film so far, in memory that does not grow with its length."""

    def __init__(self) -> None:
        self.frames = self.truncated = 0
        self._most: Counter[str] = Counter()
        self._tracked: Counter[str] | None = None
        self._newest = -1

    def add(self, result: Result) -> None:
        """Counts a frame."""
        self.frames += 1
        self.truncated += result.truncated
        self._most |= Counter(result.names)
        if result.identities is not None:
            # Identities are given in rising order, so that the highest one tells which are new.
            new = [n for n, i in zip(result.names, result.identities.tolist(), strict=True) if i > self._newest]
            self._tracked = (self._tracked or Counter()) + Counter(new)
            self._newest = max(self._newest, *result.identities.tolist(), -1)

    def __str__(self) -> str:
        text = f"{self.frames} frames; at most on one: {_counts(self._most)}"
        return text if self._tracked is None else f"{text}; objects in all: {_counts(self._tracked)}"


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
    return _counts(Counter(names))


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "nothing found"
