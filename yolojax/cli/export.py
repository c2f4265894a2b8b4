"""``yolojax export``: a detector as one file for other programs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from yolojax.errors import ConfigError
from yolojax.paths import check_writable, user_path

if TYPE_CHECKING:
    from yolojax.detector import Detector, Variables
    from yolojax.export import ExportSettings
    from yolojax.progress import Reporter


@dataclass(frozen=True)
class Export:
    """Write a detector as one file that holds preprocessing, network, decoding and suppression.

    The input is a uint8 RGB image [batch, height, width, 3] of the detector's size; the outputs are boxes (x1, y1, x2,
    y2 in pixels of the input), scores, classes and count.

    Attributes:
      model: a run directory or the name of one in runs/, a folder that holds a released detector, the .cfg and .weights
        of a Darknet, the .pt of a published YOLO, and whatever else predict takes.
      format: stablehlo, for JAX on processors, NVIDIA GPUs and TPUs, or onnx, for everything else.
      out: the file; it must not exist yet.
      size: longer side of the input in pixels, a multiple of the largest stride.
      batch: images that the file takes at once; dynamic leaves the number open.
      confidence: score from which a detection is given.
      iou: overlap above which nms removes the box of lower score.
      max_detections: most detections of an image.
      raw: stop before thresholds and suppression: all boxes with their scores.
      letterbox: take photos of any size and resize them inside; boxes are then in pixels of the photo.
      half: keep and compute the network in 16 bits: float16 in ONNX, bfloat16 in StableHLO.
      int8: keep the weights in 8 bits (weights), or compute with 8 bits as well (static; static-7bit for x86 processors
        without VNNI instructions, whose sums would be cut off); for onnx. AP before and after is measured on --data.
      calibrate: photos for static int8: a folder of some hundred like those to come.
      data: a data set with ground truth, as val takes it, on which int8 is measured.
      split: part of the data set.
      max_loss: the most AP that int8 may lose; a file that lost more is not written.
    """

    model: Annotated[tuple[Path, ...], arg(metavar="RUN|FILE ...")]
    format: Literal["stablehlo", "onnx"]
    out: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: MODEL.FORMAT)")] = None
    size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: as trained)")] = None
    batch: Annotated[str, arg(metavar="INT|dynamic")] = "1"
    confidence: Annotated[
        float | None, arg(aliases=["--conf"], metavar="FLOAT", help_behavior_hint="(default: the detector's, .25)")
    ] = None
    iou: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: the detector's, .45)")] = None
    max_detections: Annotated[
        int | None, arg(aliases=["--max-det"], metavar="INT", help_behavior_hint="(default: the detector's, 100)")
    ] = None
    raw: bool = False
    letterbox: bool = False
    half: bool = False
    int8: Annotated[Literal["weights", "static", "static-7bit"] | None, arg(help_behavior_hint="(default: no)")] = None
    calibrate: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    data: Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")] = None
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: val, or all of DATA)")] = None
    max_loss: float = 0.01

    def run(self) -> int:
        """Export; prints what the file takes and gives."""
        out = self._file()
        batch = self._batch()
        self._check_int8()
        if any(path.suffix.lower() in (".stablehlo", ".onnx") for path in self.model):
            raise ConfigError(f"{self.model[0]} is exported already; give the detector that it was made of")

        from yolojax.cli.progress import make_reporter
        from yolojax.export import ExportSettings, to_onnx, to_stablehlo
        from yolojax.files import write_whole
        from yolojax.inference.loading import load_detector

        settings = ExportSettings(
            batch=batch,
            confidence=self.confidence,
            iou=self.iou,
            max_detections=self.max_detections,
            raw=self.raw,
            letterbox=self.letterbox,
            half=self.half,
        )
        dtype = "float32" if not self.half else "float16" if self.format == "onnx" else "bfloat16"
        make: Any = to_onnx if self.format == "onnx" else to_stablehlo
        reporter = make_reporter()
        detector, variables = load_detector(*self.model, size=self.size, dtype=dtype)
        if self.int8 is not None:
            content = self._int8(detector, variables, settings, reporter)
        else:
            with reporter.task(f"exporting {detector.spec.name}", 1) as advance:
                content = make(detector, variables, settings, dtype=dtype)
                advance(1)
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, content, advice="free space or give another --out")
        height, width = detector.spec.input_size
        takes = (
            f"photos [{self.batch}, any, any, 3]" if self.letterbox else f"images [{self.batch}, {height}, {width}, 3]"
        )
        gives = "boxes, scores of all candidates" if self.raw else "boxes, scores, classes, count"
        print(f"{out}: {len(content) / 1e6:.1f} MB; uint8 RGB {takes} -> {gives}")
        return 0

    def _check_int8(self) -> None:
        if self.int8 is None:
            for name, kind in (("calibrate", " static"), ("data", ""), ("split", "")):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name} belongs to --int8{kind}; give both or neither")
            return
        if self.format != "onnx":
            raise ConfigError(f"--int8 is for the format onnx, not {self.format}")
        if self.data is None:
            raise ConfigError("--int8 changes what a detector finds; give --data to measure how much")
        if not 0 <= self.max_loss < 1:
            raise ConfigError(f"--max-loss {self.max_loss}: give the AP that may be lost, from 0 to below 1")
        if (self.int8 != "weights") != (self.calibrate is not None):
            mend = "takes no --calibrate; leave it out" if self.calibrate else "needs --calibrate FOLDER; give one"
            raise ConfigError(f"--int8 {self.int8} {mend}")
        if self.calibrate is not None and not user_path(self.calibrate).exists():
            raise ConfigError(f"--calibrate {self.calibrate}: no such folder; give one of photos")
        if self.half:
            raise ConfigError("--half and --int8 are two forms of the same weights; choose one of both")
        if self.letterbox and self.int8 != "weights":
            raise ConfigError(f"--int8 {self.int8} is calibrated on images of the input size; leave --letterbox out")

    def _int8(self, detector: Detector, variables: Variables, settings: ExportSettings, reporter: Reporter) -> bytes:
        """The content of the file, once its AP is near enough to that of the detector."""
        import tempfile

        from yolojax.data import open_dataset, validation_split
        from yolojax.data.sources import find_sources
        from yolojax.export import ExportSettings, load_exported
        from yolojax.export.quantise import calibration_images, lacks_vnni, to_int8_onnx
        from yolojax.inference.evaluate import evaluate

        assert self.int8 is not None and self.data is not None
        if self.int8 == "static" and lacks_vnni(platform.machine(), _processor_flags()):
            reporter.say(
                "this processor has no VNNI instructions: sums with weights of 8 bits are cut off here, and what is "
                "measured is too low; take --int8 static-7bit for such processors"
            )
        split = self.split or validation_split(self.data)
        data = open_dataset(self.data, split, class_names=detector.spec.class_names)
        photos = []
        if self.calibrate is not None:
            found = find_sources([str(self.calibrate)], lambda: b"")
            photos = calibration_images([source.path for source in found if not source.is_video], detector)
        content = to_int8_onnx(detector, variables, settings, self.int8, photos)
        # All candidates, so that both are measured by the same thresholds.
        raw = to_int8_onnx(detector, variables, ExportSettings(batch=None, raw=True), self.int8, photos)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "raw.onnx"
            path.write_bytes(raw)
            rounded = load_exported(path, runtime="onnxruntime")
            before, after = (
                evaluate(model, data, reporter=reporter).result.AP for model in ((detector, variables), rounded)
            )
        if before is None or after is None:
            raise ConfigError(
                "--data has no boxes, so that AP before and after cannot be measured; nothing was written"
            )
        measured = f"AP {before:.4f} before, {after:.4f} after ({len(data)} images)"
        print(f"int8 {self.int8}: {measured}")
        if not before - after <= self.max_loss:
            raise ConfigError(
                f"int8 {self.int8} lost more than --max-loss {self.max_loss:g}: {measured}; nothing was written. Take "
                f"{self._instead()}"
            )
        return content

    def _instead(self) -> str:
        """What may lose less than this kind of int8."""
        if self.int8 == "weights":
            return "--half"
        finer = "--int8 static on a processor with VNNI, " if self.int8 == "static-7bit" else ""
        return f"{finer}--int8 weights, other photos to calibrate on, or --half"

    def _file(self) -> Path:
        suffix = f".{self.format}"
        if self.out is not None:
            out = user_path(self.out)
        else:
            first = user_path(self.model[0])
            out = Path((first.stem if first.is_file() else first.absolute().name) + suffix)
        if out.suffix.lower() != suffix:
            raise ConfigError(f"--out {out}: a file of the format {self.format} ends in {suffix}")
        if out.exists():
            raise ConfigError(f"{out} exists already; give another --out, or remove it")
        if out.absolute().parent.exists() and not out.absolute().parent.is_dir():
            raise ConfigError(f"--out {out}: {out.parent} is no folder; give another")
        check_writable(out.absolute().parent, "give another --out")
        return out

    def _batch(self) -> int | None:
        if self.batch == "dynamic":
            return None
        if not self.batch.isdecimal() or int(self.batch) < 1:
            raise ConfigError(f"--batch {self.batch}: give a number of images from 1 on, or dynamic")
        return int(self.batch)


def _processor_flags() -> str:
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
