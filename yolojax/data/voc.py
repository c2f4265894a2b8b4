"""Pascal VOC: one XML file an image, split lists in ``ImageSets/Main``.

``xmin, ymin, xmax, ymax`` are taken as ``x1, y1, x2, y2`` without a shift by one: most sets in this format were written
by tools that mean exclusive maxima. Classes are sorted by name unless listed, over the whole folder, so that every
split has the same. ``difficult`` objects are crowd in training. The image of ``NAME.xml`` is ``NAME`` with any image
suffix, as in the VOC development kit, or else the file that ``<filename>`` names; ``<path>`` is never followed.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.images import IMAGE_SUFFIXES
from yolojax.data.objects import RawObject, RecordBuilder, class_lookup, finite_number, unknown_class
from yolojax.data.paths import choose_split, find_folder, images_below, inside, read_text
from yolojax.data.summary import Notebook
from yolojax.errors import DataError

_ANNOTATION_FOLDERS = ("Annotations", "annotations")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images")


def find_voc(folder: Path) -> list[Path]:
    """The VOC roots at a folder: itself, or those of its subfolders that are one. Empty when there is none."""
    if _annotation_folder(folder) is not None:
        return [folder]
    return sorted(child for child in folder.iterdir() if child.is_dir() and _annotation_folder(child) is not None)


def voc_splits(root: Path) -> list[str]:
    """The split lists of a VOC root, without the per-class lists (``cat_train``)."""
    return sorted(p.stem for p in (root / "ImageSets" / "Main").glob("*.txt") if "_" not in p.stem)


def read_voc(
    root: Path, split: str | None, class_names: Sequence[str] | None, images: Path | None, skip_bad: bool
) -> Dataset:
    """A VOC root, all of it or one split. Raises `DataError` as `open_dataset` does."""
    annotations = _annotation_folder(root)
    if annotations is None:
        raise DataError(f"{root}: no folder Annotations with XML files in it")
    image_folder = images or find_folder(root, _IMAGE_FOLDERS) or annotations
    notebook = Notebook(skip_bad)
    if split is None:
        chosen = sorted(p.stem for p in annotations.glob("*.xml"))
    else:
        split = choose_split(split, voc_splits(root), root / "ImageSets" / "Main")
        chosen = _listed(root / "ImageSets" / "Main" / f"{split}.txt", notebook)
    names = tuple(class_names) if class_names is not None else _all_class_names(annotations)
    index = class_lookup(names, str(root))
    builder = RecordBuilder(notebook)
    records: list[ImageRecord] = []
    for name in chosen:
        xml = annotations / f"{name}.xml"
        with notebook.guard(str(xml)):
            records.append(_read_one(xml, len(records) + 1, image_folder, index, builder))
    if split is None:
        used = {r.source for r in records if isinstance(r.source, Path)}
        for path in images_below(image_folder):
            if path not in used and not (annotations / f"{path.stem}.xml").is_file():
                notebook.add("unlabelled", str(path), f"no {path.stem}.xml in {annotations}")
    return Dataset(
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        records=tuple(records),
        summary=notebook.summary(),
        root=root,
        split=split,
        format="voc",
        skip_bad=skip_bad,
    )


def _annotation_folder(root: Path) -> Path | None:
    folders = [root / n for n in _ANNOTATION_FOLDERS] + [root]
    return next((f for f in folders if f.is_dir() and next(f.glob("*.xml"), None) is not None), None)


def _listed(path: Path, notebook: Notebook) -> list[str]:
    """The image names of a split list, each once; a second column (a per-class flag) is not read."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        name, where = line.split()[0], f"{path} line {number}"
        with notebook.guard(where):
            if "/" in name or "\\" in name:
                raise DataError(f"{where}: {name!r} lies outside the data set; list plain names without a folder")
            inside(path.parent, f"{name}.xml", where)
            if name in names:
                notebook.add("duplicate", where, f"{name} stands in line {names[name]} already")
            names.setdefault(name, number)
    return list(names)


def _all_class_names(annotations: Path) -> tuple[str, ...]:
    found: set[str] = set()
    for path in annotations.glob("*.xml"):
        try:
            root = _parse(path)
        except DataError:  # reported when the file itself is read; it may belong to another split
            continue
        found |= {n for o in root.findall("object") if (n := (o.findtext("name") or "").strip())}
    if not found:
        raise DataError(f"{annotations}: no XML file there holds an object, so there are no classes; list the classes")
    return tuple(sorted(found))


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise DataError(f"{path}: annotation file is missing; restore it or take the image off the list")
    try:
        root = parse_xml(path).getroot()
    except ParseError as error:
        raise DataError(f"{path}: malformed XML ({error}); correct or remove the file") from None
    except DefusedXmlException as error:
        raise DataError(f"{path}: XML with entities or external references ({error}) is refused; remove them") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file") from None
    if root is None or root.tag != "annotation":
        raise DataError(f"{path}: not a VOC annotation (no <annotation> at the top); remove the file")
    return root


def _read_one(xml: Path, image_id: int, images: Path, index: dict[str, int], builder: RecordBuilder) -> ImageRecord:
    root = _parse(xml)
    path = _image_of(xml, root, images)
    size, upright = builder.open_image(path, _stated_size(xml, root), str(xml))
    objects: list[RawObject] = []
    # Only direct children: VOC also has <part> elements with a name and a box of their own.
    for number, element in enumerate(root.findall("object"), 1):
        where = f"object {number}"
        name = (element.findtext("name") or "").strip()
        box = _box(element, f"{xml} {where}")
        if name not in index:
            with builder.notebook.guard(f"{xml} {where}"):
                raise unknown_class(name, f"{xml} {where}", list(index))
            continue
        difficult = (element.findtext("difficult") or "0").strip() == "1"
        objects.append(RawObject(where, box, index[name], difficult=difficult))
    return builder.build(image_id, path.relative_to(images).as_posix(), path, size, upright, str(xml), objects)


def _image_of(xml: Path, root: Element, images: Path) -> Path:
    for suffix in (".jpg", *sorted(IMAGE_SUFFIXES)):
        for candidate in (images / (xml.stem + suffix), images / (xml.stem + suffix.upper())):
            if candidate.is_file():
                return candidate
    name = (root.findtext("filename") or "").strip()
    if name and (path := inside(images, name, str(xml))).is_file():
        return path
    raise DataError(
        f"{xml}: its image is missing: neither {xml.stem}.jpg (.png, ...) nor <filename> {name!r} lies in {images}; "
        "restore the image or remove the XML file"
    )


def _stated_size(xml: Path, root: Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    h, w = (finite_number(size.findtext(side) or "") for side in ("height", "width"))
    if h is None or w is None:
        raise DataError(f"{xml}: <size> without a width and height in numbers; correct it or remove <size>")
    return int(h), int(w)


def _box(element: Element, where: str) -> tuple[float, float, float, float]:
    box = element.find("bndbox")
    if box is None:
        raise DataError(f"{where}: no <bndbox>; add the box or remove the object")
    values: list[float] = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        value = finite_number(box.findtext(side) or "")
        if value is None:
            raise DataError(f"{where}: <{side}> is {box.findtext(side)!r}, not a finite number; correct the box")
        values.append(value)
    return values[0], values[1], values[2], values[3]
