"""The report at the end of a run, and of `yolojax val`: the evaluation explained, with the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yolojax
from yolojax.data import Dataset
from yolojax.eval.analysis import analyse
from yolojax.eval.report.write import write_report
from yolojax.inference.evaluate import Evaluation
from yolojax.progress import Quiet, Reporter


def write_evaluation_report(
    folder: Path,
    evaluation: Evaluation,
    dataset: Dataset,
    *,
    title: str,
    provenance: Mapping[str, Any] | None = None,
    samples: int = 1000,
    reporter: Reporter | None = None,
    pictures: Path | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `metrics.json`, `report.md`, `index.html` and, if asked for, pictures about an evaluation on a data set.

    Args:
      folder: where to; made if it is not there.
      evaluation: of ``dataset``.
      dataset: the ground truth, and the images of the gallery.
      title: of the page.
      provenance: where the numbers come from; the data set's fingerprint and the versions are added.
      samples: bootstrap resamples for the intervals; 0 for none.
      reporter: where progress goes.
      pictures: folder for the curves and the confusion matrix as PNG; without it there are none.
      history: rows of a run's ``metrics.jsonl``, whose curves the page shows.
    """
    with (reporter or Quiet()).task("resampling", samples) as advance:
        analysis = analyse(
            dataset.to_coco(), evaluation.detections, samples=samples, result=evaluation.result, progress=advance
        )
    record_of = {record.image_id: record for record in dataset.records}
    write_report(
        folder,
        analysis,
        photo=lambda image_id: record_of[image_id].pixels(),
        provenance={
            **(provenance or {}),
            "data fingerprint": dataset.fingerprint(),
            "program": f"yolojax {yolojax.__version__}",
        },
        title=title,
        pictures=pictures,
        history=history,
    )
