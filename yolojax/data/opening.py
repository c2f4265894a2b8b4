"""`open_dataset` recognises the format of a data set and calls its reader."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from yolojax.data.coco import find_coco, find_other_coco, open_coco_folder, read_coco
from yolojax.data.dataset import Dataset
from yolojax.data.index import find_key, read_index, write_index
from yolojax.data.objects import class_lookup, unknown_class
from yolojax.data.paths import subfolders
from yolojax.data.shapes import SPLITS, open_shapes
from yolojax.data.summary import Finding, Summary
from yolojax.data.voc import find_voc, is_mainly_xml, read_voc, voc_splits
from yolojax.data.watching import Watched
from yolojax.data.yolo_txt import find_yolo, read_yolo, yolo_splits
from yolojax.errors import DataError, shortened
from yolojax.other_tools import name_other_tool
from yolojax.paths import user_path

_DEPTH = 3  # of folders within each other that an archive may have been unpacked to
_EXPECTED = (
    "expected a folder with Annotations/*.xml (Pascal VOC), with annotations/instances_*.json (COCO) or with data.yaml "
    "(YOLO txt), or such a .json, .yaml or .data file itself"
)


def open_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    images: str | Path | None = None,
    skip_bad: bool = False,
    images_needed: bool = True,
) -> Dataset:
    """Read the annotations of a data set and the headers of its images; no pixels are decoded.

    Args:
      path: a folder or file in Pascal VOC, COCO JSON or YOLO txt format. In a folder that holds several, COCO is read
        before VOC before YOLO, since it says most; the summary notes the others, and the file itself can be named.
        Or ``shapes`` or ``shapes:...``: the generated set (see `yolojax.data.shapes.open_shapes`; a folder of that name
        is ``./shapes``).
      split: ``train``, ``val``, ...: one part of the data set; a unique beginning is enough (``val`` for ``val2017``).
        None is all of it, for a COCO folder the only file there.
      class_names: the classes in the order wanted; by default those of the data set.
      images: the folder of the images, where the format's own place for them does not hold.
      skip_bad: for training only: leave out what cannot be used, and name it in the summary, instead of raising. An
        error in one object leaves out the whole image, which would otherwise show the object as background. Only an
        object of a class that the data set has and ``class_names`` leaves out is left out alone.
      images_needed: with False, an image may be missing where its annotation states its size: to evaluate detections
        the ground truth alone is enough.

    Returns:
      the data set, with every repair named in its ``summary``: boxes over the edge are clipped, boxes without extent
      dropped, duplicate entries and label files without an image left out.

    Raises:
      DataError: nothing readable at ``path``, an unknown split, or, each naming file and line or object: a missing or
        unreadable image, an image whose size contradicts its annotation, a malformed file, row or number, a file name
        that leads out of the folder, an unknown class, no image at all.
    """
    dataset = read_dataset(
        path, split, class_names=class_names, images=images, skip_bad=skip_bad, images_needed=images_needed
    )
    if not dataset.records:
        reasons = dataset.summary.of("skipped") or dataset.summary.of("doubtful")
        reason = f"{reasons[0].where}: {reasons[0].detail}" if reasons else "none is listed"
        if dataset.summary.of("skipped"):
            reason = f"all were skipped, the first: {reason}"
        raise DataError(f"{path}: holds no usable image; {reason}")
    return dataset


def read_dataset(
    path: str | Path,
    split: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    images: str | Path | None = None,
    skip_bad: bool = False,
    images_needed: bool = True,
) -> Dataset:
    """`open_dataset`, but a data set without a usable image is returned, with the reasons in its summary.

    Where an index is kept (`yolojax.data.index.keep_index`), what was read before is taken from there as long as no
    file has changed.
    """
    if _is_shapes(path):
        return _with_classes(open_shapes(str(path), split), class_names)
    place = user_path(path)
    folder = None if images is None else user_path(images)
    key = find_key((place, folder), split, class_names, skip_bad) if images_needed else None
    if key is not None and (known := read_index(key)) is not None:
        return known
    began = time.time()
    try:
        dataset = _read(place, split, class_names, folder, skip_bad, images_needed)
    except OSError as error:  # such as a name of 300 letters in data.yaml, or a folder that may not be listed
        where = shortened(str(error.filename or place))
        raise DataError(
            f"{where}: {error.strerror}; correct where {place} points, or the rights of that place"
        ) from error
    return dataset if key is None else write_index(key, dataset, began)


def _read(
    place: Path,
    split: str | None,
    class_names: Sequence[str] | None,
    folder: Path | None,
    skip_bad: bool,
    images_needed: bool,
) -> Dataset:
    if folder is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images; check the path")
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; {_EXPECTED}")
    if place.is_file():
        suffix = place.suffix.lower()
        if suffix == ".json":
            if split is not None:
                raise DataError(
                    f"{place}: one JSON file has no split {split!r}; give its folder, or leave the split out"
                )
            dataset = read_coco(place, split, class_names, folder, skip_bad, images_needed)
        elif suffix in (".yaml", ".yml", ".data"):
            dataset = read_yolo(place, split, class_names, folder, skip_bad)
        else:
            raise DataError(f"{place}: not a data set; {_EXPECTED}{name_other_tool(place)}")
    elif not place.is_dir():
        raise DataError(f"{place}: not a data set; {_EXPECTED}")
    else:
        dataset = _open_folder(place, split, class_names, folder, skip_bad, images_needed)
        given = [Watched("tree", str(one)) for one in (place, folder) if one is not None]
        dataset = replace(dataset, watched=(*dataset.watched, *given))
    return dataset


def _with_classes(dataset: Dataset, class_names: Sequence[str] | None) -> Dataset:
    """The same objects under another list of classes, which must name every class of the data set."""
    if class_names is None or tuple(class_names) == dataset.class_names:
        return dataset
    index = class_lookup(class_names, "the classes asked for")
    for name in dataset.class_names:
        if name not in index:
            raise unknown_class(name, dataset.format, class_names)
    to_new = np.array([index[n] for n in dataset.class_names], np.int32)
    records = tuple(replace(r, classes=to_new[r.classes]) for r in dataset.records)
    ids = tuple(range(1, len(index) + 1))
    return replace(dataset, class_names=tuple(class_names), category_ids=ids, records=records)


def _open_folder(
    place: Path,
    split: str | None,
    class_names: Sequence[str] | None,
    images: Path | None,
    skip_bad: bool,
    images_needed: bool,
) -> Dataset:
    asked, (place, (coco, voc, yolo)) = place, _unpacked(place)
    if coco:
        dataset = open_coco_folder(coco, place, split, class_names, images, skip_bad, images_needed)
    elif voc:
        dataset = read_voc(voc, split, class_names, images, skip_bad, images_needed)
    elif yolo is not None:
        dataset = read_yolo(yolo, split, class_names, images, skip_bad)
    else:
        raise DataError(f"{place}: no data set recognised; {_EXPECTED}{name_other_tool(place)}")
    others = [str(p) for p in voc if coco] + ([str(yolo)] if yolo is not None and (coco or voc) else [])
    notes = tuple(
        Finding("note", other, f"not read: {place} was read as {dataset.format.upper()}; name this one to read it")
        for other in others
    )
    if place != asked:
        notes = (*notes, Finding("note", str(asked), f"the data set is taken from {place}"))
    return replace(dataset, summary=dataset.summary + Summary(notes))


_Recognised = tuple[dict[str, Path], list[Path], Path | None]
"""What a folder holds: COCO files by split, roots of VOC, and a YOLO data file."""


def _unpacked(place: Path) -> tuple[Path, _Recognised]:
    """The folder of the data set and what it holds: the only folder in one that holds no data set itself, as archives
    are unpacked."""
    inner = place
    found = here = _recognise(place)
    for _ in range(_DEPTH):
        if any(found):
            return inner, found
        below = [folder for folder in subfolders(inner) if folder.name != "__MACOSX"]
        if len(below) != 1:
            break
        inner = below[0]
        found = _recognise(inner)
    return (inner, found) if any(found) else (place, here)


def _recognise(place: Path) -> _Recognised:
    coco, voc, yolo = find_coco(place), find_voc(place), find_yolo(place)
    if yolo is not None and yolo.suffix.lower() != ".txt":  # some XML files among the labels of a YOLO set
        voc = [root for root in voc if is_mainly_xml(root)]
    if not coco and not voc and yolo is None:
        coco = find_other_coco(place)
    return coco, voc, yolo


def separate_parts(path: str | Path) -> tuple[str, ...]:
    """The parts of a folder that are data sets by themselves, and can only be read one by one: those of COCO, and
    several folders of VOC; empty for everything else."""
    if _is_shapes(path):
        return ()
    place = user_path(path)
    if not place.is_dir():
        return ()
    _, (coco, voc, _) = _unpacked(place)
    if coco:
        return tuple(coco) if len(coco) > 1 else ()
    return tuple(voc_splits(voc)) if len(voc) > 1 else ()


def list_splits(path: str | Path) -> tuple[str, ...]:
    """The names that `open_dataset` accepts as ``split`` for a path; empty when the data set has no parts."""
    if _is_shapes(path):
        named = str(path).removeprefix("shapes").removeprefix(":").partition("?")[0]
        return (named,) if named else SPLITS
    place = user_path(path)
    if place.is_file():
        return tuple(yolo_splits(place)) if place.suffix.lower() in (".yaml", ".yml", ".data") else ()
    if not place.is_dir():
        raise DataError(f"{place}: no such file or folder; {_EXPECTED}")
    _, (coco, voc, yolo) = _unpacked(place)
    if coco:
        return tuple(coco)
    if voc:
        return tuple(voc_splits(voc))
    return tuple(yolo_splits(yolo)) if yolo is not None else ()


def _is_shapes(path: str | Path) -> bool:
    return isinstance(path, str) and (path == "shapes" or path.startswith(("shapes:", "shapes?")))
