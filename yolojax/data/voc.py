"""Pascal VOC: one XML file an image, split lists in ``ImageSets/Main``.

``xmin, ymin, xmax, ymax`` are taken as ``x1, y1, x2, y2`` without a shift by one: most sets in this format were written
by tools that mean exclusive maxima. Classes are sorted by name unless listed, over all of the data set, so that every
split has the same. ``difficult`` objects are crowd in training. The image of ``NAME.xml`` is ``NAME`` with any image
suffix, as in the VOC development kit: the one that ``<filename>`` names where there are several, and the file that
``<filename>`` names where there is none, or where no other XML file is called like it; ``<path>`` is never followed.

Annotations may lie in ``Annotations``, ``annots`` or ``xml``, in folders within it, or beside the images. Several such
folders side by side (``train``, ``valid``) are splits.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring as parse_xml_text
from defusedxml.ElementTree import parse as parse_xml

from yolojax.data.dataset import Dataset
from yolojax.data.documents import read_text
from yolojax.data.images import is_image
from yolojax.data.objects import RawObject, RecordBuilder, class_lookup, finite_number, unknown_class
from yolojax.data.paths import (
    choose_split,
    files_in,
    images_below,
    inside,
    is_apple_double,
    shared_images,
    subfolders,
    walk,
)
from yolojax.data.summary import Notebook
from yolojax.data.watching import Watched
from yolojax.errors import DataError, shortened, shown
from yolojax.other_tools import name_other_tool
from yolojax.paths import composed

_ANNOTATION_FOLDERS = ("annotations", "annotation", "annots", "annot", "xml", "xmls", "labels", "label")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img", "photos", "pictures")
_ENCODINGS = ("gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr", "cp949")
"""Encodings of several bytes a letter that the XML parser leaves to its caller."""
_SNIFFED, _ROWS = 2000, 8  # bytes and rows of a list that tell what it is


def find_voc(folder: Path) -> list[Path]:
    """The VOC roots at a folder: itself, or those of its subfolders that are one. Empty when there is none."""
    if _annotation_folder(folder) is not None:
        return [folder]
    roots = [child for child in subfolders(folder) if _annotation_folder(child) is not None]
    if len(roots) == 1 and roots[0].name.casefold() in _IMAGE_FOLDERS:
        return [folder]  # XML files beside the images of a folder `images`
    return roots


def is_mainly_xml(root: Path) -> bool:
    """Whether the annotations of a VOC root are XML files, and not label files of YOLO with some XML among them, or
    images of which some have an XML file."""
    files = [file for _, _, names in walk(_required_folder(root)) for file in names]
    suffixes = Counter(os.path.splitext(file)[1].lower() for file in files)
    return suffixes[".xml"] >= max(suffixes[".txt"], sum(map(is_image, files)) / 2)


def voc_splits(roots: Sequence[Path]) -> list[str]:
    """The splits of VOC roots: the folders themselves where there are several, else the split lists of the one, without
    the lists of single classes (`_split_lists`), else the folders in which its annotations lie."""
    if len(roots) > 1:
        return [root.name for root in roots]
    (root,) = roots
    annotations = _required_folder(root)
    listed, _ = _split_lists(root / "ImageSets" / "Main", annotations)
    return listed or sorted(_part_folders(annotations))


def _split_lists(folder: Path, annotations: Path) -> tuple[list[str], list[str]]:
    """The names of the lists of a folder ``ImageSets/Main``: those of splits, and those of single classes.

    The development kit writes ``cat_train.txt``, whose rows have a second column of -1, 0 or 1: not, difficult, yes.
    Only such a list, by its first rows, is one of a class; ``train_set.txt`` and ``fold_1.txt`` are splits.
    """
    splits: list[str] = []
    of_classes: list[str] = []
    for path in files_in(folder, ".txt"):
        is_of_class = "_" in path.stem and _has_flags(path, annotations)
        (of_classes if is_of_class else splits).append(path.stem)
    return sorted(splits), sorted(of_classes)


def _has_flags(path: Path, annotations: Path) -> bool:
    """Whether the first rows of a list each name an image and say -1, 0 or 1 of it."""
    if not path.is_file():  # a link that leads nowhere, or a pipe: its reader says so
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_SNIFFED)
    except OSError:
        return False
    complete = head if len(head) < _SNIFFED else head.rpartition(b"\n")[0]
    rows = [line.strip() for line in complete.decode("utf-8-sig", "replace").splitlines() if line.strip()][:_ROWS]
    flagged = [row for row in rows if row.split()[1:] in (["-1"], ["0"], ["1"])]
    return (
        bool(rows)
        and flagged == rows
        and not any(_is_there(_listed_name(row, annotations), annotations) for row in rows)
    )


def _name_lists_of_classes(root: Path, annotations: Path, notebook: Notebook) -> None:
    """Notes the lists that are taken for those of single classes and have no list of a split to belong to."""
    folder = root / "ImageSets" / "Main"
    splits, of_classes = _split_lists(folder, annotations)
    alone = [name for name in of_classes if not any(name.endswith(f"_{split}") for split in splits)]
    if alone:
        some = ", ".join(f"{shortened(name, 40)}.txt" for name in alone[:3]) + (", ..." if len(alone) > 3 else "")
        notebook.add(
            "note",
            str(folder),
            f"{len(alone)} lists are not read as parts, since their rows say -1, 0 or 1 as those of single classes do "
            f"({some}): a part is a list of names alone",
        )


def _part_folders(annotations: Path) -> dict[str, Path]:
    """The folders within the annotations that are splits: where no XML file lies beside them and there are several."""
    if files_in(annotations, ".xml"):
        return {}
    parts = {child.name: child for child in subfolders(annotations) if any(True for _ in _xml_below(child))}
    return parts if len(parts) > 1 else {}


def read_voc(
    roots: Sequence[Path],
    split: str | None,
    class_names: Sequence[str] | None,
    images: Path | None,
    skip_bad: bool,
    images_needed: bool = True,
) -> Dataset:
    """A VOC root, all of it or one split, or one of several; raises `DataError` as `open_dataset` does."""
    all_annotations = [_required_folder(root) for root in roots]
    if len(roots) > 1:
        names = [root.name for root in roots]
        if split is None:
            raise DataError(
                f"{roots[0].parent}: holds several VOC data sets ({', '.join(names[:12])}); name one of them as the "
                "split, or give the path of one"
            )
        split = choose_split(split, names, roots[0].parent)
        root = roots[names.index(split)]
        chosen_part = None
    else:
        root, chosen_part = roots[0], split
    annotations = _required_folder(root)
    notebook = Notebook(skip_bad)
    if len(roots) == 1:
        _name_lists_of_classes(root, annotations, notebook)
    if chosen_part is None:
        chosen = sorted(_xml_below(annotations))
    else:
        lists = root / "ImageSets" / "Main"
        split = choose_split(chosen_part, voc_splits(roots), lists if lists.is_dir() else root)
        chosen = _xml_of_split(split, root, annotations, notebook)
        if not chosen and not notebook.summary().of("skipped"):
            notebook.add("doubtful", str(lists / f"{split}.txt"), "the list is empty")
    names_of_classes = tuple(class_names) if class_names is not None else _all_class_names(all_annotations)
    index = class_lookup(names_of_classes, str(root))
    builder = RecordBuilder(notebook, "xyxy", images_needed=images_needed)
    pictures = _Pictures(root, annotations, images, notebook)
    image_of: dict[Path, Path] = {}
    for xml in chosen:
        with notebook.guard(str(xml)):
            image_of[xml] = _read_one(xml, pictures, index, builder)
    if split is None:
        _name_shared(voc_splits(roots), root, annotations, image_of, notebook)
    if split is None or len(roots) > 1:
        _name_unlabelled(builder.files, annotations, pictures, notebook)
    records = builder.close(str(annotations))
    return Dataset(
        class_names=names_of_classes,
        category_ids=tuple(range(1, len(names_of_classes) + 1)),
        records=records,
        summary=notebook.summary(),
        root=root,
        split=split,
        format="voc",
        skip_bad=skip_bad,
        watched=tuple(Watched("tree", str(place)) for place in (*roots, images) if place is not None),
    )


def _xml_of_split(split: str, root: Path, annotations: Path, notebook: Notebook) -> list[Path]:
    """The XML files of a split of one root."""
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    if listed.is_file():
        return _listed(listed, annotations, notebook)
    return sorted(_xml_below(_part_folders(annotations)[split]))


def _name_shared(
    splits: Sequence[str], root: Path, annotations: Path, image_of: dict[Path, Path], notebook: Notebook
) -> None:
    """Notes images that belong to two splits, where all of the data set was read; looks at no file but the lists."""
    folders = _part_folders(annotations)
    by_name: dict[str, Path] = {}
    for xml, image in image_of.items():
        name = xml.relative_to(annotations).with_suffix("").as_posix()
        by_name[name] = image
    parts: dict[str, list[Path]] = {}
    for split in splits if len(splits) > 1 else ():
        listed = root / "ImageSets" / "Main" / f"{split}.txt"
        if listed.is_file():
            found: list[Path | None] = []
            with Notebook(skip_bad=True).guard(str(listed)):  # its faults are named where the part is read
                found += [_image_of_row(row.strip(), by_name) for row in read_text(listed).splitlines() if row.strip()]
            parts[split] = [image for image in found if image is not None]
        elif split in folders:
            parts[split] = [image for xml, image in image_of.items() if xml.is_relative_to(folders[split])]
    for said in shared_images(parts):
        notebook.add("note", str(root), said)


def _image_of_row(row: str, by_name: dict[str, Path]) -> Path | None:
    """The image of a row of a list, found as `_listed` finds its XML file."""
    for text in (row, row.split(maxsplit=1)[0]):
        name = _without_suffix(text)
        image = by_name.get(name) or by_name.get(name.replace("\\", "/").rsplit("/", 1)[-1])
        if image is not None:
            return image
    return None


def _name_unlabelled(used: Collection[str], annotations: Path, pictures: "_Pictures", notebook: Notebook) -> None:
    stems = {composed(xml.stem) for xml in _xml_below(annotations)}
    for path in images_below(pictures.folder, notebook):
        if str(path) not in used and composed(path.stem) not in stems:
            notebook.add("unlabelled", str(path), f"no {path.stem}.xml in {annotations}")


def _annotation_folder(root: Path) -> Path | None:
    """The folder of the XML files of a VOC root, or None where it is none."""
    if not root.is_dir():
        return None
    there = {child.name.casefold(): child for child in reversed(subfolders(root))}
    for name in _ANNOTATION_FOLDERS:
        if name in there and _is_voc(there[name], below=True):
            return there[name]
    return root if _is_voc(root, below=False) else None


def _required_folder(root: Path) -> Path:
    annotations = _annotation_folder(root)
    if annotations is None:
        beside = [child for child in subfolders(root) if _annotation_folder(child) == child]
        if len(beside) == 1:
            return beside[0]
        raise DataError(f"{root}: no folder Annotations with XML files in it")
    return annotations


def _is_voc(folder: Path, *, below: bool) -> bool:
    """Whether one of the first XML files in a folder, or below it, is an annotation, or one of several is damaged."""
    files = list(zip(range(5), _xml_below(folder) if below else files_in(folder, ".xml"), strict=False))
    if below and folder.name.casefold() == "annotations":
        return bool(files)
    for _, path in files:
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                head = file.read(4000)
        except OSError:
            continue
        if re.search(rb"<(\w+:)?annotation[\s/>]", head.replace(b"\0", b"")):
            return True
    return False


def _xml_below(folder: Path) -> Iterable[Path]:
    """The XML files in a folder and its subfolders, those of macOS (``._a.xml``) left out."""
    for name, _, files in walk(folder):
        for file in files:
            if file.lower().endswith(".xml") and not is_apple_double(path := Path(name, file)):
                yield path


def _listed(path: Path, annotations: Path, notebook: Notebook) -> list[Path]:
    """The XML files of a split list, each once; a second column (a per-class flag) is not read."""
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        with notebook.guard(where):
            whole = _listed_name(line.strip(), annotations)
            name = whole if _is_there(whole, annotations) else _listed_name(line.split()[0], annotations)
            plain = inside(annotations, f"{name}.xml", where).relative_to(annotations).as_posix()
            if plain in names:
                notebook.add("duplicate", where, f"{shortened(name, 100)} stands in line {names[plain]} already")
            names.setdefault(plain, number)
    return [_xml_of(annotations / name) for name in names]


def _listed_name(name: str, annotations: Path) -> str:
    """A name of a list without the suffix of an image or of its XML file; without its folders, where it has its XML
    file only so."""
    plain = _without_suffix(name)
    base = plain.replace("\\", "/").rsplit("/", 1)[-1]
    return base if not _is_there(plain, annotations) and _is_there(base, annotations) else plain


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if is_image(name) or suffix.casefold() == ".xml" else name


def _is_there(name: str, annotations: Path) -> bool:
    try:
        return _xml_of(annotations / f"{name}.xml").is_file()
    except (OSError, ValueError):  # too long for a file name, or no text
        return False


def _xml_of(path: Path) -> Path:
    """The file itself, or the one whose suffix is ``.XML``."""
    upper = path.with_name(f"{path.stem}.XML")
    return upper if not path.is_file() and upper.is_file() else path


def _all_class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    found: set[str] = set()
    for path in (xml for folder in folders for xml in _xml_below(folder)):
        try:
            root = _parse(path)
        except DataError:  # reported when the file itself is read; it may belong to another split
            continue
        found |= {n for o in root.findall("object") if (n := (o.findtext("name") or "").strip())}
    if not found:
        raise _no_classes(folders)
    return tuple(sorted(found))


def _no_classes(folders: Sequence[Path]) -> DataError:
    """Says why there are no classes: no file can be read, for one."""
    files = [xml for folder in folders for xml in _xml_below(folder)]
    causes: list[str] = []
    for path in files:
        try:
            _check_places(_parse(path), str(path))
        except DataError as error:
            causes.append(str(error))
    if causes and len(causes) == len(files):
        return DataError(f"{folders[0]}: not one of its {len(files)} XML files can be read; the first: {causes[0]}")
    if causes:
        return DataError(
            f"{folders[0]}: no object can be read there: {len(causes)} of {len(files)} XML files are wrong; the first: "
            f"{causes[0]}"
        )
    nameless = [path for path in files if _parse(path).find("object") is not None]
    if nameless:
        return DataError(
            f"{folders[0]}: not one object of the {len(nameless)} XML files there that hold any has a name, so there "
            f"are no classes; the first is {nameless[0]}: write the class of each object into its <name>"
        )
    return DataError(f"{folders[0]}: no XML file there holds an object, so there are no classes; list the classes")


def _parse(path: Path) -> Element:
    if not path.is_file():
        raise DataError(f"{path}: annotation file is missing; restore it or take the image off the list")
    try:
        try:
            root = parse_xml(path).getroot()
        except DefusedXmlException:
            raise
        except (ValueError, LookupError):  # an encoding that the parser does not know
            root = _parse_encoded(path)
    except ParseError as error:
        raise DataError(f"{path}: malformed XML ({error}); correct or remove the file") from None
    except DefusedXmlException as error:
        raise DataError(
            f"{path}: XML with entities or external references ({shortened(str(error))}) is refused; remove them"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({shortened(str(error))}); save it as UTF-8") from None
    if root is not None:
        for element in root.iter():  # a namespace changes nothing
            if isinstance(element.tag, str):
                element.tag = element.tag.rpartition("}")[2]
    if root is None or root.tag != "annotation":
        other = name_other_tool(path)
        raise DataError(f"{path}: not a VOC annotation (no <annotation> at the top){other or '; remove the file'}")
    return root


def _parse_encoded(path: Path) -> Element:
    """Decodes an encoding of several bytes a letter that the file states, which the parser does not do itself."""
    data = path.read_bytes()
    head, end, body = data.partition(b"?>")
    stated = head.decode("ascii", "replace").partition("encoding=")[2][:40].strip().strip("'\"").lower()
    if not end or stated not in _ENCODINGS:
        raise ValueError(f"its encoding {shown(stated)} is not known")
    return parse_xml_text(body.decode(stated).strip())


def _read_one(xml: Path, pictures: "_Pictures", index: dict[str, int], builder: RecordBuilder) -> Path:
    """Adds the image of an XML file to the builder; returns its path."""
    root = _parse(xml)
    _check_places(root, str(xml))
    stated = _stated_size(xml, root, builder.notebook)
    path = pictures.find(xml, root, builder.images_needed or stated is None)
    objects: list[RawObject] = []
    # Only direct children: VOC also has <part> elements with a name and a box of their own.
    for number, element in enumerate(root.findall("object"), 1):
        where = f"object {number}"
        _check_once(element, ("name", "bndbox", "difficult"), f"{xml} {where}")
        name = (element.findtext("name") or "").strip()
        box = _box(element, f"{xml} {where}")
        if not name:
            raise unknown_class(name, f"{xml} {where}", list(index))
        if name not in index:  # a class of the data set that is not among those asked for
            with builder.notebook.guard(f"{xml} {where}"):
                raise unknown_class(name, f"{xml} {where}", list(index))
            continue
        objects.append(RawObject(number, box, index[name], difficult=_flag(element, "difficult", f"{xml} {where}")))
    size, upright = builder.open_image(path, stated, str(xml), [o.box for o in objects])
    builder.add(len(builder) + 1, pictures.name(path), path, size, upright, str(xml), objects)
    return path


def _check_places(root: Element, where: str) -> None:
    """Raises `DataError` for objects that would not be read: those within others or in capitals."""
    read = len(root.findall("object"))
    there = sum(isinstance(element.tag, str) and element.tag.casefold() == "object" for element in root.iter())
    if there != read:
        raise DataError(
            f"{where}: {there - read} of {there} <object> elements do not stand directly within <annotation>, or are "
            "written in capitals; put each of them there as <object>"
        )
    _check_once(root, ("size", "filename"), where)


def _check_once(element: Element, keys: Sequence[str], where: str) -> None:
    """Raises `DataError` where one of these stands several times within an element, with other content."""
    for key in keys:
        contents = {"".join("".join(one.itertext()).split()) for one in element.findall(key)}
        if len(contents) > 1:
            raise DataError(f"{where}: <{key}> stands there {len(element.findall(key))} times; leave one")


def _flag(element: Element, key: str, where: str) -> bool:
    """``1`` or ``true``; nothing, ``0``, ``false`` and ``Unspecified`` are no; everything else is refused."""
    text = (element.findtext(key) or "").strip()
    if text.casefold() in ("1", "true", "yes"):
        return True
    if text.casefold() in ("", "0", "false", "no", "unspecified"):
        return False
    raise DataError(f"{where}: <{key}> is {shown(text)}, not 0 or 1; correct it")


class _Pictures:
    """Finds the image of an XML file; each folder is listed once."""

    def __init__(self, root: Path, annotations: Path, images: Path | None, notebook: Notebook) -> None:
        self._annotations = annotations
        self._notebook = notebook
        self._given = images is not None
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._everywhere: dict[str, list[Path]] | None = None
        if images is not None:
            self._bases = [images]
        else:
            inner = [child for child in subfolders(root) if child.name.casefold() in _IMAGE_FOLDERS]
            inner.sort(key=lambda child: _IMAGE_FOLDERS.index(child.name.casefold()))
            self._bases = [*inner, annotations, root]
        self.folder = self._bases[0]
        self._root = root

    def name(self, path: Path) -> str:
        """An image's name relative to the folder of the images, or to that of the data set."""
        for base in (self.folder, *self._bases):
            if path.is_relative_to(base):
                return path.relative_to(base).as_posix()
        return path.name

    def find(self, xml: Path, root: Element, needed: bool) -> Path:
        """The image of an XML file; where it is missing and not ``needed``, the place at which it should be."""
        said = (root.findtext("filename") or "").strip()
        inner = xml.parent.relative_to(self._annotations)
        for place in dict.fromkeys(p for base in self._bases for p in (base / inner, base)):
            own = self._listing(place).get(composed(xml.stem), [])
            stated = inside(place, said, str(xml)) if said and (own or not self._given) and _is_plain(said) else None
            if stated is not None and not (stated.is_file() and is_image(stated.name)):
                stated = None
            if own and stated is None:
                return self._chosen(xml, place, own, own[0], f"<filename> {shown(said)} is not there")
            if own and stated is not None and stated.parent == place and stated.name in own:
                return self._chosen(xml, place, own, stated.name, "<filename> names that one")
            if own and stated is not None:
                if self._has_own_xml(stated, xml):  # a name that was left when files were renamed or copied
                    self._notebook.add(
                        "note",
                        str(xml),
                        f"<filename> says {shown(said)}, which belongs to another XML file; {own[0]} is taken",
                    )
                    return place / own[0]
                self._notebook.add("note", str(xml), f"<filename> says {shown(said)}; {', '.join(own)} is not read")
                return stated
        if said:
            for place in dict.fromkeys(p for base in self._bases for p in (base / inner, base)):
                base = said.replace("\\", "/").rsplit("/", 1)[-1]
                if base != said and base in self._names(place):
                    self._notebook.add("note", str(xml), f"<filename> says {shown(said)}; {place / base} is taken")
                    return place / base
                path = inside(place, said, str(xml))
                if path.is_file():
                    return path
        return self._elsewhere(xml, said, needed)

    def _chosen(self, xml: Path, place: Path, own: list[str], name: str, why: str) -> Path:
        others = [other for other in own if other != name]
        if others:
            self._notebook.add("note", str(xml), f"{place / name} is read, and not {', '.join(others)}: {why}")
        return place / name

    def _has_own_xml(self, image: Path, xml: Path) -> bool:
        return _xml_of(xml.with_name(f"{image.stem}.xml")).is_file()

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """The image files of a folder by their names without suffix, ``.jpg`` first."""
        if folder not in self._listings:
            found: dict[str, list[str]] = {}
            names = (
                sorted(os.listdir(folder), key=lambda n: (not n.lower().endswith(".jpg"), n)) if folder.is_dir() else []
            )
            for name in names:
                if is_image(name) and not is_apple_double(folder / name):
                    found.setdefault(composed(os.path.splitext(name)[0]), []).append(name)
            self._listings[folder] = found
        return self._listings[folder]

    def _names(self, folder: Path) -> set[str]:
        return {name for names in self._listing(folder).values() for name in names}

    def _elsewhere(self, xml: Path, said: str, needed: bool) -> Path:
        if self._everywhere is None:
            self._everywhere = {}
            for path in images_below(self._bases[0] if self._given else self._root):
                self._everywhere.setdefault(composed(path.stem), []).append(path)
        found = self._everywhere.get(composed(xml.stem), [])
        if len(found) == 1:
            return found[0]
        if not needed:
            return self.folder / (said if said and _is_plain(said) else f"{xml.stem}.jpg")
        where = f"several are called so: {', '.join(map(str, found[:3]))}" if found else f"lies in {self.folder}"
        raise DataError(
            f"{xml}: its image is missing: neither {xml.stem}.jpg (.png, ...) nor <filename> {shown(said)} {where}; "
            "restore the image, remove the XML file, or give the folder of the images with --images"
        )


def _is_plain(name: str) -> bool:
    """Whether a name has no folder."""
    return "/" not in name and "\\" not in name and ":" not in name


def _stated_size(xml: Path, root: Element, notebook: Notebook) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    _check_once(size, ("width", "height"), f"{xml} <size>")
    texts = [(size.findtext(side) or "").strip() for side in ("height", "width")]
    h, w = (finite_number(text) for text in texts)
    if not any(texts) or (h is not None and w is not None and (h <= 0 or w <= 0)):
        said = f"<size> {' x '.join(texts[::-1])}" if any(texts) else "<size> without numbers"
        notebook.add("note", str(xml), f"{said} states none; the size of the image counts")
        return None
    if h is None or w is None:
        raise DataError(f"{xml}: <size> without a width and height in numbers; correct it or remove <size>")
    return int(h), int(w)


def _box(element: Element, where: str) -> tuple[float, float, float, float]:
    box = element.find("bndbox")
    if box is None:
        raise DataError(f"{where}: no <bndbox>; add the box or remove the object")
    values: list[float] = []
    sides = ("xmin", "ymin", "xmax", "ymax")
    for side in sides:
        text = (box.findtext(side) or "").strip()
        value = finite_number(text)
        if value is None:
            raise DataError(f"{where}: <{side}> is {shown(text)}, not a finite number; correct the box")
        values.append(value)
    _check_once(box, sides, where)
    return values[0], values[1], values[2], values[3]
