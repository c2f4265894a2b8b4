"""``yolojax models``: which architectures there are, how large and how accurate, and which files load."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from yolojax.catalogue import CATALOGUE, FEATURES, Row, nearest, rows
from yolojax.errors import ConfigError


@dataclass(frozen=True)
class Models:
    """List the architectures: parameters, operations, published accuracy, and which files load.

    Attributes:
      names: list these alone, such as yolov8 yolox-nano.
      json: print JSON and nothing else.
    """

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME ...]", help_behavior_hint="")] = ()
    json: bool = False

    def run(self) -> int:
        """Print the table."""
        found = list(rows())
        for name in self.names:
            known = {row.architecture for row in found} | {row.model for row in found}
            if name not in known:
                near = nearest(name, known)
                hint = f"did you mean {near}?" if near else f"known: {', '.join(entry.name for entry in CATALOGUE)}"
                raise ConfigError(f"unknown architecture {name!r}: {hint}")
        chosen = [row for row in found if not self.names or row.model in self.names or row.architecture in self.names]
        if self.json:
            print(json.dumps([dataclasses.asdict(row) for row in chosen], indent=1))
        else:
            print(as_text(chosen))
        return 0


def as_text(chosen: Sequence[Row]) -> str:
    """The table as text, and under it what its columns mean and where the published figures come from."""
    lines = [f"{'model':<12} {'size':>5} {'parameters':>11} {'GFLOPs':>7}  {'published':<23} {'needs':<5} files"]
    for row in chosen:
        if row.parameters is None or row.gflops is None:
            lines.append(f"{row.model:<12} {FEATURES[row.model]:<48}  {row.suppression:<5} {row.loads}")
            continue
        lines.append(
            f"{row.model:<12} {row.size:>5} {row.parameters / 1e6:>9.2f} M {row.gflops:>7.1f}  {published(row):<23} "
            f"{row.suppression:<5} {row.loads or 'none are published'}"
        )
    by_source: dict[str, list[str]] = {}
    for row in chosen:
        names = by_source.setdefault(row.source, []) if row.measured_on else []
        names += [] if row.architecture in names else [row.architecture]
    sources = "; ".join(f"{', '.join(names)}: {source}" for source, names in by_source.items())
    lines += [
        "",
        "model: for --model of every command; its last letters are the option scale (yolov8s: yolov8 with scale=s)",
        "GFLOPs: convolutions of one image of that size; a multiplication and an addition are two operations",
        "needs: the suppression that detections still need",
        *textwrap.wrap(f"published: empty where no figure is known to us. {sources}", 118, subsequent_indent="  "),
        "files: published weights that load; none come with yolojax, and docs/licences.md tells what applies to them",
    ]
    return "\n".join(lines)


def published(row: Row) -> str:
    """The published accuracy of a row and what it was measured on, as text; empty where there is none."""
    if row.ap is not None:
        return f"AP .{round(1000 * row.ap):03d} {row.measured_on}"
    return f"AP50 .{round(1000 * row.ap50):03d} {row.measured_on}" if row.ap50 is not None else ""
