"""What prediction gives: the detections of one photo, in its own pixels, that can be read, drawn and passed on."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from yolojax.draw import Objects, draw_picture, enlarge
from yolojax.errors import ConfigError
from yolojax.eval.files import detections_to_coco

SMALLEST_PLOT = 240
"""Pixels: a photo whose shorter side has fewer is enlarged before it is drawn on."""

LARGEST_DISPLAY = 1024
"""Pixels: a plot whose longer side has more is shrunk for a notebook, whose pages would grow by megabytes."""

_SHOWN = 6


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Detections of one photo, strongest first: ``n`` rows, no padding. ``len(result)`` is ``n``.

    Attributes:
      boxes: ``(x1, y1, x2, y2)`` in pixels of the photo, inside it.
      scores: from 0 to 1.
      classes: indices into ``class_names``.
      class_names: all classes of the detector.
      image: the photo itself, upright, RGB.
      truncated: detections beyond ``max_detections`` and candidates that never reached suppression.
      path: the file, where there is one.
      identities: in a film, the number of the object that a row shows (`yolojax.inference.tracking`), the same on all
        frames, from 0 on; -1 where it has none, as on the first frame of an object. None where nothing was tracked.

    For those who come from torchvision, a result reads like its dictionary: ``result["boxes"]``, ``result["scores"]``,
    ``result["labels"]``. Labels count from 0; there is no background class.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    classes: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    image: UInt8[np.ndarray, "h w 3"] = field(repr=False)
    truncated: int = 0
    path: str | None = None
    identities: Int[np.ndarray, " n"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The photo's ``(height, width)`` in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def names(self) -> list[str]:
        """The class name of each row."""
        return [self.class_names[c] for c in self.classes]

    def __len__(self) -> int:
        return len(self.scores)

    def __bool__(self) -> bool:
        return True  # a photo without objects is a result as well

    def keys(self) -> Iterator[str]:
        """What `__getitem__` knows, so that ``dict(result)`` is torchvision's dictionary."""
        return iter(("boxes", "scores", "labels"))

    def __getitem__(self, key: str) -> np.ndarray:
        arrays = {"boxes": self.boxes, "scores": self.scores, "labels": self.classes, "classes": self.classes}
        if key not in arrays:
            raise KeyError(f"{key!r}: a result has {', '.join(arrays)}")
        return arrays[key]

    def __repr__(self) -> str:
        rows = [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        more = f", and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        height, width = self.size
        found = ", ".join(rows[:_SHOWN]) + more or "nothing found"
        return f"<Result {f'{self.path}, ' if self.path else ''}{width} x {height} pixels: {found}>"

    def as_dict(self) -> dict[str, Any]:
        """JSON values only: the photo's size, and a class, score and box ``[x1, y1, x2, y2]`` for each detection.

        Where objects were tracked, each has an ``identity`` as well, which is ``None`` where it has none.
        """
        rows = zip(self.names, self.classes.tolist(), self.scores.tolist(), self.boxes.tolist(), strict=True)
        detections = [{"class": n, "class_index": c, "score": s, "box": b} for n, c, s, b in rows]
        if self.identities is not None:
            for detection, identity in zip(detections, self.identities.tolist(), strict=True):
                detection["identity"] = identity if identity >= 0 else None
        return {
            "height": self.size[0],
            "width": self.size[1],
            "detections": detections,
            "truncated": self.truncated,
        }

    def plot(self) -> UInt8[np.ndarray, "H W 3"]:
        """The detections drawn on a copy of the photo; a small photo is enlarged first, so that labels can be read."""
        return np.array(self.picture(), np.uint8)

    def picture(self) -> Image.Image:
        """`plot` as a new `PIL.Image`."""
        objects = Objects(self.boxes, self.classes, self.scores, identities=self.identities)
        pixels, objects = enlarge(self.image, objects, SMALLEST_PLOT)
        return draw_picture(pixels, objects, self.class_names)

    def crops(self) -> list[UInt8[np.ndarray, "_ _ 3"]]:
        """The pixels that each box covers, at least one."""
        height, width = self.size
        out = []
        for x1, y1, x2, y2 in self.boxes.astype(np.float64):
            left, top = min(int(x1), width - 1), min(int(y1), height - 1)
            out.append(self.image[top : max(top + 1, int(np.ceil(y2))), left : max(left + 1, int(np.ceil(x2)))])
        return out

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """A COCO result list: ``image_id``, ``category_id``, ``bbox`` as x, y, width, height, ``score``.

        ``category_ids`` gives the data set's id of each class; by default they are 1, 2, 3, ... in the order of the
        classes, which is *not* how COCO numbers its 80. Raises `ConfigError` when they are not as many as the classes.
        """
        ids = range(1, len(self.class_names) + 1) if category_ids is None else category_ids
        if len(ids) != len(self.class_names):
            raise ConfigError(f"{len(ids)} category ids for {len(self.class_names)} classes: give one for each")
        return detections_to_coco(image_id, self.boxes, self.scores, self.classes, ids)

    def to_yolo(self) -> list[str]:
        """A line for each detection: class index, then centre x, centre y, width and height as shares of the photo,
        then the score; where objects were tracked also the identity, -1 for none.
        """
        height, width = self.size
        corners = self.boxes.astype(np.float64) / [width, height, width, height]
        rows = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
        ends = (
            [""] * len(self) if self.identities is None else [f" {identity}" for identity in self.identities.tolist()]
        )
        return [
            f"{c} {' '.join(f'{v:.6f}' for v in row)} {s:.6f}{end}"
            for c, row, s, end in zip(self.classes.tolist(), rows.tolist(), self.scores.tolist(), ends, strict=True)
        ]

    def to_supervision(self) -> Any:
        """The detections as ``supervision.Detections``; raises `ConfigError` when that package is not installed."""
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("to_supervision needs the package supervision: pip install supervision") from None
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.classes.astype(int),
            tracker_id=None if self.identities is None else self.identities.astype(int),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def _repr_png_(self) -> bytes:
        picture = self.picture()
        picture.thumbnail((LARGEST_DISPLAY, LARGEST_DISPLAY))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._repr_png_()).decode()
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{score:.2f}</td>{''.join(f'<td>{v:.0f}</td>' for v in box)}</tr>"
            for name, score, box in zip(self.names, self.scores, self.boxes, strict=True)
        )
        head = "".join(f"<th>{title}</th>" for title in ("class", "score", "x1", "y1", "x2", "y2"))
        alt = html.escape(repr(self), quote=True)
        return (
            f'<img src="data:image/png;base64,{picture}" alt="{alt}" style="max-width: 100%">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )
