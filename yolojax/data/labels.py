"""Finds the label file of an image in the layout of YOLO txt, and the label files that belong to no image.

The label file of ``images/train/a.jpg`` is ``labels/train/a.txt``; where it is not there, it lies beside the image,
or in a folder ``labels`` beside or above the image's folder, with or without the folders in between. Folders
may be called ``Images``, ``img`` or ``JPEGImages``, and ``Labels`` or ``label``; suffixes may be ``.TXT``.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from yolojax.data.images import is_image
from yolojax.data.paths import is_apple_double, walk
from yolojax.data.summary import Notebook
from yolojax.errors import DataError
from yolojax.paths import composed

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
LABEL_FOLDERS = ("labels", "label")

_NO_LABELS = ("classes", "obj", "names", "readme", "license", "requirements", "notes", "labels", "predefined_classes")
"""Stems of text files that lie among labels and are none."""
_OTHER_LABELS = (".xml", ".json", ".csv", ".text", ".lbl", ".label")
"""Suffixes of labels in other formats, as some annotation tools leave them beside those of others."""
_NOT_WALKED = ("runs", "__macosx", "site-packages", "node_modules")
_MOST_ENTRIES = 2_000_000
"""Files that are looked at in search of labels that belong to no image."""


class LabelFinder:
    """Finds label files; each folder is listed once.

    Attributes:
      root: the folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._texts: dict[Path, dict[str, list[str]]] = {}
        self._folders: dict[Path, list[str]] = {}
        self._images: dict[Path, set[str]] = {}
        self._others: dict[Path, dict[str, list[str]]] = {}
        self._places: dict[Path, list[tuple[Path, bool]]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}

    def find(self, image: Path) -> Path | None:
        """The label file of an image, or None where it has none.

        Raises `DataError` where a label file above the folders of the images belongs to several images.
        """
        for place, is_flat in self.places(image.parent):
            label = self._named(place, image)
            if label is not None and not (is_flat and self._is_of_another(label, image)):
                return label
        return None

    def expected(self, image: Path) -> Path:
        """Where the label file of an image without one would be looked for first."""
        return self._expected_folder(image.parent) / f"{image.stem}.txt"

    def places(self, folder: Path) -> list[tuple[Path, bool]]:
        """The folders in which labels of the images in ``folder`` are sought, in this order, as far as they exist.

        The second value says that the folder is *flat*: it stands for several folders of images.
        """
        if folder not in self._places:
            found: dict[Path, bool] = {}
            for place, is_flat in self._all_places(folder):
                found.setdefault(place, is_flat)
            self._places[folder] = list(found.items())
        return self._places[folder]

    def _all_places(self, folder: Path) -> Iterator[tuple[Path, bool]]:
        parts = folder.parts
        named = [i for i in range(1, len(parts)) if parts[i].casefold() in IMAGE_FOLDERS]
        for i in named[-1:]:
            yield from self._mirrored(parts, i)
        yield folder, False
        for i in reversed(named[:-1]):
            yield from self._mirrored(parts, i)
        above = folder
        while above.is_relative_to(self.root) or above == folder:
            inner = folder.relative_to(above).parts
            outer = tuple(part for part in inner if part.casefold() not in IMAGE_FOLDERS)
            for labels in self._label_folders(above):
                for place in (labels.joinpath(*inner), labels.joinpath(*outer), labels):
                    if place.is_dir():
                        yield place, place == labels and len(inner) > (0 if outer else 1)
            if above == self.root or above.parent == above:
                break
            above = above.parent

    def _mirrored(self, parts: tuple[str, ...], i: int) -> Iterator[tuple[Path, bool]]:
        """``labels/train`` for ``images/train``, whose part ``i`` is ``images``."""
        for labels in self._label_folders(Path(*parts[:i])):
            place = labels.joinpath(*parts[i + 1 :])
            if place.is_dir():
                yield place, False

    def _label_folders(self, folder: Path) -> list[Path]:
        """The folders called ``labels``, in any spelling, in a folder; the plain spelling first."""
        if folder not in self._folders:
            self._list(folder)
        return [folder / name for name in self._folders[folder]]

    def _list(self, folder: Path) -> None:
        texts: dict[str, list[str]] = {}
        folders: list[str] = []
        images: set[str] = set()
        others: dict[str, list[str]] = {}
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.casefold() == ".txt":
                        # A link that leads nowhere and a folder are labels as well, which their reader names.
                        if not is_apple_double(folder / entry.name):
                            texts.setdefault(composed(stem).casefold(), []).append(entry.name)
                    elif is_image(entry.name):
                        images.add(composed(stem))
                    elif suffix.casefold() in _OTHER_LABELS:
                        others.setdefault(composed(stem), []).append(entry.name)
                    elif entry.name.casefold() in LABEL_FOLDERS and entry.is_dir():
                        folders.append(entry.name)
        except OSError:  # what cannot be listed holds no labels; images in it were named one by one
            pass
        folders.sort(key=lambda name: (LABEL_FOLDERS.index(name.casefold()), name not in LABEL_FOLDERS, name))
        self._texts[folder], self._folders[folder], self._images[folder] = texts, folders, images
        self._others[folder] = others

    def texts(self, folder: Path) -> list[Path]:
        """All text files in a folder, sorted."""
        if folder not in self._texts:
            self._list(folder)
        return sorted(folder / name for names in self._texts[folder].values() for name in names)

    def others(self, folder: Path) -> dict[str, list[str]]:
        """The files in a folder that may hold labels in other formats, by their names without suffix."""
        if folder not in self._others:
            self._list(folder)
        return self._others[folder]

    def _named(self, folder: Path, image: Path) -> Path | None:
        if folder not in self._texts:
            self._list(folder)
        stem = composed(image.stem)
        names = self._texts[folder].get(stem.casefold(), ())
        exact = [name for name in names if composed(os.path.splitext(name)[0]) == stem]
        if exact:
            return folder / min(exact, key=lambda name: (not name.endswith(".txt"), name))
        if not names:
            return None
        if image.parent not in self._images:
            self._list(image.parent)
        free = [name for name in names if composed(os.path.splitext(name)[0]) not in self._images[image.parent]]
        return folder / min(free) if free else None

    def _is_of_another(self, label: Path, image: Path) -> bool:
        """Whether a label file above the folders of the images is that of an image in another folder.

        Raises `DataError` where it could belong to several.
        """
        top = next(above for above in label.parents if image.is_relative_to(above))
        if top not in self._stems:
            self._stems[top] = images_by_stem(top)
        stem = composed(image.stem)
        for other in self._stems[top].get(stem.casefold(), ()):
            if composed(other.stem) != stem or other.parent == image.parent:
                continue
            own = [self._named(place, other) for place, is_flat in self.places(other.parent) if not is_flat]
            if label in own:
                return True
            if not any(own):
                raise DataError(
                    f"{label}: {image} and {other} both could be the image of this label file; put it beside its "
                    "image, or into a folder under labels of the same name as that of the image"
                )
        return False

    def _expected_folder(self, folder: Path) -> Path:
        parts = list(folder.parts)
        first = len(self.root.parts) - 1 if folder.is_relative_to(self.root) else 1
        for i in range(len(parts) - 1, max(first, 1) - 1, -1):
            if parts[i].casefold() in IMAGE_FOLDERS:
                return Path(*parts[:i], "labels", *parts[i + 1 :])
        return folder

    def labels_by_stem(self) -> dict[str, Path]:
        """Label files in the data set's folder by their names without suffix, where only one is called so: for images
        that lie in another place."""
        found: dict[str, list[Path]] = {}
        for label in self.unclaimed((), (), ()):
            found.setdefault(composed(label.stem), []).append(label)
        return {stem: labels[0] for stem, labels in found.items() if len(labels) == 1}

    def unclaimed(self, images: Iterable[Path], claimed: Collection[Path], lists: Collection[str]) -> Iterator[Path]:
        """Label files in the data set's folder and at the places of labels that were not read for any image.

        A file is a label where it lies in a folder of labels or beside images, and is no list of images or classes;
        elsewhere its first row tells.
        """
        places = {place for folder in {image.parent for image in images} for place, _ in self.places(folder)}
        walked = 0
        seen: set[Path] = set()
        for top in (self.root, *sorted(places)):
            for name, folders, files in walk(top, _is_not_walked):
                folder = Path(name)
                walked += len(files)
                if folder in seen or walked > _MOST_ENTRIES:
                    folders[:] = []
                    continue
                seen.add(folder)
                among = folder in places or any(part.casefold() in LABEL_FOLDERS for part in folder.parts[-3:])
                for path in self.texts(folder):
                    if path in claimed or os.path.normpath(path) in lists or path.stem.casefold() in _NO_LABELS:
                        continue
                    if _is_label(path, among):
                        yield path


def name_other_formats(finder: LabelFinder, unlabelled: Iterable[Path], notebook: Notebook) -> None:
    """Notes for images without a label file what lies in their folders of labels under their names in another format;
    beside images only XML files, since other files there may say anything."""
    for image in unlabelled:
        for place, _ in finder.places(image.parent):
            is_labels = any(part.casefold() in LABEL_FOLDERS for part in place.parts[-3:])
            for name in finder.others(place).get(composed(image.stem), ()):
                if is_labels or name.lower().endswith(".xml"):
                    notebook.add(
                        "orphan", str(place / name), f"not read: the labels of {image} are expected in a .txt file"
                    )


def _is_label(path: Path, among: bool) -> bool:
    """Whether a text file is one of labels by its first row; ``among`` other labels an empty file is one too."""
    if not path.is_file():
        return among
    try:
        with path.open("rb") as file:
            head = file.read(400)
    except OSError:
        return False
    row = next((line for line in head.splitlines() if line.strip()), None)
    if row is None:
        return among
    columns = re.split(rb"[\s,;]+" if among else rb"\s+", row.strip())  # elsewhere commas are those of other tables
    try:
        values = [float(column) for column in columns[:5]]
    except ValueError:
        return False
    return len(values) == 5 and values[0] % 1 == 0


def _is_not_walked(folder: str) -> bool:
    return folder.startswith(".") or folder.casefold() in _NOT_WALKED


def images_by_stem(top: Path) -> dict[str, list[Path]]:
    """The image files below a folder by their names without suffix, in lower case."""
    found: dict[str, list[Path]] = {}
    for name, _, files in walk(top, _is_not_walked):
        for file in files:
            if is_image(file):
                found.setdefault(composed(os.path.splitext(file)[0]).casefold(), []).append(Path(name, file))
    return found


def name_orphans(
    finder: LabelFinder,
    images: list[Path],
    claimed: Collection[Path],
    lists: Collection[str],
    whole: bool,
    notebook: Notebook,
) -> list[Path]:
    """Notes every label file that no image claims, and says where its image is if there is one.

    Args:
      finder: finds the labels of images of other parts.
      images: the images that were read.
      claimed: their label files.
      lists: text files that are lists of images.
      whole: whether all of the data set was read; of a part, labels of images of the other parts are no orphans.
      notebook: for the findings.

    Returns:
      the orphans.
    """
    left = list(finder.unclaimed(images, claimed, lists))
    if left:  # links lead to one file by several paths
        read_files = {os.path.realpath(label) for label in claimed}
        left = [label for label in left if os.path.realpath(label) not in read_files]
    if not left:
        return []
    on_disk = images_by_stem(finder.root)
    for image in images:
        stem = composed(image.stem).casefold()
        if image not in on_disk.get(stem, ()):
            on_disk.setdefault(stem, []).append(image)
    read = set(images)
    orphans: list[Path] = []
    for label in left:
        same = on_disk.get(composed(label.stem).casefold(), [])
        others = [image for image in same if image not in read]
        owner = next((image for image in others if finder.find(image) == label), None)
        if owner is not None:
            if whole:
                notebook.add("orphan", str(label), f"its image {owner} belongs to no part of the data set")
            continue
        instead = next((image for image in same if image in read), None)
        found = None if instead is None else finder.find(instead)
        name = composed(label.stem).casefold()
        named = on_disk.get(os.path.splitext(name)[0], ())
        whole_name = next((image for image in named if composed(image.name).casefold() == name), None)
        if found is not None:
            reason = f"not read: {found} is read for the image {instead}"
        elif whole_name is not None and not same:
            sought = finder.expected(whole_name)
            reason = f"not read: the label file of {whole_name} is sought at {sought}, without {whole_name.suffix}"
        elif same:
            reason = f"not read: the label file of {same[0]} is sought at {finder.expected(same[0])}"
        else:
            reason = "no image belongs to this label file"
        notebook.add("orphan", str(label), reason)
        orphans.append(label)
    return orphans
