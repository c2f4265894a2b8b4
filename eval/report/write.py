"""Writing a report: its files and pictures, all of them or none."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from yolojax.eval.analysis import Analysis, Comparison
from yolojax.eval.files import json_text
from yolojax.eval.report.facts import report_facts, versions
from yolojax.eval.report.gallery import Limits, Photo, build_differences, build_gallery
from yolojax.eval.report.markdown import render_markdown
from yolojax.eval.report.page import render_page
from yolojax.eval.report.pictures import report_pictures
from yolojax.files import write_together

REPORT_FILES = ("metrics.json", "report.md", "index.html")


def write_report(
    folder: str | PathLike[str],
    analysis: Analysis,
    *,
    comparison: Comparison | None = None,
    photo: Photo | None = None,
    provenance: Mapping[str, Any] | None = None,
    title: str = "Evaluation",
    limits: Limits | None = None,
    pictures: str | PathLike[str] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `metrics.json`, `report.md`, the self-contained `index.html` and, if asked for, the pictures of the curves.

    Args:
      folder: made if it is not there; files of these names are replaced.
      analysis: what to report.
      comparison: of it with another.
      photo: gives the pixels of an image by its id, for the gallery; without it boxes are drawn on an empty ground.
      provenance: where the numbers come from (command, hashes of the inputs, ...); versions are added.
      title: of the page.
      limits: of the gallery.
      pictures: folder for `PICTURE_FILES`, made if it is not there; without it there are none.
      history: rows of a run's ``metrics.jsonl``, whose curves the page shows.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    facts = report_facts(analysis, comparison, {**(provenance or {}), "versions": versions()})
    gallery = build_gallery(analysis, photo, limits)
    differences = build_differences(analysis, comparison.other, photo, limits) if comparison is not None else ()
    drawn = {}
    if pictures is not None:
        Path(pictures).mkdir(parents=True, exist_ok=True)
        drawn = {Path(pictures) / name: content for name, content in report_pictures(analysis).items()}
    write_together(
        {
            folder / "metrics.json": json_text(facts, indent=1),
            folder / "report.md": render_markdown(analysis, facts, title),
            folder / "index.html": render_page(
                analysis, comparison, gallery, facts, title, differences=differences, history=history
            ),
            **drawn,
        }
    )
