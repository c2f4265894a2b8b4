"""An evaluation as plain text for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from yolojax.eval.coco import CocoResult
from yolojax.eval.counters import Counters

if TYPE_CHECKING:
    from yolojax.eval.analysis import Comparison


def format_number(value: float | None) -> str:
    """Three decimals, ``n/a`` for what could not be measured."""
    return "n/a" if value is None else f"{value:.3f}"


def format_result(result: CocoResult, *, classes: bool = True) -> str:
    """Warnings, the summary, by choice one row per class that has objects or detections, and notes."""
    c, (low, middle, high) = result.counters, result.caps
    point, best = result.at_confidence, result.best_f1
    lines = [
        *(f"warning: {mistake}" for mistake in result.mistakes),
        f"{c.images} images, {c.objects} objects, {c.detections} detections; numbers by {result.backend}",
        "",
        "               all  IoU .50  IoU .75    small   medium    large",
        "AP        " + _row([result.AP, result.AP50, result.AP75, result.APs, result.APm, result.APl]),
        f"AR@{high:<7}" + _row([result.AR100, "", "", result.ARs, result.ARm, result.ARl]),
        f"AR@{low:<7}" + _row([result.AR1]),
        f"AR@{middle:<7}" + _row([result.AR10]),
        "",
        f"precision {format_number(point.precision)}, recall {format_number(point.recall)} "
        f"at IoU .50 and confidence {point.confidence:g}",
    ]
    if best is not None:
        lines.append(f"best F1 {format_number(best.f1)} at confidence {best.confidence:.3f}")
    shown = [k for k in result.classes if k.objects or k.detections]
    if classes and shown:
        width = max(5, *(len(k.name) for k in shown))
        lines += ["", f"{'class':<{width}}  objects  detections       AP     AP50     AP75       AR"]
        lines += [
            f"{k.name:<{width}}  {k.objects:7d}  {k.detections:10d}" + _row([k.AP, k.AP50, k.AP75, k.AR]) for k in shown
        ]
    notes = format_notes(result.counters, high)
    return "\n".join([*lines, *([""] if notes else []), *notes])


def format_comparison(comparison: "Comparison") -> str:
    """Differences of two detectors on the same images."""
    lines = [f"{'':<10}{'A':>9}{'B':>9}{'A less B':>10}   95 % interval      A wins"]
    for name, d in comparison.numbers.items():
        line = f"{name:<10}" + _row([d.first, d.second])
        if d.interval is not None and d.difference is not None and d.wins is not None:
            line += f"{d.difference:>+10.3f}   {d.interval.low:+.3f} to {d.interval.high:+.3f}{d.wins:>9.1%}"
        lines.append(line)
    return "\n".join(lines)


def format_notes(counters: Counters, cap: int) -> list[str]:
    """One line for each thing that the guards found; empty where all is in order."""
    c, notes = counters, []
    if c.crowd_regions:
        notes.append(f"{c.crowd_regions} crowd regions are neither objects nor background")
    if c.ignore_flags:
        notes.append(f"{c.ignore_flags} annotations have the flag 'ignore', which COCO's numbers ignore")
    for count, what in (
        (c.renumbered_ids, "annotation ids were missing, 0 or repeated and have been renumbered"),
        (c.filled_areas, "annotations have no area; that of the box was taken"),
        (c.filled_iscrowd, "annotations have no iscrowd; 0 was taken"),
        (c.unknown_annotations, "annotations are about images or classes that are not listed; left out"),
        (c.repeated_images, "images are listed twice and count once"),
        (c.grouping_categories, "categories without objects have the name of a class; left out"),
        (
            c.unmatchable_objects,
            "objects have no area or lie outside their image; they count as missed, as in COCO's numbers",
        ),
        (c.empty_boxes, "detections have no area and can match nothing"),
        (c.scores_outside_unit_interval, "scores lie outside 0..1: the confidence threshold means little"),
    ):
        if count:
            notes.append(f"{count} {what}")
    for what, missing in (("images", c.unknown_images), ("classes", c.unknown_categories)):
        if missing:
            notes.append(f"{sum(missing.values())} detections on unknown {what} were left out: {_listed(missing)}")
    if c.images_over_cap:
        notes.append(
            f"{c.images_over_cap} images have more than {cap} detections of a class; {c.detections_over_cap} were not "
            "counted"
        )
    if c.images_beyond_cap:
        notes.append(f"{c.images_beyond_cap} images have more than {cap} objects of a class: raise the cap")
    if c.tied_share:
        notes.append(f"{c.tied_share:.1%} of the detections share their score with another: AP depends on their order")
    if c.false_positives_without_objects:
        notes.append(
            "false positives in classes without objects, which cost no AP: "
            + _listed(c.false_positives_without_objects)
        )
    return notes


def _row(values: Sequence[float | str | None]) -> str:
    return "".join(f"{v if isinstance(v, str) else format_number(v):>9}" for v in values)


def _listed(counts: dict[str, int], limit: int = 8) -> str:
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(f"{name} ({count})" for name, count in shown[:limit]) + more
