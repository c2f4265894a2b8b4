"""Lists of class names, and the objects that name a class outside them."""

from collections.abc import Sequence

from yolojax.errors import DataError


def class_lookup(class_names: Sequence[str], where: str) -> dict[str, int]:
    """The index of each class by name; `DataError` when the list is empty or names a class twice."""
    names = list(class_names)
    if not names:
        raise DataError(f"{where}: no classes; name at least one")
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError(f"{where}: classes listed more than once: {', '.join(twice)}; make the names unique")
    return {n: i for i, n in enumerate(names)}


def unknown_class(name: str, where: str, known: Sequence[str]) -> DataError:
    """The error for an object of a class that is not among the known ones."""
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return DataError(f"{where}: unknown class {name!r}; the classes are {shown}. Correct the name or list the class")
