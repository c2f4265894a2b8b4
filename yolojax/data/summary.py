"""What a reader changed, left out or noticed, with the file in which it happened.

Every repair is listed in a `Summary`, whose text is shown to the user.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from yolojax.errors import DataError

Kind = Literal[
    "doubtful",
    "clipped",
    "dropped",
    "duplicate",
    "skipped",
    "missing",
    "orphan",
    "unlabelled",
    "unread",
    "polygon",
    "orientation",
    "renumbered",
    "note",
]

_SAYS: dict[Kind, str] = {
    "doubtful": "to be looked at",
    "clipped": "boxes clipped to their image",
    "dropped": "boxes without extent dropped",
    "duplicate": "duplicate entries left out",
    "skipped": "unusable files or objects skipped",
    "missing": "parts that the data set names and that are not there",
    "orphan": "label files without an image",
    "unlabelled": "images without an annotation file left out",
    "unread": "pictures of a format that is not read",
    "polygon": "label files with polygons, of which the boxes are taken",
    "orientation": "images with an EXIF orientation",
    "renumbered": "annotation ids renumbered",
    "note": "notes",
}


class Finding(NamedTuple):
    """One thing that a reader changed or noticed: what ``kind``, in which file (and line or object), in words."""

    kind: Kind
    where: str
    detail: str


@dataclass(frozen=True)
class Summary:
    """The findings of one data set, in the order of reading."""

    findings: tuple[Finding, ...] = ()

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(f for f in self.findings if f.kind == kind)

    def counts(self) -> dict[Kind, int]:
        """How many findings there are of each kind that occurs, in a fixed order."""
        found = Counter(f.kind for f in self.findings)
        return {kind: found[kind] for kind in get_args(Kind) if found[kind]}

    def text(self, limit: int = 10) -> str:
        """A paragraph per kind: its count and the first ``limit`` findings by name; empty when nothing was found."""
        lines = []
        for kind, count in self.counts().items():
            lines.append(f"{_SAYS[kind]}: {count}")
            lines += [f"  {f.where}: {f.detail}" for f in self.of(kind)[:limit]]
            if count > limit:
                lines.append(f"  ... and {count - limit} more")
        return "\n".join(lines)

    def __add__(self, other: "Summary") -> "Summary":
        return Summary(self.findings + other.findings)


class Notebook:
    """Collects findings while a reader runs, and decides whether an error ends the reading or is only noted."""

    def __init__(self, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self._findings: list[Finding] = []

    @property
    def count(self) -> int:
        """The number of findings so far."""
        return len(self._findings)

    def insert(self, found: Sequence[tuple[int, Finding]]) -> None:
        """Inserts findings, each after as many of those that are there already; equal ones stay in their order."""
        made: list[Finding] = []
        done = 0
        for after, finding in sorted(found, key=lambda one: one[0]):
            made += self._findings[done:after]
            made.append(finding)
            done = max(done, after)
        self._findings = made + self._findings[done:]

    def add(self, kind: Kind, where: str, detail: str) -> None:
        """Adds one finding."""
        self._findings.append(Finding(kind, where, detail))

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """A `DataError` in this block is raised as usual, or with ``skip_bad`` listed as skipped under ``where``."""
        try:
            yield
        except DataError as error:
            self.skip(where, error)

    def skip(self, where: str, error: DataError) -> None:
        """Lists an error as skipped under ``where``, or raises it where nothing is to be skipped."""
        if not self.skip_bad:
            raise error
        self.add("skipped", where, str(error).removeprefix(f"{where}: "))

    def summary(self) -> Summary:
        """The findings so far."""
        return Summary(tuple(self._findings))
