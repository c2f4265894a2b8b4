"""`report.md`: the same report for a terminal, a pull request or a wiki."""

import re
from collections.abc import Sequence
from typing import Any

from yolojax.eval.analysis import Analysis
from yolojax.eval.bootstrap import RESAMPLED
from yolojax.eval.table import format_notes, format_number
from yolojax.eval.tide import KINDS


def render_markdown(analysis: Analysis, facts: dict[str, Any], title: str) -> str:
    """The whole text."""
    counters, point = facts["counters"], facts["at_confidence"]
    lines = [f"# {plain(title)}", ""]
    if facts["diagnosis"] is not None:
        lines += [f"**diagnosis:** {plain(facts['diagnosis']['diagnosis'])}", ""]
        lines += [f"**next:** {plain(facts['diagnosis']['next'])}", ""]
    for mistake in analysis.result.mistakes:
        lines += [f"**warning:** {plain(str(mistake))}", ""]
    lines += [
        f"{counters['images']} images, {counters['objects']} objects, {counters['detections']} detections. Numbers by "
        f"{facts['backend']}; precision, recall and F1 at IoU .50 and confidence {point['confidence']:g}.",
        "",
        "## Numbers",
        "",
    ]
    lines += _table(
        ["", "value", "95 % interval"],
        [[n, format_number(analysis.value(n)), _interval(facts["intervals"].get(n))] for n in RESAMPLED],
    )
    if facts["resamples"] is not None:
        lines += [
            "",
            f"Intervals: {facts['resamples']['count']} bootstrap resamples of the images; what another training ",
        ]
        lines[-1] += "run would give is not in them."
    if facts["best_f1"] is not None:
        best = facts["best_f1"]
        lines += ["", f"Best F1 {format_number(best['f1'])} at confidence {best['confidence']:.3f}."]
    if facts["comparison"] is not None:
        lines += ["", "## Comparison", "", "A is this list of detections, B the other, on the same images.", ""]
        lines += _table(
            ["", "A", "B", "A less B", "95 % interval", "A wins"],
            [
                [
                    row["name"],
                    format_number(row["first"]),
                    format_number(row["second"]),
                    "n/a" if row["difference"] is None else f"{row['difference']:+.3f}",
                    _interval(row["interval"], "+.3f"),
                    "n/a" if row["wins"] is None else f"{row['wins']:.1%}",
                ]
                for row in facts["comparison"]["numbers"]
            ],
        )
    lines += ["", "## Errors", "", "What each kind costs in AP50 (TIDE); the costs do not add up.", ""]
    errors = facts["errors"]
    lines += _table(
        ["kind", "count", "cost"], [[k, str(errors[k]["count"]), format_number(errors[k]["cost"])] for k in KINDS]
    )
    lines += ["", "## Sizes", ""]
    lines += _table(
        ["size", "objects", "AP", "AR"],
        [[r["size"], str(r["objects"]), format_number(r["AP"]), format_number(r["AR"])] for r in facts["sizes"]],
    )
    lines += ["", "## Classes", ""]
    lines += _table(
        ["class", "objects", "detections", "AP", "95 % interval", "AP50", "AP75", "AR", "precision", "recall"],
        [
            [
                c.name,
                str(c.objects),
                str(c.detections),
                format_number(c.AP),
                _interval(row["interval"]),
            ]
            + [format_number(v) for v in (c.AP50, c.AP75, c.AR, c.at_confidence.precision, c.at_confidence.recall)]
            for c, row in zip(analysis.result.classes, facts["classes"], strict=True)
        ],
    )
    shares = facts["confusions"]["shares"][:10]
    if shares:
        lines += ["", "## Confusions", ""]
        lines += _table(
            ["object", "taken for", "share of its objects"],
            [[s["object"], s["taken_for"], f"{s['share']:.1%}"] for s in shares],
        )
    notes = format_notes(analysis.result.counters, analysis.result.caps[-1])
    if notes:
        lines += ["", "## Notes", "", *(f"- {plain(note)}" for note in notes)]
    if facts["provenance"]:
        lines += ["", "## Provenance", ""]
        lines += [f"- {plain(name.replace('_', ' '))}: {_value(value)}" for name, value in facts["provenance"].items()]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """A text that Markdown shows as it is: on one line, with nothing in it that would be markup, table or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$!])", r"\\\1", " ".join(text.split()))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{plain(k)} {plain(str(v))}" for k, v in value.items())
    return plain(str(value))


def _interval(interval: dict[str, float] | None, form: str = ".3f") -> str:
    return "" if interval is None else f"{interval['low']:{form}} to {interval['high']:{form}}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(plain(value) for value in row) + " |" for row in rows]
