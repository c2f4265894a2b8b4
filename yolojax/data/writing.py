"""Data sets to disk as Pascal VOC, COCO JSON or YOLO txt, in layouts that `yolojax.data.open_dataset` reads back.

Images are written as PNG, so pixels survive; files are named after the last part of an image's name.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from xml.sax.saxutils import escape

import numpy as np
import yaml
from PIL import Image

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.errors import DataError

Progress = Callable[[int], None]
"""Called after each image with the number of images written."""


def write_voc(splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None) -> None:
    """``Annotations``, ``JPEGImages`` and ``ImageSets/Main/SPLIT.txt``.

    The format knows neither crowd regions nor ids: a crowd region becomes a difficult object, images are numbered anew.
    """
    names, save = _names(splits), _saver(progress)
    for sub in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names[split], strict=True):
            save(record, folder / "JPEGImages" / f"{name}.png")
            xml = _voc_xml(record, f"{name}.png", dataset.class_names)
            (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
        listed = "".join(f"{n}\n" for n in names[split])
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(listed, encoding="utf-8")


def write_coco(splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None) -> None:
    """``annotations/instances_SPLIT.json`` (as `Dataset.to_coco` gives it) and ``images/SPLIT``."""
    names, save = _names(splits), _saver(progress)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        content = dataset.to_coco()
        for record, entry, name in zip(dataset.records, content["images"], names[split], strict=True):
            entry["file_name"] = f"{name}.png"
            save(record, folder / "images" / split / f"{name}.png")
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")


def write_yolo(splits: Mapping[str, Dataset], folder: Path, progress: Progress | None = None) -> None:
    """``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``; an image without objects has no label file.

    The format knows neither crowd nor difficult: crowd regions are left out, difficult objects become ordinary ones.
    """
    names, save = _names(splits), _saver(progress)
    class_names: tuple[str, ...] = ()
    for split, dataset in splits.items():
        if class_names and dataset.class_names != class_names:
            raise DataError(f"split {split!r} has other classes than the splits before it; give all the same")
        class_names = dataset.class_names
        for sub in ("images", "labels"):
            (folder / sub / split).mkdir(parents=True, exist_ok=True)
        for record, name in zip(dataset.records, names[split], strict=True):
            save(record, folder / "images" / split / f"{name}.png")
            rows = _yolo_rows(record)
            if rows:
                (folder / "labels" / split / f"{name}.txt").write_text(rows, encoding="utf-8")
    content = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(class_names))}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")


def _saver(progress: Progress | None) -> Callable[[ImageRecord, Path], None]:
    """A function that writes the pixels of an image, and reports how many it has written."""
    written = itertools.count(1)

    def save(record: ImageRecord, path: Path) -> None:
        Image.fromarray(record.pixels()).save(path)
        if progress is not None:
            progress(next(written))

    return save


def _names(splits: Mapping[str, Dataset]) -> dict[str, list[str]]:
    names = {split: [PurePosixPath(r.file_name).stem for r in d.records] for split, d in splits.items()}
    every = [n for listed in names.values() for n in listed]
    if len(set(every)) != len(every):
        twice = sorted({n for n in every if every.count(n) > 1})[:5]
        raise DataError(f"several images would be written as {', '.join(twice)}.png; give their files unique names")
    return names


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
