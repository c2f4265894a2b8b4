"""Data sets to disk as Pascal VOC, COCO JSON or YOLO txt, in layouts that `yolojax.data.open_dataset` reads back.

Images are written as PNG, so pixels survive, or copied as they are; files are named after the last part of an image's
name. `lost_in` names what a layout cannot hold of a data set.
"""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.images import read_header
from yolojax.errors import DataError, shown
from yolojax.paths import is_printable, is_text

Layout = Literal["coco", "yolo", "voc"]

COPIED = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Suffixes of image files that every reader of these layouts finds, and that are therefore copied."""

Progress = Callable[[int], None]
"""Called after each image with the number of images written."""


def write_voc(
    splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None, *, copy: bool = False
) -> None:
    """``Annotations``, ``JPEGImages`` and ``ImageSets/Main/SPLIT.txt``.

    The format knows neither crowd regions nor ids: a crowd region becomes a difficult object, images are numbered anew.
    """
    names, save = _names(splits, one_folder=True), _saver(progress, copy)
    _check_listed(names)
    for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names[split], strict=True):
            xml = _voc_xml(record, save(record, folder / "JPEGImages" / name), dataset.class_names)
            (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        listed = "".join(f"{n}\n" for n in names[split])
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(listed, encoding="utf-8")


def write_coco(
    splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None, *, copy: bool = False
) -> None:
    """``annotations/instances_SPLIT.json`` (as `Dataset.to_coco` gives it) and ``images/SPLIT``."""
    names, save = _names(splits), _saver(progress, copy)
    _check_listed(names)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        content = dataset.to_coco()
        for record, entry, name in zip(dataset.records, content["images"], names[split], strict=True):
            entry["file_name"] = save(record, folder / "images" / split / name)
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def write_yolo(
    splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None, *, copy: bool = False
) -> None:
    """``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``; an image without objects has no label file.

    The format knows neither crowd nor difficult: crowd regions are left out, difficult objects become ordinary ones.
    """
    names, save = _names(splits), _saver(progress, copy)
    class_names: tuple[str, ...] = ()
    for split, dataset in splits.items():
        if class_names and dataset.class_names != class_names:
            raise DataError(f"split {split!r} has other classes than the splits before it; give all the same")
        class_names = dataset.class_names
        for sub in ("images", "labels"):
            (folder / sub / split).mkdir(parents=True, exist_ok=True)
        for record, name in zip(dataset.records, names[split], strict=True):
            save(record, folder / "images" / split / name)
            rows = _yolo_rows(record)
            if rows:
                (folder / "labels" / split / f"{name}.txt").write_text(rows, encoding="utf-8")
    content = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(class_names))}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")


def lost_in(dataset: Dataset, layout: Layout) -> list[str]:
    """What a layout cannot hold of a data set, each as one sentence with how often it occurs; empty where all is kept.

    Boxes (to a millionth of a pixel), classes by name and pixels survive in every layout.
    """
    crowd = sum(int((r.crowd & ~r.difficult).sum()) for r in dataset.records)
    difficult = sum(int(r.difficult.sum()) for r in dataset.records)
    sides = (r.boxes[:, 2:].astype(np.float64) - r.boxes[:, :2] for r in dataset.records)
    masks = sum(
        int((np.abs(r.areas - size.prod(1)) > 1e-3 * (1 + r.areas)).sum())
        for r, size in zip(dataset.records, sides, strict=True)
    )
    entries = () if dataset.coco is None else dataset.coco.annotations.values()
    shapes = sum(any(entry.get(key) for key in ("segmentation", "keypoints")) for entry in entries)
    lost = []
    if layout == "voc" and crowd:
        lost.append(f"{crowd} crowd regions become difficult objects, which VOC does not tell apart")
    if layout == "yolo" and crowd:
        lost.append(f"{crowd} crowd regions are left out: YOLO's rows know objects only")
    if layout == "yolo" and difficult:
        lost.append(f"{difficult} difficult objects become ordinary ones: YOLO's rows have no flags")
    if layout != "coco" and masks:
        lost.append(f"{masks} areas of masks are lost; the area of the box decides small, medium and large from now on")
    if layout != "coco" and shapes:
        lost.append(f"{shapes} objects have polygons, masks or keypoints, of which only the box is written")
    if layout != "coco" and dataset.format == "coco":
        lost.append("ids of images, objects and categories are lost; results are then joined by file name")
    if dataset.format == "voc":
        lost.append("pose, truncated, occluded and parts of VOC's objects are not read, and therefore not written")
    if polygons := len(dataset.summary.of("polygon")):
        lost.append(f"{polygons} label files hold polygons, of which only the boxes are written")
    empty = sum(not len(r.boxes) for r in dataset.records)
    if layout == "yolo" and dataset.format == "coco" and len(dataset.class_names) and empty:
        lost.append(f"{empty} images without objects have no label file; YOLO's layout means the same by that")
    return lost


def _saver(progress: Progress | None, copy: bool) -> Callable[[ImageRecord, Path], str]:
    """A function that writes an image under a path without suffix, returns the name of the file, and counts.

    With ``copy``, a file of a usual format that needs no turning is copied byte for byte.
    """
    written = itertools.count(1)

    def save(record: ImageRecord, path: Path) -> str:
        source = record.source
        suffix = source.suffix if isinstance(source, Path) else ""
        if copy and isinstance(source, Path) and suffix.lower() in COPIED and read_header(source).orientation == 1:
            path = path.with_name(path.name + suffix)
            shutil.copyfile(source, path)
        else:
            path = path.with_name(f"{path.name}.png")
            Image.fromarray(record.pixels()).save(path)
        if progress is not None:
            progress(next(written))
        return path.name

    return save


def _names(splits: Mapping[str, Dataset], *, one_folder: bool = False) -> dict[str, list[str]]:
    """The names under which images are written, without suffix: each only once in a split, or with ``one_folder`` in
    all splits together."""
    names = {split: [PurePosixPath(name).stem for name in d.columns.file_names] for split, d in splits.items()}
    every = [name for listed in names.values() for name in listed]
    for written in [every] if one_folder else names.values():
        twice = sorted(name for name, times in Counter(written).items() if times > 1)
        if twice:
            raise DataError(
                f"several images would be written as {', '.join(twice[:5])}; give their files unique names"
                + (", or take another layout" if one_folder and len(splits) > 1 else "")
            )
    return names


def _check_listed(names: Mapping[str, list[str]]) -> None:
    """Raises `DataError` where a file that lists images cannot hold the name of one so that it is read again."""
    for name in itertools.chain.from_iterable(names.values()):
        if not is_text(name) or min(name, default=" ") < " " or not is_printable(name):
            raise DataError(
                f"the name of the image {shown(name)} has characters that no file with annotations can hold; rename "
                "the image and its labels, or take the layout yolo"
            )


def _number(value: float) -> str:
    return repr(value).removesuffix(".0")


def _voc_xml(record: ImageRecord, file_name: str, class_names: tuple[str, ...]) -> str:
    h, w = record.size
    lines = [
        "<annotation>",
        f"  <filename>{escape(file_name)}</filename>",
        f"  <size><width>{w}</width><height>{h}</height><depth>3</depth></size>",
    ]
    for box, index, hard in zip(record.boxes, record.classes, record.crowd, strict=True):
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        lines += [
            "  <object>",
            f"    <name>{escape(class_names[index])}</name>",
            f"    <difficult>{int(hard)}</difficult>",
            "    <bndbox>" + "".join(f"<{side}>{_number(float(v))}</{side}>" for side, v in sides) + "</bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _yolo_rows(record: ImageRecord) -> str:
    h, w = record.size
    keep = ~record.crowd | record.difficult
    boxes = record.boxes[keep].astype(np.float64) / [w, h, w, h]
    rows = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    # Ten digits keep a box to a millionth of a pixel; with the customary six it moves by thousandths.
    return "".join(
        f"{index} " + " ".join(f"{v:.10g}" for v in row) + "\n"
        for index, row in zip(record.classes[keep], rows, strict=True)
    )
