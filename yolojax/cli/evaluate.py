"""``yolojax val``, ``eval`` and ``diagnose``: a detector, a list of detections, or a row of numbers measured."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.config import ValidationConfig, from_dict
from yolojax.errors import ConfigError, ResultError

if TYPE_CHECKING:
    from yolojax.data import Dataset


@dataclass(frozen=True)
class Val:
    """Measure a detector on a data set: COCO's twelve numbers, precision and recall.

    Attributes:
      model: a run directory, or a folder that holds a released detector.
      data: a data set, as for train; its classes are matched with the detector's by name.
      split: part of the data set.
      out: folder for detections.json (COCO's result format) and metrics.json.
      validation: How detections are made.
    """

    model: Annotated[Path, arg(metavar="RUN")]
    data: Annotated[
        str | None, arg(metavar="DATA", help_behavior_hint="(default: the run's own validation images)")
    ] = None
    split: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: val, or all of DATA where there are no parts)")
    ] = None
    out: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/val, runs/val2, ...)")
    ] = None
    validation: OmitArgPrefixes[ValidationConfig] = field(default_factory=ValidationConfig)

    def run(self) -> int:
        """Measure; prints the table and writes both files."""
        out = choose_folder(self.out, Path("runs/val"))

        from yolojax.cli.progress import make_reporter
        from yolojax.eval.files import write_json, write_metrics
        from yolojax.eval.table import format_result
        from yolojax.predict import load_detector
        from yolojax.training.evaluation import evaluate
        from yolojax.training.splits import validation_split

        model = load_detector(self.model)
        reporter = make_reporter()
        split = self.split if self.split is not None or self.data is None else validation_split(self.data)
        if split is not None and self.split is None:
            reporter.say(f"measuring on the part {split} of {self.data}")
        data = self.data if self.data is not None else self._own_validation_images()
        found = evaluate(model, data, split, validation=self.validation, reporter=reporter)
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "detections.json", found.detections)
        write_metrics(out / "metrics.json", found.result)
        print(format_result(found.result))
        if found.truncated:
            print(f"{found.truncated} detections beyond {self.validation.max_detections} an image were not counted")
        print(f"\n{out}: detections.json, metrics.json")
        return 0

    def _own_validation_images(self) -> Dataset:
        from yolojax.training.rundir import read_config
        from yolojax.training.splits import open_splits

        if self.split is not None:
            raise ConfigError("--split is a part of --data; give both or neither")
        _, own = open_splits(from_dict(read_config(self.model)).data)
        if own is None:
            raise ConfigError(f"{self.model} was trained without validation images; give --data")
        return own


@dataclass(frozen=True)
class Eval:
    """Measure a file of detections, whoever made it, against ground truth; the numbers are pycocotools'.

    Attributes:
      truth: ground truth: a COCO JSON file, or a data set in any layout that train takes.
      detections: a COCO result list (JSON).
      split: part of the data set, where the ground truth is not a COCO JSON file.
      confidence: score from which a detection counts for precision and recall; AP and AR read all detections.
      dense: count up to 1000 detections of a class on an image instead of COCO's 100.
      unknown: detections on unknown images or classes: refuse the file, or leave them out and count them.
      ties: order of equal scores: as listed (COCO's numbers), or by content, so that the order of the list is without
        effect.
      backend: hotcoco gives the same numbers sooner; it is an optional extra.
      out: folder for metrics.json.
    """

    truth: Annotated[Positional[str], arg(metavar="TRUTH")]
    detections: Annotated[Positional[Path], arg(metavar="DETECTIONS")]
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: all of it)")] = None
    confidence: float = 0.25
    dense: bool = False
    unknown: Literal["refuse", "count"] = "refuse"
    ties: Literal["listed", "canonical"] = "listed"
    backend: Literal["pycocotools", "hotcoco"] = "pycocotools"
    out: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: nothing is written)")] = None

    def run(self) -> int:
        """Measure; prints the table."""
        out = choose_folder(self.out, self.out) if self.out is not None else None

        from yolojax.data import open_dataset
        from yolojax.eval.coco import COCO_CAPS, DENSE_CAPS, evaluate_coco
        from yolojax.eval.files import write_metrics
        from yolojax.eval.table import format_result

        is_json = self.truth.lower().endswith(".json")
        if is_json and self.split is not None:
            raise ConfigError(f"--split {self.split}: {self.truth} is one file; leave --split out")
        result = evaluate_coco(
            self.truth if is_json else open_dataset(self.truth, self.split).to_coco(),
            self.detections,
            confidence=self.confidence,
            caps=DENSE_CAPS if self.dense else COCO_CAPS,
            unknown=self.unknown,
            ties=self.ties,
            backend=self.backend,
        )
        print(format_result(result))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_metrics(out / "metrics.json", result)
            print(f"\n{out}: metrics.json")
        return 0


@dataclass(frozen=True)
class Diagnose:
    """Read measured numbers: what is wrong with a detector, and the most useful experiment to run next.

    Attributes:
      run_folder: a run directory, a folder that val or eval wrote, or a metrics.json.
      precision: at IoU .5 and the confidence you use.
      recall: at IoU .5 and the same confidence.
      ap50: average precision at IoU .5.
      ap: COCO's average precision, over IoU .5 to .95.
    """

    run_folder: Annotated[Positional[Path | None], arg(metavar="[RUN]", help_behavior_hint="")] = None
    precision: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    recall: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    ap50: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    ap: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None

    def run(self) -> int:
        """Print two lines: the diagnosis, and what to do next."""
        from yolojax.eval.diagnosis import diagnose

        given = (self.precision, self.recall, self.ap50, self.ap)
        if self.run_folder is not None:
            if any(number is not None for number in given):
                raise ConfigError("give a run or the four numbers, not both")
            print(diagnose(**_read_metrics(self.run_folder)))
            return 0
        if self.precision is None or self.recall is None or self.ap50 is None or self.ap is None:
            raise ConfigError("give a run directory, or all of --precision, --recall, --ap50 and --ap")
        print(diagnose(precision=self.precision, recall=self.recall, AP50=self.ap50, AP=self.ap))
        return 0


def _read_metrics(path: Path) -> dict[str, Any]:
    """What the metric reader needs, from a ``metrics.json``."""
    candidates = [path] if path.is_file() else [path / "report" / "metrics.json", path / "metrics.json"]
    for file in candidates:
        if file.is_file():
            break
    else:
        raise ResultError(f"{path}: no metrics.json there; give a run whose training has ended, or run yolojax val")
    try:
        values = json.loads(file.read_text())
        numbers = {name: values[name] for name in ("precision", "recall", "AP50", "AP")}
        class_recall = {one["name"]: one["at_confidence"]["recall"] for one in values["classes"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultError(f"{file}: not a metrics.json of ours ({error!r}); write it anew with yolojax val") from error
    if any(numbers[name] is None for name in ("recall", "AP50", "AP")):
        raise ResultError(f"{file}: the data set has no objects, so there is nothing to read")
    return {**numbers, "class_recall": class_recall}
