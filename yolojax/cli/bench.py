"""``yolojax bench``: how fast a detector trains and predicts on this machine, and where the time goes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from tyro.conf import Positional, arg, subcommand

from yolojax.cli.model import choose_model
from yolojax.cli.train import option_values
from yolojax.config import DataConfig, ModelConfig, TrainConfig, check
from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.bench.prediction import Photo, PredictionTimes
    from yolojax.bench.throughput import Throughput

MOST_PHOTOS = 64
"""Photos that `BenchPredict` keeps in memory."""


_MOST_SECONDS = 86_400


@dataclass(frozen=True)
class BenchTrain:
    """Measure training steps, through the ordinary program and feeding, augmentation included. Nothing is kept.

    Attributes:
      data: a data set to feed from, as train takes it; generated images unless given.
      model: an architecture, such as yolov8s, or a run or weight file, whose architecture is taken.
      option: further settings of the kind of detector, as NAME=VALUE.
      size: side of the square images as the detector sees them, in pixels; a multiple of 32.
      batch: images per step, over all devices.
      dtype: number format of the network's computation.
      seconds: how long to train, at least, once everything is compiled.
      parts: also time the parts of a step apart; compiles each of them once more.
      peak: what one device can do at most, in TFLOP/s, to compare with.
      json: write the numbers to this file as well, or to standard output in place of the text for -.
    """

    data: Annotated[Positional[str | None], arg(metavar="[DATA]", help_behavior_hint="")] = None
    model: Annotated[str, arg(metavar="NAME|RUN|FILE")] = "compact"
    option: Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")] = ()
    size: int = 320
    batch: Annotated[int, arg(aliases=["--batch-size"])] = 16
    dtype: Annotated[Literal["float32", "bfloat16"], arg(aliases=["--compute"])] = "float32"
    seconds: float = 10.0
    parts: bool = False
    peak: Annotated[
        float | None, arg(metavar="TFLOP/S", help_behavior_hint="(default: the data sheet's; measured on a processor)")
    ] = None
    json: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None

    def run(self) -> int:
        """Measures and prints."""
        check_positive(seconds=self.seconds, peak=self.peak)
        check_seconds(self.seconds)
        check_size(self.size)
        check_output(self.json)

        from yolojax.bench.throughput import measure_training
        from yolojax.cli.progress import make_reporter
        from yolojax.processor.memory import prepare_processor

        prepare_processor(self.batch)  # before a file as the model is read, for which jax asks for its devices
        config = check(self.config())
        peak = None if self.peak is None else self.peak * 1e12
        found = measure_training(config, make_reporter(), seconds=self.seconds, parts=self.parts, peak=peak)
        give(dataclasses.asdict(found), text_of(found), self.json)
        return 0

    def config(self) -> TrainConfig:
        """Returns the training run that is measured; raises `ConfigError` on an option that is no NAME=VALUE."""
        model = choose_model(self.model, option_values("option", self.option))
        path = self.data or f"shapes:?count={max(64, 2 * self.batch)}&size={self.size}"
        return TrainConfig(
            data=DataConfig(path=path),
            model=ModelConfig(name=model.name, size=self.size, rectangular=False, options=model.options),
            batch_size=self.batch,
            compute=self.dtype,
        )


@dataclass(frozen=True)
class BenchPredict:
    """Measure prediction, part by part: decoding, preprocessing, network, post-processing, and all of it.

    Several runtimes and batch sizes are measured in turns, so that all see the machine in the same state. The first
    call of each, compilation included, is told apart. Nothing is kept between calls: every program is compiled.

    Attributes:
      photos: what to predict on: files, folders or patterns; generated photos of 960 x 960 pixels unless given.
      model: as predict takes it, or the name of an architecture, which gets random parameters and 80 classes.
      runtime: what runs the network; all of those that are installed and can run the model unless given.
      size: longer side of the input in pixels.
      batch: images of a call; several numbers are measured one beside the other.
      seconds: how long to measure, at least, once everything is compiled.
      json: write the numbers to this file as well, or to standard output in place of the text for -.
    """

    photos: Annotated[Positional[tuple[str, ...]], arg(metavar="[PHOTO|FOLDER ...]", help_behavior_hint="")] = ()
    model: Annotated[tuple[str, ...], arg(metavar="RUN|FILE|NAME ...", help_behavior_hint="(default: yolov8)")] = (
        "yolov8",
    )
    runtime: Annotated[tuple[str, ...], arg(metavar="[NAME ...]", help_behavior_hint="(default: all)")] = ()
    size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as trained, or 640)")] = None
    batch: Annotated[tuple[int, ...], arg(aliases=["--batch-size"])] = (1, 8)
    seconds: float = 10.0
    json: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")] = None

    def run(self) -> int:
        """Measures and prints."""
        check_positive(seconds=self.seconds)
        check_seconds(self.seconds)
        check_output(self.json)
        if not self.batch or min(self.batch) < 1 or len(set(self.batch)) < len(self.batch):
            raise ConfigError(f"--batch {' '.join(map(str, self.batch))}: give different numbers of at least 1")

        from yolojax.bench.prediction import measure_prediction, open_runtimes
        from yolojax.cli.progress import make_reporter
        from yolojax.processor.memory import prepare_processor

        photos = self._photos()
        prepare_processor(math.gcd(*(size for size in self.batch if size > 1)) or 1)
        runtimes = open_runtimes(self.model, self.runtime, size=self.size, batch_sizes=self.batch)
        found = measure_prediction(runtimes, photos, make_reporter(), seconds=self.seconds)
        give([dataclasses.asdict(times) for times in found], prediction_table(found, len(photos)), self.json)
        return 0

    def _photos(self) -> list[Photo]:
        """The content of the files; raises `DataError` when one cannot be read."""
        from yolojax.bench.prediction import Photo, generated_photos
        from yolojax.data.sources import find_sources
        from yolojax.errors import DataError

        if not self.photos:
            return generated_photos()
        paths = [source.path for source in find_sources(self.photos) if not source.is_video]
        try:
            return [Photo(str(path), path.read_bytes()) for path in paths[:MOST_PHOTOS]]
        except OSError as error:
            raise DataError(f"{error.filename}: {error.strerror}; give photos that can be read") from error


@dataclass(frozen=True)
class Bench:
    """Measure how fast a detector trains or predicts on this machine, and where the time goes."""

    what: Annotated[
        Union[  # noqa: UP007 (its members are annotations)
            Annotated[BenchTrain, subcommand("train", prefix_name=False)],
            Annotated[BenchPredict, subcommand("predict", prefix_name=False)],
        ],
        arg(name=""),
    ]

    def run(self) -> int:
        """What was asked for."""
        return self.what.run()


def check_positive(**values: float | None) -> None:
    """Raises `ConfigError` for a number that is not positive and finite."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name} {value}: give a positive number")


def check_seconds(seconds: float) -> None:
    """Raises `ConfigError` for more than a day."""
    if seconds > _MOST_SECONDS:
        raise ConfigError(f"--seconds {seconds:g}: give at most {_MOST_SECONDS:,}")


def check_size(size: int) -> None:
    """Raises `ConfigError` unless the largest stride divides the size."""
    if size < 32 or size % 32:
        raise ConfigError(f"--size {size}: give a multiple of 32, the largest stride")


def check_output(file: str | None) -> None:
    """Raises `ConfigError` when ``--json`` names a file in a folder that does not exist."""
    if file not in (None, "-") and not Path(file).absolute().parent.is_dir():
        raise ConfigError(f"--json {file}: there is no such folder; make it first")


def give(numbers: Any, text: str, file: str | None) -> None:
    """Prints the text, or the numbers as JSON where ``file`` is ``-``; writes the numbers to any other file."""
    content = json.dumps(numbers, indent=1)
    print(content if file == "-" else text)
    if file is not None and file != "-":
        Path(file).write_text(content + "\n")


def prediction_table(found: Sequence[PredictionTimes], photos: int) -> str:
    """Returns the measurements as a table, with a line below it for what its columns do not say."""
    parts = ("decode", "preprocess", "network", "postprocess", "program")
    heads = ("runtime", "batch", "first", *parts, "latency", "images/s")
    rows: list[tuple[str, ...]] = [heads]
    for times in found:
        rows.append(
            (
                f"{times.runtime} {times.version}",
                str(times.batch_size),
                f"{times.first_ms / 1e3:.1f} s",
                *(f"{getattr(times, name + '_ms'):.2f}" for name in parts),
                f"{times.latency_ms:.1f}",
                f"{times.images_per_second:.1f}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    height, width = found[0].input_size
    detections = ", ".join(f"{times.detections:.1f}" for times in found)
    return "\n".join(
        [
            *lines,
            f"{width} x {height} pixels on {found[0].device}; {photos} photos, {detections} detections on each, "
            f"{found[0].rounds} rounds in turns",
            "Milliseconds, medians: of one image from decode to program, of a batch for latency (bytes to boxes);",
            "program is network and postprocess in one call; images/s reads photos ahead in threads.",
        ]
    )


def text_of(found: Throughput) -> str:
    """Returns the measurement as a few lines."""
    height, width = found.input_size
    needs = "" if found.memory is None else f"; needs {found.memory / 1e9:.2f} GB of a device by XLA's analysis"
    used = "" if found.device_memory is None else f", {found.device_memory / 1e9:.2f} GB in use at most"
    done = 3 * found.forward_flops * found.images_per_second
    of = "; give --peak to compare with what the device can do"
    if found.peak_flops is not None and found.utilisation is not None:
        of = f", {found.utilisation:.1%} of {found.peak_flops / 1e12:.4g} ({found.peak_source})"
    rows = {
        "detector": f"{found.detector}, {found.parameters:,} parameters, {width} x {height} pixels, {found.compute}",
        "devices": f"{found.devices} x {found.device}, batch {found.batch_size}",
        "speed": f"{found.images_per_second:.1f} images/s; median step {1e3 * found.step_seconds:.0f} ms of "
        f"{found.steps}; {found.waiting_share:.1%} of the time waiting for data",
        "program": f"{found.programs} compiled in {found.compile_seconds:.1f} s{needs}{used}",
        "work": f"3 x {found.forward_flops / 1e9:.3g} GFLOP an image: {done / 1e12:.3g} TFLOP/s{of}",
    }
    if found.traffic is not None:
        moved = f"at most {found.traffic / 1e9:.3g} GB a step by XLA's analysis"
        if found.peak_bandwidth is not None and found.bandwidth_share is not None:
            moved += (
                f", {found.bandwidth_share:.1%} of {found.peak_bandwidth / 1e9:.4g} GB/s ({found.bandwidth_source})"
            )
        rows["traffic"] = moved
    if found.parts:
        parts = ", ".join(f"{name} {1e3 * seconds:.0f} ms" for name, seconds in found.parts.items())
        rows["parts"] = f"{parts}; each compiled by itself"
    return "\n".join(f"{name:<9} {value}" for name, value in rows.items())
