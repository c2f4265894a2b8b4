"""The usual form of a result list, read straight into columns: no dictionary is made for a row.

A row has COCO's four keys and no other, its ids are integers or strings, its box four numbers and its score one; no
number lies beyond 64 bits, of which parsers of JSON make different things. Whatever differs in any of it is left to the
reader of every form, which accepts, converts or explains it.
"""

import itertools
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from yolojax.eval.columns import count_quotation_marks
from yolojax.processor.memory import without_garbage_collection

_KEYS = 4


class PlainRows(NamedTuple):
    """The rows of a result list in columns, in the order of the file; nothing has been checked but their form."""

    image_ids: list[int | str]
    category_ids: list[int | str]
    boxes: Float64[np.ndarray, "D 4"]
    scores: Float64[np.ndarray, " D"]


def read_plain_rows(content: bytes) -> PlainRows | None:
    """The columns of a result list in its usual form; None where it has another, or where ``msgspec`` is missing.

    Every row has all four keys, and a key or a text takes two quotation marks: more than these are a key that stands
    twice in a row, or a quotation mark within a text, and both are left to the general reader.
    """
    decoder = _decoder()
    if decoder is None:
        return None
    try:
        with without_garbage_collection():
            rows = decoder.decode(content)
    except (ValueError, RecursionError):
        return None
    images, categories, boxes, scores = (
        list(map(attrgetter(name), rows)) for name in ("image_id", "category_id", "bbox", "score")
    )
    texts = sum(list(map(type, column)).count(str) for column in (images, categories))
    if count_quotation_marks(content) != 2 * (_KEYS * len(rows) + texts):
        return None
    corners = np.fromiter(itertools.chain.from_iterable(boxes), np.float64, 4 * len(rows)).reshape(-1, 4)
    confidence = np.array(scores, np.float64)
    fits = _fits_64_bits(images) and _fits_64_bits(categories)
    if not fits or (abs(corners) >= 2.0**63).any() or (abs(confidence) >= 2.0**63).any():
        return None
    return PlainRows(images, categories, corners, confidence)


def _fits_64_bits(ids: list[int | str]) -> bool:
    numbers = [key for key in ids if isinstance(key, int)]
    return not numbers or (min(numbers) >= -(2**63) and max(numbers) < 2**63)


@cache
def _decoder() -> Any:
    try:
        import msgspec  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    number_or_text = int | str
    row = msgspec.defstruct(
        "Row",
        [
            ("image_id", number_or_text),
            ("category_id", number_or_text),
            ("bbox", tuple[float, float, float, float]),
            ("score", float),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(list[row])  # pyright: ignore[reportInvalidTypeForm]
