"""The reader of text files that list class names (Darknet's ``.names``)."""

from pathlib import Path

from yolojax.errors import CheckpointError, shown
from yolojax.paths import user_path


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The class names in a text file, one a line; the first line names class 0.

    A byte order mark, space around a name and empty lines at the end are left out. An empty line before the last name
    is refused: Darknet counts it as a class, and skipping it would move the names behind it to other classes.

    Raises:
      CheckpointError: the file cannot be read as UTF-8, holds no name or an empty line, or names a class twice.
    """
    if user_path(path).exists() and not user_path(path).is_file():  # a named pipe would be waited for
        raise CheckpointError(f"{path}: class names cannot be read (it is no ordinary file); give a UTF-8 text file")
    try:
        text = user_path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: class names cannot be read ({error}); give a UTF-8 text file, one name a line"
        ) from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    if names == [""]:
        raise CheckpointError(f"{path}: has no class name; give a text file, one name a line")
    if "" in names:
        raise CheckpointError(
            f"{path}, line {names.index('') + 1}: an empty line; remove it or name the class of this line"
        )
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if first.setdefault(name, number) != number:
            raise CheckpointError(
                f"{path}, line {number}: {shown(name)} is also the class of line {first[name]}; rename one"
            )
    return tuple(names)
