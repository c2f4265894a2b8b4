"""A data set on the host: images by name or in memory, objects in original pixels, and what was repaired on reading."""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from yolojax.data.columns import Columns, ImageRecord, Records, Source
from yolojax.data.summary import Summary
from yolojax.data.watching import Watched
from yolojax.progress import Reporter

Format = Literal["voc", "coco", "yolo", "shapes", "arrays"]

_MANY_REPEATED = 0.05  # share of the objects

__all__ = ["CocoSource", "Dataset", "Format", "ImageRecord", "Source", "say_findings"]


@dataclass(frozen=True, eq=False)
class CocoSource:
    """The parts of a COCO JSON file that `Dataset.to_coco` gives back untouched, by image and annotation id.

    Attributes:
      header: what the file says beside images, annotations and categories.
      categories: its entries.
      load: gives the entries of ``images`` and ``annotations``; called once, when they are needed.
      with_dropped: for the images of which objects without extent, or outside of them, were dropped: the ids of all
        annotations, in the order of the file. COCO's metric counts such an object as missed.
      category_keys: the categories' own ids by number, where they are texts; those of images stand in ``images``.
    """

    header: Mapping[str, Any]
    categories: Sequence[Mapping[str, Any]]
    load: Callable[[], tuple[Mapping[int, Mapping[str, Any]], Mapping[int, Mapping[str, Any]]]] = field(repr=False)
    with_dropped: Mapping[int, Sequence[int]] = field(default_factory=dict)
    category_keys: Mapping[int, str] = field(default_factory=dict)

    @functools.cached_property
    def _entries(self) -> tuple[Mapping[int, Mapping[str, Any]], Mapping[int, Mapping[str, Any]]]:
        return self.load()

    @property
    def images(self) -> Mapping[int, Mapping[str, Any]]:
        """The file's entries of images; raises `DataError` where the file has changed since the data set was opened."""
        return self._entries[0]

    @property
    def annotations(self) -> Mapping[int, Mapping[str, Any]]:
        """The file's entries of annotations; raises `DataError` as `images` does."""
        return self._entries[1]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with objects of named classes.

    Attributes:
      class_names: the classes; an object's class is an index into them.
      category_ids: the COCO category id of each class, for results that leave the program.
      records: the images, background images included.
      summary: what was clipped, dropped, skipped or noticed on reading.
      root: the folder of the data set (None when it was not read from one).
      split: the name under which a part of it was opened, or None for all of it.
      format: what it was read from.
      skip_bad: whether unusable images are to be left out, and named, when they fail to decode.
      coco: the raw COCO entries, when that is where the data came from.
      watched: the files and folders that decide what was read.
      kept: the place of these images in the index (see `yolojax.data.index`), where they have one.
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    records: Sequence[ImageRecord]
    summary: Summary = field(default_factory=Summary)
    root: Path | None = None
    split: str | None = None
    format: Format = "shapes"
    skip_bad: bool = False
    coco: CocoSource | None = field(default=None, repr=False)
    watched: tuple[Watched, ...] = field(default=(), repr=False)
    kept: Any = field(default=None, repr=False)

    @classmethod
    def from_arrays(
        cls,
        images: UInt8[np.ndarray, "n h w 3"] | Sequence[Any],
        boxes: Sequence[Any],
        classes: Sequence[Any],
        class_names: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        crowd: Sequence[Any] | None = None,
        image_ids: Sequence[int] | None = None,
        split: str | None = None,
    ) -> "Dataset":
        """A data set of ``n`` images in memory; it trains, validates and is drawn like one read from files.

        Args:
          images: ``n`` RGB images, uint8 ``[h, w, 3]`` of any sizes, or one array ``[n, h, w, 3]``. Grey images become
            RGB and an alpha channel is dropped (`yolojax.data.images.as_rgb`). Arrays are not copied. An image may also
            be the path of a file.
          boxes: for each image ``[k, 4]``, rows ``(x1, y1, x2, y2)`` in pixels of the image; empty where it shows no
            object. Boxes are clipped to their image, boxes without extent are dropped, and the summary lists both, as
            for data sets read from files.
          classes: for each image ``[k]``, indices into ``class_names`` or names.
          class_names: the classes.
          names: of the images, all different, as results and pictures call them; ``000001`` and so on by default.
          crowd: for each image ``[k]``, whether an object is a crowd region, which training leaves out of account.
          image_ids: different integers of at least 0; 1, 2, ... by default.
          split: the name of this part of the data (``train``, ``val``), for messages only.

        Raises:
          DataError: columns of different lengths, an image that is not uint8, a box that is not finite or is inverted
            (a mix-up with ``x, y, width, height``), an unknown class, a name or id used twice; image and object are
            named.

        Example:
          >>> image = np.zeros((64, 96, 3), np.uint8)
          >>> data = Dataset.from_arrays([image], [[[8, 8, 40, 32]]], [["cat"]], ("cat", "dog"))
          >>> len(data), data.object_count
          (1, 1)
        """
        from yolojax.data.arrays import dataset_from_arrays  # it builds on this module

        return dataset_from_arrays(
            images, boxes, classes, class_names, names=names, crowd=crowd, image_ids=image_ids, split=split
        )

    @classmethod
    def from_records(
        cls, records: Iterable[Mapping[str, Any]], class_names: Sequence[str], *, split: str | None = None
    ) -> "Dataset":
        """A data set from plain dicts, one for each image; images may be loaded when they are needed.

        Args:
          records: dicts with the keys

            - ``image``: a uint8 array as in `from_arrays`, the path of an image file, or a function without arguments
              that gives such an array each time it is called (also from several threads at once);
            - ``boxes`` and ``classes``: as one entry of `from_arrays`;
            - ``crowd``, ``image_id`` and ``file_name``, optional: likewise (``file_name`` is one of ``names``; the path
              is the default for a file);
            - ``size``: ``(height, width)``. A function needs ``size`` and ``file_name``: disk caches and resumed runs
              know its pixels by that name.
          class_names: the classes.
          split: the name of this part of the data, for messages only.

        Raises:
          DataError: as `from_arrays`, and for unknown or missing keys or an image file that cannot be read. A function
            that fails or gives another size raises when the image is loaded.
        """
        from yolojax.data.arrays import dataset_from_records

        return dataset_from_records(records, class_names, split=split)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.records)

    @functools.cached_property
    def columns(self) -> Columns:
        """The records as columns, for what is computed of all of them."""
        return self.records.columns if isinstance(self.records, Records) else Columns.of(self.records)

    @property
    def object_count(self) -> int:
        """The number of annotated objects, crowd regions included."""
        return len(self.columns.boxes)

    def take(self, indices: Sequence[int]) -> "Dataset":
        """The data set of only these images, in this order; classes, ids and summary stay."""
        return replace(self, records=Records(self.columns.take(indices)))

    def fingerprint(self) -> str:
        """A SHA-256 of class names, image ids, names, sizes, objects, and the pixels of arrays in memory.

        Images in files and images given by functions count by their name: a run is resumed after its data were copied
        elsewhere, and who changes the pixels behind a name gives another name.
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        found = self.known("fingerprint", None, self._make_fingerprint)
        return found if isinstance(found, str) and len(found) == 64 else self._make_fingerprint()

    @property
    def entry(self) -> Any:
        """The place in the index (`yolojax.data.index.Kept`), where it is that of just these images; else None."""
        return self.kept if self.kept is not None and self.kept.columns is self.columns else None

    def known(self, name: str, of: Any, make: Callable[[], Any]) -> Any:
        """A fact that follows from the data set, from the index where it was kept there, else made and kept.

        Args:
          name: of the fact, and of its file.
          of: a JSON value, without tuples, that decides the fact besides the images, objects and classes; a fact kept
            of another one is made again.
          make: makes the fact, a JSON value but None.
        """
        if (kept := self.entry) is None:
            return make()
        of = [list(self.class_names), list(self.category_ids), of]
        said = kept.read(name)
        if isinstance(said, dict) and said.get("of") == of and said.get("is") is not None:
            return said["is"]
        found = make()
        kept.write(name, {"of": of, "is": found})
        return found

    def _make_fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.class_names, self.category_ids)).encode())
        columns, starts = self.columns, self.columns.starts.tolist()
        arrays = (columns.boxes, columns.classes, columns.crowd, columns.difficult)
        rows = [(memoryview(a.tobytes()), a.itemsize * (4 if a.ndim == 2 else 1)) for a in arrays]
        described = zip(columns.image_ids.tolist(), columns.file_names, map(tuple, columns.sizes.tolist()), strict=True)
        for i, described_image in enumerate(described):
            parts = [repr(described_image).encode()]
            parts += [content[starts[i] * width : starts[i + 1] * width] for content, width in rows]
            digest.update(b"".join(parts))
            source = columns.sources[i]
            if isinstance(source, np.ndarray):
                digest.update(source.tobytes())
        return digest.hexdigest()

    def to_coco(self) -> dict[str, Any]:
        """The ground truth in COCO's format, in original pixels, as `pycocotools` reads it.

        Boxes are ``[x, y, width, height]``. From COCO JSON come the entries of the file themselves (own boxes, areas,
        ``iscrowd`` and segmentation), with missing ``area`` and ``iscrowd`` filled in, among them those without extent
        or outside their image, which training does not see: they count as missed, as in the evaluation of the file
        itself. What was skipped with ``skip_bad`` stays out. A difficult object is an ordinary one for COCO's metric
        and carries ``ignore: 1`` besides, which VOC's metric reads (`yolojax.eval.voc`). The dictionaries are fresh at
        the top level: a reader may add keys.
        """
        source = self.coco
        categories = (
            [dict(c) for c in source.categories]
            if source is not None
            else [{"id": i, "name": n} for i, n in zip(self.category_ids, self.class_names, strict=True)]
        )
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        of_file = {} if source is None else source.images
        columns, objects = self.columns, self._coco_annotations()
        starts = columns.starts.tolist()
        described = zip(columns.image_ids.tolist(), columns.file_names, columns.sizes.tolist(), strict=True)
        for i, (image_id, file_name, (h, w)) in enumerate(described):
            own = {k: v for k, v in of_file.get(image_id, {}).items() if v or k not in ("height", "width")}
            images.append({"file_name": file_name, "height": h, "width": w, **own, "id": image_id})
            kept = objects[starts[i] : starts[i + 1]]
            annotations += kept if source is None else _with_dropped(kept, source, image_id)
        header = dict(source.header) if source is not None else {}
        return {**header, "images": images, "annotations": annotations, "categories": categories}

    def _coco_annotations(self) -> list[dict[str, Any]]:
        """The entry of each object."""
        columns = self.columns
        boxes = columns.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(
            columns.annotation_ids.tolist(),
            columns.image_ids[columns.image_of].tolist(),
            np.array(self.category_ids, object)[columns.classes].tolist(),
            boxes.tolist(),
            columns.areas.tolist(),
            (columns.crowd & ~columns.difficult).astype(int).tolist(),
            columns.difficult.tolist(),
            strict=True,
        )
        of_file = None if self.coco is None else self.coco.annotations
        made: list[dict[str, Any]] = []
        for annotation_id, image_id, category_id, box, area, crowd, difficult in rows:
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
            }
            if of_file is not None:
                own = of_file[annotation_id]
                entry |= {key: value for key, value in own.items() if value is not None or key not in entry}
            elif difficult:
                entry |= {"difficult": 1, "ignore": 1}
            made.append(entry | {"id": annotation_id})
        return made


def _with_dropped(kept: list[dict[str, Any]], source: CocoSource, image_id: int) -> list[dict[str, Any]]:
    """The annotations of an image with those that were dropped for want of an extent, in the order of the file."""
    order = source.with_dropped.get(image_id)
    if order is None:
        return kept
    made = {entry["id"]: entry for entry in kept}
    for annotation_id in order:
        if annotation_id not in made:
            own = source.annotations[annotation_id]
            _, _, w, h = own["bbox"]
            stated = {key: value for key, value in own.items() if value is not None}
            made[annotation_id] = {"area": float(w * h), "iscrowd": 0, **stated, "id": annotation_id}
    return [made[annotation_id] for annotation_id in order]


def say_findings(dataset: Dataset, reporter: Reporter, name: str = "") -> None:
    """Says what was repaired or doubted when a data set was read, the first three of each kind, and whether objects
    repeat each other; nothing where there is nothing to say. ``name`` stands before it."""
    before = f"{name}: " if name else ""
    if dataset.summary.findings:
        reporter.say(before + dataset.summary.text(limit=3))
    if (repeated := dataset.columns.repeated) > _MANY_REPEATED * dataset.object_count:
        reporter.say(
            f"{before}{repeated} of {dataset.object_count} objects repeat another of the same class and box exactly"
        )
