"""``yolojax val`` and ``eval``: a detector, or a list of detections, measured and reported."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from yolojax import __version__
from yolojax.cli.folders import choose_folder
from yolojax.cli.provenance import command_line, described
from yolojax.cli.tiling import TilingOptions
from yolojax.cli.tta import TTAOptions
from yolojax.config import TrainConfig, ValidationConfig, check
from yolojax.errors import ConfigError, ResultError

if TYPE_CHECKING:
    from yolojax.data import Dataset
    from yolojax.eval.analysis import Analysis
    from yolojax.eval.result_format import ResultFormat

_MOST_SAMPLES = 1_000_000

_ADDRESSES = ("http:/", "https:/", "s3:/", "gs:/", "ftp:/")


@dataclass(frozen=True)
class Val:
    """Measure a detector on a data set: COCO's twelve numbers, precision and recall.

    Attributes:
      model: a run directory or the name of one in runs/, a folder that holds a released detector, an .npz of YOLOX
        weights, the .cfg and .weights of a Darknet (with its .names, so that classes have names), or the .pt of a
        published YOLOv5, v5u, v8 to v10, 11, 12, 26, YOLOX, YOLO-NAS, RT-DETR, D-FINE, DEIMv2, Faster R-CNN or
        RetinaNet (.pth, .safetensors, a folder of Hugging Face's), or an exported .onnx or .stablehlo.
      data: a data set, as for train; its classes are matched with the detector's by name.
      split: part of the data set; without data, of the one that the run was trained on.
      images: the folder of the images, where they do not lie at their format's usual place.
      out: folder for detections.json (COCO's result format) and the report: index.html, report.md, metrics.json,
        PR_curve.png and the other curves, confusion_matrix.png.
      validation: How detections are made and measured.
      tiling: Tiles of large photos.
      tta: Test-time augmentation.
      dtype: floating-point type in which the network computes; bfloat16 is faster on accelerators and less exact.
      runtime: what runs an .onnx; the first that is installed unless given.
    """

    model: Annotated[tuple[Path, ...], arg(metavar="RUN|FILE ...")]
    data: Annotated[
        str | None, arg(metavar="DATA", help_behavior_hint="(default: the run's own validation images)")
    ] = None
    split: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: val, or all of DATA where there are no parts)")
    ] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    out: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/val, runs/val2, ...)")
    ] = None
    validation: OmitArgPrefixes[ValidationConfig] = field(default_factory=ValidationConfig)
    tiling: OmitArgPrefixes[TilingOptions] = field(default_factory=TilingOptions)
    tta: OmitArgPrefixes[TTAOptions] = field(default_factory=TTAOptions)
    dtype: Literal["float32", "bfloat16"] = "float32"
    runtime: Annotated[
        Literal["onnxruntime", "openvino"] | None, arg(help_behavior_hint="(default: what is installed)")
    ] = None

    def run(self) -> int:
        """Measure; prints the table and writes both files."""
        out = choose_folder(self.out, Path("runs/val"))

        from yolojax.cli.progress import make_reporter
        from yolojax.compilation_cache import keep_programs
        from yolojax.data import open_dataset, validation_split
        from yolojax.data.index import keep_index
        from yolojax.detector import FILE_CONFIDENCE, Postprocess
        from yolojax.eval.files import write_json
        from yolojax.eval.table import format_result
        from yolojax.inference.evaluate import evaluate
        from yolojax.inference.loading import load_detector
        from yolojax.inference.report import write_evaluation_report
        from yolojax.processor.memory import prepare_processor

        check(TrainConfig(validation=self.validation))
        tta, tiling = self.tta.settings(), self.tiling.settings()
        keep_programs()
        keep_index()
        prepare_processor(self.validation.batch_size)
        model = load_detector(*self.model, dtype=self.dtype, runtime=self.runtime)
        reporter = make_reporter()
        least = model[0].spec.options.get(FILE_CONFIDENCE)
        if least is not None and least > Postprocess().validation.confidence:
            reporter.say(f"{self.model[0]} gives detections from the score {least:g} on; AP counts no others")
        if self.data is None:
            data = self._own_images(model[0].spec.class_names)
        else:
            split = self.split or validation_split(self.data)
            if split is not None and self.split is None:
                reporter.say(f"measuring on the part {split} of {self.data}")
            data = open_dataset(self.data, split, class_names=model[0].spec.class_names, images=self.images)
        found = evaluate(model, data, validation=self.validation, reporter=reporter, tta=tta, tiling=tiling)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "detections.json", with_own_ids(found.detections, data))
        write_evaluation_report(
            out,
            found,
            data,
            title=f"{self.model[0].resolve().name} on {data.root.name if data.root else 'generated data'}"
            + (f" ({data.split})" if data.split else ""),
            provenance={
                "command": command_line(),
                "model": " ".join(map(str, self.model)),
                "data": self.data or "the run's own",
            },
            samples=self.validation.samples,
            reporter=reporter,
            pictures=out,
        )
        print(format_result(found.result))
        if found.truncated:
            most = self.validation.max_detections or model[0].spec.postprocess.validation.max_detections
            print(f"{found.truncated} detections beyond {most} an image were not counted")
        if found.truncated_candidates:
            print(f"{found.truncated_candidates} candidates did not enter suppression; a higher confidence has fewer")
        print(f"\n{out}: detections.json, index.html, report.md, metrics.json, curves and confusion matrix as PNG")
        return 0

    def _own_images(self, class_names: tuple[str, ...]) -> Dataset:
        """The validation images that the run was measured on, or ``--split`` of the data that it was trained on."""
        from yolojax.data import open_dataset
        from yolojax.inference.loading import load_origin
        from yolojax.progress import Quiet
        from yolojax.training.data import open_data
        from yolojax.training.run_directory import read_config, read_given

        if self.images is not None:
            raise ConfigError("--images are those of --data; give both or neither")
        if not load_origin(*self.model):
            raise ConfigError(f"{self.model[0]} is no run of ours; give --data to say what to measure it on")
        if "data" in read_given(self.model[0]):
            raise ConfigError(f"{self.model[0]} was trained on images in memory; give --data to say what to measure on")
        config = read_config(self.model[0])
        if self.split is not None:
            return open_dataset(config.data.path, self.split, class_names=class_names, images=config.data.images)
        own = open_data(config.data, config.seed, None, Quiet()).val
        if own is None:
            raise ConfigError(f"{self.model[0]} was trained without validation images; give --data")
        return own


@dataclass(frozen=True)
class Eval:
    """Measure a file of detections, whoever made it, against ground truth; the numbers are pycocotools'.

    What looks like a mistake in either file (other ids, another box format, repeated rows) is named in a warning with
    the option that mends it. Nothing is converted unless an option says so.

    Attributes:
      truth: ground truth: a COCO JSON file, or a data set in any layout that train takes.
      detections: a COCO result list (JSON), or a COCO data set whose annotations have scores; the latter is joined by
        file name and class name.
      split: part of the data set, where the ground truth is not a COCO JSON file.
      images: folder of the images, where they are not at the ground truth's own place; only the gallery shows them.
      compare: other detections on the same images: differences with intervals.
      confidence: score from which a detection counts for precision and recall; AP and AR read all detections.
      dense: count up to 1000 detections of a class on an image instead of COCO's 100.
      unknown: detections on unknown images or classes: refuse the file, or leave them out and count them.
      ignore: objects with the flag ignore: ordinary ones (COCO's numbers), or neither object nor background.
      areas: what decides small, medium and large: the areas given in the ground truth, or those of its boxes.
      box_format: of the detections: xywh (left, top, width, height in pixels), xyxy, cxcywh, yxhw, yxyx; the same with
        n at the end (xywhn) in parts of the image; letterbox640, corner640, stretch640 (any size) in pixels of a square
        input image, with -xyxy or -cxcywh at the end for corners or centres there.
      category_ids: of the detections: the ground truth's, one too high (less-one) or too low (plus-one), or positions
        among its classes counted from zero or one.
      image_ids: of the detections: the ground truth's, or numbers in the names of its files. A data set without ids of
        its own (VOC, YOLO) is always joined by file name.
      score_format: of the detections: scores in 0..1, percent, or logit.
      voc: print Pascal VOC's AP as well (IoU .5, difficult objects ignored), all-point and 11-point.
      ties: order of equal scores: as listed (COCO's numbers), or by content, so that the order of the list is without
        effect.
      backend: auto takes hotcoco where it is installed (extra fast-eval): the same numbers, a hundred times as fast;
        pycocotools recomputes with pycocotools.
      samples: bootstrap resamples for the intervals of the report; 0 for none.
      seed: of the resamples.
      out: folder for the report: index.html, report.md, metrics.json,
        PR_curve.png and the other curves, confusion_matrix.png.
    """

    truth: Annotated[Positional[str], arg(metavar="TRUTH")]
    detections: Annotated[Positional[Path], arg(metavar="DETECTIONS")]
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: all of it)")] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: beside the ground truth)")] = (
        None
    )
    compare: Annotated[Path | None, arg(metavar="OTHER", help_behavior_hint="(default: no comparison)")] = None
    confidence: float = 0.25
    dense: bool = False
    unknown: Literal["refuse", "count"] = "refuse"
    ignore: Literal["ordinary", "crowd"] = "ordinary"
    areas: Literal["given", "box"] = "given"
    box_format: Annotated[str, arg(metavar="FORMAT")] = "xywh"
    category_ids: Literal["given", "less-one", "plus-one", "from-zero", "from-one"] = "given"
    image_ids: Literal["given", "names"] = "given"
    score_format: Literal["given", "percent", "logit"] = "given"
    voc: bool = False
    ties: Literal["listed", "canonical"] = "listed"
    backend: Literal["auto", "pycocotools", "hotcoco"] = "auto"
    samples: int = 1000
    seed: int = 0
    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: nothing is written)")] = None

    def run(self) -> int:
        """Measure; prints the table and, with a folder or a comparison, the two lines of the diagnosis."""
        out = choose_folder(self.out, self.out) if self.out is not None else None
        if self.samples < 0 or self.samples == 1:
            raise ConfigError(f"--samples {self.samples}: intervals need at least two resamples; 0 leaves them out")
        if self.samples > _MOST_SAMPLES:
            raise ConfigError(f"--samples {self.samples}: at most {_MOST_SAMPLES} resamples; 1000 are plenty")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"--seed {self.seed}: it must lie within 0..{2**31 - 1}")
        for given in (self.truth, str(self.detections), str(self.compare)):
            if given.startswith(_ADDRESSES):
                whole = re.sub(r"^(\w+:)/(?=[^/])", r"\1//", given)  # a path has lost one of its slashes
                raise ConfigError(f"{whole} is an address, not a file; download it and give the path of the file")
        is_json = self.truth.lower().endswith(".json")
        if is_json and self.split is not None:
            raise ConfigError(f"--split {self.split}: {self.truth} is one file; leave --split out")
        for file in (self.detections, self.compare):
            if file is not None and not file.is_file():
                what = "it is a folder" if file.is_dir() else "it is no ordinary file"
                what = what if file.exists() else "there is no such file"
                raise ResultError(f"cannot read {file}: {what}; give a COCO result list (JSON)")
        if self.images is not None and not self.images.is_dir():
            raise ConfigError(f"--images {self.images}: no such folder")
        if self.compare is not None and not self.samples:
            raise ConfigError("--compare needs resamples; leave --samples 0 out")

        from yolojax.cli.progress import make_reporter
        from yolojax.eval.coco import COCO_CAPS, DENSE_CAPS, evaluate_coco
        from yolojax.eval.result_format import ResultFormat
        from yolojax.eval.table import format_result

        image_ids = self.image_ids
        result_format = ResultFormat(self.box_format, self.category_ids, image_ids, self.score_format)
        dataset = None
        if not is_json:
            from yolojax.data import open_dataset

            dataset = open_dataset(self.truth, self.split, images=self.images, images_needed=False)
        reporter = make_reporter()
        truth: Any = self.truth
        if dataset is not None:
            truth = _coco_file(Path(self.truth), dataset) or dataset.to_coco()
            if dataset.format in ("voc", "yolo"):  # they have no ids of their own
                result_format = replace(result_format, image_ids="names")
                if dataset.summary.findings:
                    reporter.say(dataset.summary.text(limit=3))
        options: dict[str, Any] = {
            "confidence": self.confidence,
            "caps": DENSE_CAPS if self.dense else COCO_CAPS,
            "unknown": self.unknown,
            "ignore_means": self.ignore,
            "ties": self.ties,
            "areas": self.areas,
            "result_format": result_format,
            "backend": self.backend,
        }
        options["reporter"] = reporter
        if out is None and self.compare is None:
            print(format_result(evaluate_coco(truth, self.detections, **options)))
            self._print_voc(truth, result_format)
            return 0

        from yolojax.eval.analysis import analyse, compare
        from yolojax.eval.report.write import write_report
        from yolojax.eval.table import format_comparison

        def analysed(detections: Path) -> Analysis:
            with reporter.task(f"resampling {detections.name}", self.samples) as advance:
                return analyse(truth, detections, **options, samples=self.samples, seed=self.seed, progress=advance)

        analysis = analysed(self.detections)
        comparison = compare(analysis, analysed(self.compare)) if self.compare is not None else None
        if dataset is None or isinstance(truth, Path):
            from yolojax.cli.photos import photos_of

            photo = photos_of(analysis.truth, Path(truth), self.images)
        else:
            record_of = {record.image_id: record for record in dataset.records}
            photo = lambda image_id: record_of[image_id].pixels()  # noqa: E731
        print(format_result(analysis.result))
        self._print_voc(truth, result_format)
        if comparison is not None:
            for mistake in comparison.other.result.mistakes:
                print(f"\nwarning about {self.compare}: {mistake}")
            print(f"\n{format_comparison(comparison)}")
        if analysis.reading is not None:
            print(f"\n{analysis.reading}")
        if out is not None:
            origin = {
                "command": command_line(),
                "truth": described(self.truth),
                "detections": described(self.detections),
            }
            if self.compare is not None:
                origin["compare"] = described(self.compare)
            origin["program"] = f"yolojax {__version__}"
            write_report(
                out,
                analysis,
                comparison=comparison,
                photo=photo,
                provenance=origin,
                title=self.detections.stem,
                pictures=out,
            )
            print(f"\n{out}: index.html, report.md, metrics.json, curves and confusion matrix as PNG")
        return 0

    def _print_voc(self, truth: Any, result_format: ResultFormat) -> None:
        if not self.voc:
            return
        from yolojax.eval.table import format_number
        from yolojax.eval.voc import evaluate_voc

        all_points, eleven = (
            evaluate_voc(
                truth, self.detections, interpolation=rule, unknown=self.unknown, result_format=result_format
            ).mAP
            for rule in ("all_points", "eleven_points")
        )
        print(
            f"\nPascal VOC mAP at IoU .50: {format_number(all_points)} (all points), "
            f"{format_number(eleven)} (11 points)"
        )


def _coco_file(place: Path, dataset: Dataset) -> Path | None:
    """The COCO file that a data set in a folder was read from, so that folder and file give the same numbers.

    The file is the authority; it is read by the same rules.
    """
    from yolojax.data.coco import find_coco, find_other_coco

    if dataset.format != "coco" or not place.is_dir():
        return None
    found = find_coco(place) or find_other_coco(place)
    return next(iter(found.values())) if len(found) == 1 else found.get(dataset.split or "")


def with_own_ids(rows: list[dict[str, Any]], data: Dataset) -> list[dict[str, Any]]:
    """A result list with the ids of the file where they are texts; with file names where there are no ids at all."""
    if data.coco is not None:
        image_of = {k: entry["id"] for k, entry in data.coco.images.items()}
        category_of = data.coco.category_keys
        return [
            {
                **row,
                "image_id": image_of.get(row["image_id"], row["image_id"]),
                "category_id": category_of.get(row["category_id"], row["category_id"]),
            }
            for row in rows
        ]
    if data.format not in ("voc", "yolo"):
        return rows
    name_of = {record.image_id: record.file_name for record in data.records}
    return [{**row, "file_name": name_of[row["image_id"]]} for row in rows]
