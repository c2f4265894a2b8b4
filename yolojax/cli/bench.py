"""``yolojax bench``: how fast a detector trains on this machine, and where the time goes."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from yolojax.cli.model import choose_model
from yolojax.cli.train import option_values
from yolojax.config import DataConfig, ModelConfig, TrainConfig, check
from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.bench.throughput import Throughput


_MOST_SECONDS = 86_400


@dataclass(frozen=True)
class Bench:
    """Measure how fast a detector trains on this machine, and where the time goes. Nothing is kept.

    Attributes:
      what: training steps, through the ordinary program and feeding, augmentation included.
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

    what: Annotated[Positional[Literal["train"]], arg(help_behavior_hint="")]
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
        for name in ("seconds", "peak"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"--{name} {value}: give a positive number")
        if self.seconds > _MOST_SECONDS:
            raise ConfigError(f"--seconds {self.seconds:g}: give at most {_MOST_SECONDS:,}")
        if self.size < 32 or self.size % 32:
            raise ConfigError(f"--size {self.size}: give a multiple of 32, the largest stride")
        if self.json not in (None, "-") and not Path(self.json).absolute().parent.is_dir():
            raise ConfigError(f"--json {self.json}: there is no such folder; make it first")
        config = check(self.config())

        from yolojax.bench.throughput import measure_training
        from yolojax.cli.progress import make_reporter
        from yolojax.processor.memory import prepare_processor

        prepare_processor(self.batch)
        peak = None if self.peak is None else self.peak * 1e12
        found = measure_training(config, make_reporter(), seconds=self.seconds, parts=self.parts, peak=peak)
        numbers = json.dumps(dataclasses.asdict(found), indent=1)
        print(numbers if self.json == "-" else text_of(found))
        if self.json is not None and self.json != "-":
            Path(self.json).write_text(numbers + "\n")
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
