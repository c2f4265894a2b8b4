"""How rows of a result file find their image and their class: by ids, or by names where there are no ids or other ones.

Other conventions of writers are stated by `yolojax.eval.result_format`; `yolojax.eval.mistakes` proposes them.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from yolojax.errors import ResultError, shown
from yolojax.eval.columns import Record, RowName, are_mappings, few, id_column, lists_of
from yolojax.eval.result_format import Absent, ImageIds
from yolojax.paths import composed

Unknown = Literal["refuse", "count"]

IMAGE_NAMES = ("file_name", "filename", "image_name")
CATEGORY_NAMES = ("category_name", "class_name", "category", "label")
"""Keys under which writers of result lists put a name beside the id."""


def names_beside(records: Sequence[Any] | None, used: set[Any], keys: Sequence[str]) -> list[str | None] | None:
    """The name that stands in each row beside its id, None where none does; None where no row has one.

    ``used`` are all keys of the rows.
    """
    if records is None:
        return None
    for key in keys:
        if key in used:
            texts = [name if isinstance(name := record.get(key), str) and name else None for record in records]
            if any(name is not None for name in texts):
                return texts
    return None


def keys_or_names(
    records: Sequence[Any], used: set[Any], key: str, names: Sequence[str], row_name: RowName
) -> list[Any]:
    """The ids of rows; their names where no row has an id and each has a name. Raises `ResultError` as `id_column`."""
    if records and key not in used and are_mappings(records):
        beside = names_beside(records, used, names)
        if beside is not None and None not in beside:
            return beside
    return id_column(records, key, row_name, ResultError)


def join_images(
    records: Sequence[Any] | None,
    used: set[Any],
    keys: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    how: ImageIds,
    where: str,
    name: RowName,
) -> list[Any]:
    """The ground truth's image ids for the rows of a result list.

    A row's ``file_name`` (or another of `IMAGE_NAMES`) decides where it is given: with ``given`` ids it must agree with
    them, and where none of the ids is listed it takes their place; with ``names`` ids are not read where a file name
    stands beside them.

    Raises:
      ResultError: on a row whose file name contradicts its id, or whose number is in no file name, or in several.
    """
    files = names_beside(records, used, IMAGE_NAMES)
    if how == "names":
        mixed = keys if files is None else [k if f is None else f for k, f in zip(keys, files, strict=True)]
        found = by_name(mixed, names, ids, where, name)
        if files is not None and _has_text(keys):
            _check_both_names(keys, files, found, names, ids, name)
        return found
    keys = named(keys, names, ids, (stem_of, base_of, plain_name))
    if files is None:
        return keys
    position = {one: k for k, one in enumerate(ids)}
    if None not in files and not any(key in position for key in set(keys)):
        return named(files, names, ids, (stem_of, base_of, plain_name), always=True)
    if all(one == str(own) for one, own in zip(names, ids, strict=True)):  # the ground truth names no files
        return keys
    stems = [stem_of(one) for one in names]
    known = set(stems)
    apart = [
        row
        for row, (key, file) in enumerate(zip(keys, files, strict=True))
        if file is not None
        and (k := position.get(key)) is not None
        and (stem := stem_of(file)) != stems[k]
        and (stem in known or None not in files)  # a few names of nothing may mean something else
    ]
    if apart:
        row = apart[0]
        raise ResultError(
            f"{name(row)} says image_id {keys[row]!r} and file_name {str(files[row])[:80]!r}, but the ground truth's "
            f"image {keys[row]!r} is {names[position[keys[row]]]!r} ({len(apart)} of {len(files)} rows contradict "
            "themselves); give --image-ids names to join by file name, or correct the ids"
        )
    return keys


def _check_both_names(
    keys: list[Any],
    files: list[str | None],
    found: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    name: RowName,
) -> None:
    """Raises `ResultError` where a text as image id and the file name beside it are the names of two images."""
    # Digits alone are an id of the writer's own, as a number is.
    texts = [key if isinstance(key, str) and not key.isdigit() else None for key in keys]
    meant = named(texts, names, ids, (stem_of, base_of, plain_name), True)
    known = set(ids)
    for row, (text, one, file) in enumerate(zip(texts, meant, files, strict=True)):
        if text is not None and file is not None and one in known and one != found[row]:
            raise ResultError(
                f"{name(row)} says image_id {shown(text)} and file_name {shown(file)}, which are two images of the "
                "ground truth; leave one of them out"
            )


def check_category_names(
    records: Sequence[Any] | None,
    used: set[Any],
    keys: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    name: RowName,
) -> None:
    """Raises `ResultError` where a row's category id and the name beside it are those of two categories."""
    beside = names_beside(records, used, CATEGORY_NAMES)
    if beside is None:
        return
    name_of, known = dict(zip(ids, names, strict=True)), set(names)
    apart = [
        row
        for row, (key, text) in enumerate(zip(keys, beside, strict=True))
        if text is not None and text in known and name_of.get(key, text) != text
    ]
    if apart:
        row = apart[0]
        raise ResultError(
            f"{name(row)} says category_id {keys[row]!r} and the name {str(beside[row])[:80]!r}, but the ground "
            f"truth's category {keys[row]!r} is {name_of[keys[row]]!r} ({len(apart)} of {len(beside)} rows contradict "
            "themselves); leave the ids out to join by name, or correct them"
        )


def by_name(keys: list[Any], names: Sequence[str], ids: Sequence[Any], where: str, name: RowName) -> list[Any]:
    """The ids of the images with these names; an integer is the number in a file's name.

    That number is the whole name without its suffix, or else the digits at its end: 42 is ``42.jpg``, ``000042.png`` or
    ``COCO_val2014_000000000042.jpg``, if only one of the images has it.
    """
    found = named([k if isinstance(k, str) else None for k in keys], names, ids, (stem_of, base_of, plain_name), True)
    numbers = file_numbers(names)
    position = {one: k for k, one in enumerate(ids)}
    strange: dict[Any, int] = {}
    for row, key in enumerate(keys):
        if isinstance(key, str):
            if found[row] not in position:
                strange.setdefault(key, row)
        elif key in numbers:
            found[row] = ids[numbers[key]]
        else:
            strange.setdefault(key, row)
    if strange:
        row = next(iter(strange.values()))
        raise ResultError(
            f"{name(row)}: images are joined by file name here, and {few(strange)} is the name or the number in the "
            f"name of no image, or of several ({len(strange)} such); the ground truth has {few(list(names[:6]))}; give "
            "each row the image's file_name"
        )
    return found


def file_numbers(names: Sequence[str]) -> dict[int, int]:
    """The position of the image for each number that stands in the name of one file only."""
    found: dict[int, list[int]] = {}
    for pattern in (r"(\d{1,18})", r"(?:.*\D)?(\d{1,18})"):  # whole names first
        for k, one in enumerate(names):
            match = re.fullmatch(pattern, stem_of(one), re.ASCII)
            if match:
                found.setdefault(int(match[1]), []).append(k)
        if found:
            break
    return {number: places[0] for number, places in found.items() if len(places) == 1}


def named(
    keys: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    forms: Sequence[Callable[[str], str]],
    always: bool = False,
) -> list[Any]:
    """Ids in place of names, where ids are numbers and names are what the results give; unknown names stay.

    Names may be given in any of the forms, of which the last is the most exact. A name that belongs to two files once
    its folder or suffix is left out belongs to neither. With ``always``, names are names where ids are texts, too.
    """
    if not _has_text(keys) or (not always and _has_text(ids)):
        return keys
    id_of: dict[str, Any] = {}
    for form, shorten in enumerate(forms):  # what is more exact comes last and wins
        short = [shorten(name) for name in names]
        times = Counter(short)
        for name, one in zip(short, ids, strict=True):
            if times[name] == 1:
                id_of[name] = one
            elif form < len(forms) - 1:
                id_of.pop(name, None)
    exact = forms[-1]
    found = [id_of.get(exact(key), key) if isinstance(key, str) else key for key in keys]
    known = set(ids)
    if len(forms) > 1 and any(isinstance(key, str) and key not in known for key in found):
        tails = _tails(names, ids)
        joined = {key: _by_tail(key, tails) for key in set(found) if isinstance(key, str) and key not in known}
        times = Counter([*joined.values(), *set(found)])  # files of one name in two folders: which of them is meant?
        found = [joined[key] if key in joined and times[joined[key]] == 1 else key for key in found]
    return found


def _has_text(values: Sequence[Any]) -> bool:
    return any(issubclass(kind, str) for kind in set(map(type, values)))


def _tails(names: Sequence[str], ids: Sequence[Any]) -> dict[str, Any]:
    """The id for each end that one name alone has: of two parts or more, as ``a/1.jpg`` of ``images/a/1.jpg``, or a
    whole name without folders."""
    found: dict[str, Any] = {}
    for name, one in zip(names, ids, strict=True):
        parts = plain_name(name).split("/")
        for start in range(max(0, len(parts) - 8), max(1, len(parts) - 1)):
            tail = "/".join(parts[start:])
            found[tail] = one if tail not in found else None
    return found


def _by_tail(name: str, tails: Mapping[str, Any]) -> Any:
    """The id of the image whose name has the longest end in common with this one; the name itself where none has."""
    parts = plain_name(name).split("/")
    ends = ("/".join(parts[start:]) for start in range(max(0, len(parts) - 8), len(parts)))
    return next((one for end in ends if (one := tails.get(end)) is not None), name)


def plain_name(name: str) -> str:
    """A file's name with ``/`` between folders, as the readers of data sets take it, and letters composed (NFC)."""
    return composed(name.replace("\\", "/").removeprefix("./"))


def base_of(name: str) -> str:
    """A file's name without its folders."""
    return PurePosixPath(plain_name(name)).name


def stem_of(name: str) -> str:
    """A file's name without folders and suffix."""
    return PurePosixPath(plain_name(name)).stem


def join_scored(
    data: Record,
    kind: str,
    field: str,
    keys: list[Any],
    names: Sequence[str],
    ids: Sequence[Any],
    where: str,
    unknown: Unknown,
) -> list[Any]:
    """The ground truth's ids for the ids of a scored data set, through names that both must have once.

    With ``unknown="count"`` a name that the ground truth has not becomes an `Absent`, which equals no id.
    """
    listed = lists_of(data, (kind,), where, ResultError)[0]

    def name(row: int) -> str:
        return f"{where}, '{kind}' row {row}"

    plain = plain_name if field == "file_name" else str
    own_ids, own_names = (id_column(listed, key, name, ResultError) for key in ("id", field))
    name_of = {one: plain(str(own)) for one, own in zip(own_ids, own_names, strict=True)}
    names = [plain(one) for one in names]  # the ground truth's names are strings already
    for key in keys:
        if key not in name_of:
            raise ResultError(f"{where}: an annotation names id {key!r}, which its own list '{kind}' does not have")
    for side, values in (("the ground truth", list(names)), (where, list(name_of.values()))):
        if len(set(values)) < len(values):
            twice = Counter(values).most_common(1)[0][0]
            raise ResultError(f"cannot join {kind} by '{field}': {side} has {twice!r} more than once")
    id_of = dict(zip(names, ids, strict=True))
    missing = sorted({name_of[key] for key in keys} - set(names))
    if missing and unknown == "refuse":
        raise ResultError(
            f"{where}: {len(missing)} '{field}' in '{kind}' are not in the ground truth: {', '.join(missing[:5])}; a "
            "scored data set is joined by file name and category name, because its ids are its own"
        )
    return [id_of.get(name_of[key], Absent(name_of[key])) for key in keys]


def _without_capitals(text: str) -> str:
    return "".join(text.split()).casefold()


def guess_ids(kind: str, keys: set[Any], names: Sequence[str], ids: Sequence[Any]) -> str:
    """A proposal for ids that the ground truth does not list, empty where there is none."""
    numbers = [key for key in keys if isinstance(key, int) and not isinstance(key, bool)]
    texts = {str(one): one for one in ids}
    if keys and all(str(key) in texts for key in keys):
        return "; they are texts in one list and numbers in the other: write them alike"
    if keys and all(isinstance(key, str) for key in keys) and names:
        plain = (lambda text: stem_of(text).casefold()) if kind == "image" else _without_capitals
        known = {plain(one) for one in names}
        if all(plain(key) in known for key in keys):
            what = "in folder, suffix or capitals" if kind == "image" else "in capitals or blanks"
            return f"; they differ from the ground truth's only {what}: write them alike"
    if len(numbers) < len(keys) or not numbers:
        return ""
    if kind == "image":
        known = file_numbers(names)
        if all(key in known for key in numbers):
            return "; all of them are the numbers in file names: --image-ids names joins them so"
        if min(numbers) == 0 and max(numbers) < len(ids) and 0 not in ids:
            return "; they look like positions counted from 0: write the ground truth's ids, or each row's file_name"
        if min(numbers) >= 1 and max(numbers) == len(ids):
            return "; they look like positions counted from 1: write the ground truth's ids, or each row's file_name"
        return ""
    integers = [one for one in ids if isinstance(one, int)]
    if min(numbers) == 0 and max(numbers) < len(ids) and 0 not in ids:
        return "; they look like positions counted from 0: --category-ids from-zero takes them so"
    for how, step in (("less-one", -1), ("plus-one", 1)):
        if integers and all(key + step in integers for key in numbers):
            return f"; all are listed once one is {'taken away' if step < 0 else 'added'}: --category-ids {how}"
    return ""
