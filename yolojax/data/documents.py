"""Text, JSON and YAML files of other programs, read within bounds of time and memory.

Whatever is wrong with a file is one `DataError`. Keys given twice are refused, because readers differ in which
of the two they take.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from yolojax.errors import DataError, shortened, shown
from yolojax.processor.memory import without_garbage_collection

LARGEST_YAML = 16 * 2**20
"""Bytes; a list of twenty thousand classes takes half of one mebibyte."""

_LONGEST_SCALAR = 10_000
_MOST_MERGED = 10_000
# Besides its own, PyYAML lets errors of what it builds escape: an impossible date, a number of thousands of digits,
# a mapping as the key of a mapping.
_YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError, AttributeError, KeyError)


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark; `DataError` when it is missing or anything else."""
    try:
        if path.exists() and not path.is_file():  # opening a named pipe would wait for ever
            raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no ordinary file'}; give a text file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None


def load_json(path: Path) -> Any:
    """The content of a JSON file; raises `DataError` when it is malformed, nested too deeply, or has a key twice."""
    text = read_text(path)
    try:
        with without_garbage_collection():
            return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno}: malformed JSON ({error.msg}); correct the file") from None
    except TwiceError as error:
        raise DataError(f"{path}: the key {error} stands twice in one object; leave one of the two") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{path}: malformed JSON ({shortened(str(error))}); correct the file") from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be COCO; give another file") from None


class TwiceError(Exception):
    pass


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        raise TwiceError(shown(next(key for key, _ in pairs if key in seen or seen.add(key))))
    return made


def load_yaml(path: Path) -> Any:
    """The content of a YAML file; raises `DataError` when it is malformed, too large, or has a key twice.

    Aliases may make it stand for more than memory holds: nothing here or later walks through all of it.
    """
    text = read_text(path)
    if len(text) > LARGEST_YAML:
        raise DataError(f"{path}: {len(text)} characters of YAML, while {LARGEST_YAML} are the most; give another file")
    try:
        return yaml.load(text, _Loader)
    except _YAML_ERRORS as error:
        raise DataError(f"{path}: malformed YAML ({shortened(str(error))}); correct the file") from None


_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """A safe loader that refuses keys given twice, scalars without end, and merges that multiply."""

    merged = 0

    def flatten_mapping(self, node: Any) -> None:
        own = len(node.value)
        super().flatten_mapping(node)
        self.merged += max(0, len(node.value) - own)
        if self.merged > _MOST_MERGED:
            raise yaml.YAMLError("its merge keys (<<) stand for more entries than any data file has")

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.MappingNode):
            scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            times = Counter((key.tag, key.value) for key in scalars)
            if len(times) < len(scalars):
                (_, twice), _ = times.most_common(1)[0]
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {shown(twice)} stands twice in the mapping of line {line}")
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and len(value) > _LONGEST_SCALAR:
            raise yaml.YAMLError(f"a value of {len(value)} characters, line {node.start_mark.line + 1}")
        return value
