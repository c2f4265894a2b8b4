"""``yolojax diagnose``: from measured numbers to what is wrong with a detector and what to do next."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from yolojax.errors import ConfigError, ResultError, shortened, shown

if TYPE_CHECKING:
    from yolojax.eval.mistakes import Mistake


@dataclass(frozen=True)
class Diagnose:
    """Read measured numbers: what is wrong with a detector, and the most useful experiment to run next.

    Attributes:
      run_folder: a run directory, a folder that val or eval wrote, or a metrics.json.
      precision: at IoU .5 and the confidence you use.
      recall: at IoU .5 and the same confidence.
      ap50: average precision at IoU .5.
      ap: COCO's average precision, over IoU .5 to .95.
      class_recall: recall of single classes, as in: --class-recall cat=.8 dog=.4
      confused: share of the objects of a class that are taken for another, as in: --confused cat:dog=.2 dog:cat=.15
    """

    run_folder: Annotated[Positional[Path | None], arg(metavar="[RUN]", help_behavior_hint="")] = None
    precision: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    recall: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    ap50: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    ap: Annotated[float | None, arg(metavar="0..1", help_behavior_hint="")] = None
    class_recall: Annotated[tuple[str, ...], arg(metavar="CLASS=0..1 ...", help_behavior_hint="")] = ()
    confused: Annotated[tuple[str, ...], arg(metavar="CLASS:CLASS=0..1 ...", help_behavior_hint="")] = ()

    def run(self) -> int:
        """Print two lines: the diagnosis, and what to do next."""
        from yolojax.eval.diagnosis import diagnose

        given = (self.precision, self.recall, self.ap50, self.ap)
        if self.run_folder is not None:
            if any(number is not None for number in given) or self.class_recall or self.confused:
                raise ConfigError("give a run or numbers, not both")
            print(diagnose(**_read_metrics(self.run_folder)))
            return 0
        if self.precision is None or self.recall is None or self.ap50 is None or self.ap is None:
            raise ConfigError("give a run directory, or all of --precision, --recall, --ap50 and --ap")
        class_recall = dict(_named_shares("--class-recall", self.class_recall))
        confusions = dict(_pair(name, share) for name, share in _named_shares("--confused", self.confused))
        print(
            diagnose(
                precision=self.precision,
                recall=self.recall,
                AP50=self.ap50,
                AP=self.ap,
                class_recall=class_recall,
                confusions=confusions,
            )
        )
        return 0


def _named_shares(option: str, given: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """``NAME=SHARE`` taken apart at the last ``=``, since a name may hold one."""
    names: set[str] = set()
    for text in given:
        name, sign, share = text.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not sign or not name or not 0 <= value <= 1:
            raise ConfigError(f"{option} {text!r}: write a name, = and a number from 0 to 1, as in cat=.4")
        if name in names:
            raise ConfigError(f"{option}: {name} is given twice; give it once")
        names.add(name)
        yield name, value


def _pair(names: str, share: float) -> tuple[tuple[str, str], float]:
    first, _, second = names.partition(":")
    if not first or not second or first == second:
        raise ConfigError(f"--confused {names}=...: write two classes with a colon between, as in cat:dog=.2")
    return (first, second), share


def _read_metrics(path: Path) -> dict[str, Any]:
    """What the metric reader needs, from a ``metrics.json``."""
    candidates = [path] if path.is_file() else [path / "report" / "metrics.json", path / "metrics.json"]
    for file in candidates:
        if file.is_file():
            break
    else:
        raise ResultError(f"{path}: no metrics.json there; give a run whose training has ended, or run yolojax val")
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
        numbers = {name: _number(values[name]) for name in ("precision", "recall", "AP50", "AP")}
        class_recall = {_name(one["name"]): _number(one["at_confidence"]["recall"]) for one in values["classes"]}
        # A metrics.json of an evaluation without a report has no confusions.
        pairs = values.get("confusions", {}).get("shares", [])
        mistakes = [_mistake(one) for one in values.get("mistakes", [])]
        confusions = {(_name(pair["object"]), _name(pair["taken_for"])): _share(pair["share"]) for pair in pairs}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ResultError(
            f"{file}: not a metrics.json of ours ({_why(error)}); write it anew with yolojax val"
        ) from error
    if any(numbers[name] is None for name in ("recall", "AP50", "AP")):
        raise ResultError(f"{file}: the data set has no objects, so there is nothing to read")
    return {**numbers, "class_recall": class_recall, "confusions": confusions, "mistakes": mistakes}


def _why(error: Exception) -> str:
    """An error in reading a file, in a few words: those of Python hold all bytes that are no text."""
    if isinstance(error, UnicodeDecodeError):
        return "no text"
    return f"it has no {shortened(str(error), 40)}" if isinstance(error, KeyError) else shortened(str(error), 120)


def _mistake(value: Any) -> Mistake:
    from yolojax.eval.mistakes import Mistake

    return Mistake(*(_name(value[key]) for key in ("kind", "message", "mend")), decisive=bool(value["decisive"]))


def _number(value: Any) -> float | None:
    return None if value is None else _share(value)


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{shown(value)} is not a number")
    return float(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)} is not a name")
    return value
