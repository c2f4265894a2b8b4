"""What a pickle program leaves when nothing is imported and nothing is called: records of what it would have done."""

from typing import Any


class Global:
    """A reference to a class or function by module and name, as text."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Pairs:
    """A dictionary as a flat list: key, value, key, value. Keys may be anything, equal ones included."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class Items:
    """A set or frozen set as a list of its members."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


class PersistentId:
    """What the program refers to outside itself; in a PyTorch file the description of a storage."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Inert:
    """An object that was never created: what would have been called, and all that would have been given to it.

    Attributes:
      function: What the program would call: a `Global`, another `Inert`, or the `PersistentId` of a class.
      args: Positional arguments, a tuple.
      kwargs: Keyword arguments as a flat list, or None.
      states: Arguments of ``__setstate__``, in order, or None.
      items: What would be appended or added, or None.
      pairs: What would be set by key as a flat list, or None.
    """

    __slots__ = ("args", "function", "items", "kwargs", "pairs", "states")

    def __init__(
        self, function: Global | PersistentId | Any, args: tuple[Any, ...], kwargs: list[Any] | None = None
    ) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.states: list[Any] | None = None
        self.items: list[Any] | None = None
        self.pairs: list[Any] | None = None


def kind_of(value: Any) -> str:
    """The kind of an inert value in a word, for error messages."""
    names = {Pairs: "dict", Items: "set", Global: "class", PersistentId: "persistent reference", Inert: "object"}
    return names.get(type(value), type(value).__name__)
