"""An interpreter of pickle programs that builds inert data and nothing else.

A pickle is a program for a stack machine. Python's own machine imports classes and calls them. This one knows every
opcode of protocols 0 to 5 and only records: a class or function is a `Global` (two texts), whatever a program would
create by calling one is an `Inert`, and dictionaries and sets are lists of their items, so that no value of the file is
ever hashed, compared, imported or called.

Source: the opcode table of Python's ``pickletools`` module (https://docs.python.org/3/library/pickletools.html).
"""

import codecs
import re
import struct
from typing import Any

from yolojax.weights._bounds import Budget, Buffer, Malformed
from yolojax.weights.pytorch._inert import Global, Inert, Items, Pairs, PersistentId, kind_of

HIGHEST_PROTOCOL = 5
MAX_TEXT = 1 << 20
"""Longest text in bytes: class names, paths and descriptions are far shorter."""
MAX_LINE = 1 << 12
MAX_INTEGER = 1 << 10
"""Longest integer in bytes; the magic number of the legacy form has ten."""
MAX_MARKS = 1 << 10
MAX_CLASS_NAME = 512


class Program:
    """One pickle program inside a buffer.

    Args:
      data: The buffer; ``data[start:stop]`` holds the program and perhaps more behind it.
      budget: Charged for every opcode and for what it builds.
      where: The name of the place for error messages, such as ``archive/data.pkl``.

    After `run`, ``position`` is the place behind the program's STOP, and ``persistent_ids`` lists what it referred to.
    """

    def __init__(self, data: Buffer, start: int, stop: int, budget: Budget, where: str) -> None:
        self.data, self.position, self.stop, self.budget, self.where = data, start, stop, budget, where
        self.start = start
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []
        self.sparse_memo: dict[int, Any] = {}
        self.persistent_ids: list[PersistentId] = []

    def run(self) -> Any:
        """Returns the inert value that the program leaves. Raises `Malformed` with the place in the program."""
        charge = self.budget.charge
        opcode, place = 0, self.position
        try:
            while True:
                place = self.position
                if place >= self.stop:
                    raise Malformed("the program ends without STOP (is the file cut off?)")
                opcode = self.data[place]
                self.position = place + 1
                if opcode == _STOP:
                    value = self._pop()
                    if self.stack or self.marks:
                        raise Malformed("STOP leaves values on the stack")
                    return value
                charge(10)
                operation = _OPERATIONS.get(opcode)
                if operation is None:
                    raise Malformed(f"there is no opcode {opcode:#04x}")
                operation(self)
        except (ValueError, struct.error) as error:
            name = _NAMES.get(opcode, f"{opcode:#04x}")
            raise Malformed(f"{self.where}, byte {place - self.start} ({name}): {error}") from error

    # Reading from the program.

    def _take(self, count: int) -> bytes:
        start = self.position
        if count > self.stop - start:
            raise Malformed(f"{count} bytes are announced, {self.stop - start} are left")
        self.position = start + count
        return bytes(self.data[start : self.position])

    def _unsigned(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> bytes:
        end = self.data.find(b"\n", self.position, min(self.stop, self.position + MAX_LINE))
        if end < 0:
            raise Malformed(f"no line end within {MAX_LINE} bytes")
        line = self._take(end - self.position)
        self.position = end + 1
        return line

    def _text_line(self) -> str:
        line = self._line()
        self.budget.charge(64 + 2 * len(line))
        return line.decode("utf-8", "replace")

    def _unicode_line(self) -> None:
        line = self._line()
        self.budget.charge(64 + 4 * len(line))
        text = codecs.raw_unicode_escape_decode(line)[0]  # `bytes.decode` would import the codec's module.
        self.stack.append(text.encode("utf-8", "replace").decode())

    def _text(self, size: int) -> str:
        if size > MAX_TEXT:
            raise Malformed(f"a text of {size} bytes; at most {MAX_TEXT} are read")
        raw = self._take(size)
        self.budget.charge(64 + (size if raw.isascii() else 4 * size))
        return raw.decode("utf-8", "replace")

    # The stack.

    def _pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("the stack is empty")
        return self.stack.pop()

    def _top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("the stack is empty")
        return self.stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Malformed("there is no MARK")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def _push(self, value: Any, size: int) -> None:
        self.budget.charge(size)
        self.stack.append(value)

    def _push_tuple(self, values: list[Any]) -> None:
        self._push(tuple(values), 64 + 8 * len(values))

    # Numbers and texts.

    def _push_integer(self, raw: bytes) -> None:
        self._push(int.from_bytes(raw, "little", signed=True), 40 + len(raw))

    def _long(self, size: int) -> None:
        if size > MAX_INTEGER:
            raise Malformed(f"an integer of {size} bytes; at most {MAX_INTEGER} are read")
        self._push_integer(self._take(size))

    def _integer_line(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):  # How protocol 0 writes False and True.
            return self.stack.append(line == b"01")
        if len(line) > MAX_INTEGER:
            raise Malformed("an integer of too many digits")
        self._push(int(line.removesuffix(b"L")), 40 + len(line))

    def _string_line(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
            raise Malformed("a text without quotation marks")
        self.budget.charge(64 + 4 * len(line))
        self.stack.append(re.sub(rb"\\(x[0-9a-fA-F]{2}|.)", _unescape, line[1:-1]).decode("utf-8", "replace"))

    def _bytes(self, size: int, kind: type = bytes) -> None:
        if size > self.stop - self.position:
            raise Malformed(f"{size} bytes are announced, {self.stop - self.position} are left")
        self.budget.charge(64 + size * (1 if kind is bytes else 2))
        self.stack.append(kind(self._take(size)))

    # Containers.

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Inert):
            if target.items is None:
                target.items = []
                self.budget.charge(100)
            target = target.items
        elif isinstance(target, Items):
            target = target.items
        if not isinstance(target, list):
            raise Malformed(f"values are appended to a {kind_of(target)}")
        self.budget.charge(10 * len(values))
        target.extend(values)

    def _set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise Malformed("a key without a value")
        target = self._top()
        if isinstance(target, Inert):
            if target.pairs is None:
                target.pairs = []
                self.budget.charge(100)
            pairs = target.pairs
        elif isinstance(target, Pairs):
            pairs = target.items
        else:
            raise Malformed(f"a key is set in a {kind_of(target)}")
        self.budget.charge(10 * len(values))
        pairs.extend(values)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _pairs(self) -> None:
        values = self._pop_to_mark()
        if len(values) % 2:
            raise Malformed("a key without a value")
        self._push(Pairs(values), 120 + 10 * len(values))

    # The memo.

    def _put(self, index: int) -> None:
        value = self._top()
        if index == len(self.memo):
            self.memo.append(value)
        elif index < len(self.memo):
            self.memo[index] = value  # A program may write one place again.
        elif index < 1 << 32:
            self.budget.charge(160)
            self.sparse_memo[index] = value
        else:
            raise Malformed(f"memo index {index} is too large")

    def _put_line(self) -> None:
        self._put(self._index_line())

    def _get(self, index: int) -> None:
        if index < len(self.memo):
            self.stack.append(self.memo[index])
        elif index in self.sparse_memo:
            self.stack.append(self.sparse_memo[index])
        else:
            raise Malformed(f"memo index {index} was never written")

    def _index_line(self) -> int:
        line = self._line()
        if not line.isdigit() or len(line) > 10:
            raise Malformed("not an index of the memo")
        return int(line)

    # What Python's machine would import, call or ask of its caller.

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise Malformed("a class whose name is not a text")
        self._push(self._class(module, name), 0)

    def _global_line(self) -> None:
        module = self._text_line()
        self._push(self._class(module, self._text_line()), 0)

    def _class(self, module: str, name: str) -> Global:
        if len(module) + len(name) > MAX_CLASS_NAME:
            raise Malformed(f"a class name of more than {MAX_CLASS_NAME} characters")
        self.budget.charge(64)
        return Global(module, name)

    def _push_inert(self, function: Any, args: Any, kwargs: list[Any] | None = None) -> None:
        if not isinstance(function, Global | Inert | PersistentId):
            raise Malformed(f"a {kind_of(function)} would be called")
        if not isinstance(args, tuple):
            raise Malformed(f"the arguments of a call are a {kind_of(args)}")
        self._push(Inert(function, args, kwargs), 112)

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        self._push_inert(function, args)

    def _new_with_keywords(self) -> None:
        kwargs, args, function = self._pop(), self._pop(), self._pop()
        if not isinstance(kwargs, Pairs):
            raise Malformed(f"the keyword arguments of a call are a {kind_of(kwargs)}")
        self._push_inert(function, args, kwargs.items)

    def _instance(self) -> None:
        module = self._text_line()
        function = self._class(module, self._text_line())
        self._push_inert(function, tuple(self._pop_to_mark()))

    def _object(self) -> None:
        values = self._pop_to_mark()
        if not values:
            raise Malformed("an object without a class")
        self.budget.charge(16 * len(values))
        self._push_inert(values[0], tuple(values[1:]))

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if not isinstance(target, Inert):
            raise Malformed(f"a state is given to a {kind_of(target)}")
        if target.states is None:
            target.states = []
            self.budget.charge(100)
        target.states.append(state)

    def _refer(self, value: Any) -> None:
        reference = PersistentId(value)
        self.persistent_ids.append(reference)
        self._push(reference, 64)

    # Framing.

    def _protocol(self) -> None:
        version = self._unsigned(1)
        if version > HIGHEST_PROTOCOL:
            raise Malformed(f"pickle protocol {version}; protocols 0 to {HIGHEST_PROTOCOL} are known")

    def _frame(self) -> None:
        size = self._unsigned(8)
        if size > self.stop - self.position:
            raise Malformed(f"a frame of {size} bytes, {self.stop - self.position} are left")

    def _mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise Malformed(f"more than {MAX_MARKS} open marks")
        self.marks.append(len(self.stack))

    def _pop_any(self) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self._pop()

    def _extension(self, size: int) -> None:
        raise Malformed(f"class number {self._unsigned(size)} of a private registry; nothing says which class that is")

    def _outside_buffer(self) -> None:
        raise Malformed("a buffer outside the file")

    def _readonly(self) -> None:
        if not isinstance(self._top(), bytes | bytearray):
            raise Malformed(f"a {kind_of(self._top())} is made read-only")


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16)])
    return {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"\\": b"\\", b"'": b"'", b'"': b'"'}.get(code, match[0])


def _last(program: Program, count: int) -> list[Any]:
    values = [program._pop() for _ in range(count)]
    return values[::-1]


_STOP = ord(".")

# One row for each opcode: its byte, its name in `pickletools`, and what it does.
_TABLE = (
    (b"I", "INT", Program._integer_line),
    (b"J", "BININT", lambda p: p._push_integer(p._take(4))),
    (b"K", "BININT1", lambda p: p._push(p._unsigned(1), 32)),
    (b"M", "BININT2", lambda p: p._push(p._unsigned(2), 32)),
    (b"L", "LONG", Program._integer_line),
    (b"\x8a", "LONG1", lambda p: p._long(p._unsigned(1))),
    (b"\x8b", "LONG4", lambda p: p._long(p._unsigned(4))),
    (b"S", "STRING", Program._string_line),
    (b"T", "BINSTRING", lambda p: p._push(p._text(p._unsigned(4)), 0)),
    (b"U", "SHORT_BINSTRING", lambda p: p._push(p._text(p._unsigned(1)), 0)),
    (b"B", "BINBYTES", lambda p: p._bytes(p._unsigned(4))),
    (b"C", "SHORT_BINBYTES", lambda p: p._bytes(p._unsigned(1))),
    (b"\x8e", "BINBYTES8", lambda p: p._bytes(p._unsigned(8))),
    (b"\x96", "BYTEARRAY8", lambda p: p._bytes(p._unsigned(8), bytearray)),
    (b"\x97", "NEXT_BUFFER", Program._outside_buffer),
    (b"\x98", "READONLY_BUFFER", Program._readonly),
    (b"N", "NONE", lambda p: p.stack.append(None)),
    (b"\x88", "NEWTRUE", lambda p: p.stack.append(True)),
    (b"\x89", "NEWFALSE", lambda p: p.stack.append(False)),
    (b"V", "UNICODE", Program._unicode_line),
    (b"\x8c", "SHORT_BINUNICODE", lambda p: p._push(p._text(p._unsigned(1)), 0)),
    (b"X", "BINUNICODE", lambda p: p._push(p._text(p._unsigned(4)), 0)),
    (b"\x8d", "BINUNICODE8", lambda p: p._push(p._text(p._unsigned(8)), 0)),
    (b"F", "FLOAT", lambda p: p._push(float(p._line()), 32)),
    (b"G", "BINFLOAT", lambda p: p._push(struct.unpack(">d", p._take(8))[0], 32)),
    (b"]", "EMPTY_LIST", lambda p: p._push([], 96)),
    (b"a", "APPEND", lambda p: p._append([p._pop()])),
    (b"e", "APPENDS", lambda p: p._append(p._pop_to_mark())),
    (b"l", "LIST", lambda p: p._push(p._pop_to_mark(), 96)),
    (b")", "EMPTY_TUPLE", lambda p: p.stack.append(())),
    (b"t", "TUPLE", lambda p: p._push_tuple(p._pop_to_mark())),
    (b"\x85", "TUPLE1", lambda p: p._push_tuple(_last(p, 1))),
    (b"\x86", "TUPLE2", lambda p: p._push_tuple(_last(p, 2))),
    (b"\x87", "TUPLE3", lambda p: p._push_tuple(_last(p, 3))),
    (b"}", "EMPTY_DICT", lambda p: p._push(Pairs([]), 120)),
    (b"d", "DICT", Program._pairs),
    (b"s", "SETITEM", Program._set_item),
    (b"u", "SETITEMS", lambda p: p._set_items(p._pop_to_mark())),
    (b"\x8f", "EMPTY_SET", lambda p: p._push(Items([]), 120)),
    (b"\x90", "ADDITEMS", lambda p: p._append(p._pop_to_mark())),
    (b"\x91", "FROZENSET", lambda p: p._push(Items(p._pop_to_mark()), 120)),
    (b"0", "POP", Program._pop_any),
    (b"2", "DUP", lambda p: p.stack.append(p._top())),
    (b"(", "MARK", Program._mark),
    (b"1", "POP_MARK", Program._pop_to_mark),
    (b"g", "GET", lambda p: p._get(p._index_line())),
    (b"h", "BINGET", lambda p: p._get(p._unsigned(1))),
    (b"j", "LONG_BINGET", lambda p: p._get(p._unsigned(4))),
    (b"p", "PUT", Program._put_line),
    (b"q", "BINPUT", lambda p: p._put(p._unsigned(1))),
    (b"r", "LONG_BINPUT", lambda p: p._put(p._unsigned(4))),
    (b"\x94", "MEMOIZE", lambda p: p._put(len(p.memo))),
    (b"\x82", "EXT1", lambda p: p._extension(1)),
    (b"\x83", "EXT2", lambda p: p._extension(2)),
    (b"\x84", "EXT4", lambda p: p._extension(4)),
    (b"c", "GLOBAL", Program._global_line),
    (b"\x93", "STACK_GLOBAL", Program._stack_global),
    (b"R", "REDUCE", Program._reduce),
    (b"b", "BUILD", Program._build),
    (b"i", "INST", Program._instance),
    (b"o", "OBJ", Program._object),
    (b"\x81", "NEWOBJ", Program._reduce),
    (b"\x92", "NEWOBJ_EX", Program._new_with_keywords),
    (b"\x80", "PROTO", Program._protocol),
    (b"\x95", "FRAME", Program._frame),
    (b"P", "PERSID", lambda p: p._refer(p._text_line())),
    (b"Q", "BINPERSID", lambda p: p._refer(p._pop())),
)

_OPERATIONS = {code[0]: operation for code, _, operation in _TABLE}
_NAMES = {**{code[0]: name for code, name, _ in _TABLE}, _STOP: "STOP"}
