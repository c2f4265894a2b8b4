"""Texts that hold a Python literal, as the metadata of ONNX and safetensors files do."""

import re
from ast import literal_eval
from typing import Any

from yolojax.weights._bounds import Budget

MAX_LITERAL = 1 << 16

BYTES_A_CHARACTER = 32
"""Memory of the objects that a literal makes, at most: an empty dictionary of two characters takes 64 bytes."""

_LITERAL = re.compile(
    r"""(?>'[^'\\\n]*+'|"[^"\\\n]*+"|[\s{}\[\](),:]|-?\d{1,18}+(?:\.\d*+)?+(?:[eE][-+]?\d{1,3}+)?+|True|False|None)*+"""
)


def parse_literal(text: str, budget: Budget) -> Any:
    """The value of a text that is a whole number, or a list, tuple or dictionary in Python's notation; else the text.

    Exporters write class names and the input size this way. The text is not executed: only literals are accepted, of
    limited length and depth, and the memory of their objects is charged to ``budget``.
    """
    if len(text) > MAX_LITERAL or not re.match(r"[\[{(]|-?\d{1,18}$", text) or _LITERAL.fullmatch(text) is None:
        return text
    depth = 0
    for character in re.sub(r"'[^']*'|\"[^\"]*\"", "", text):
        depth += (character in "([{") - (character in ")]}")
        if depth > 8:
            return text
    budget.charge(BYTES_A_CHARACTER * len(text))
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
