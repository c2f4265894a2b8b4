"""The named errors. A command turns each into one line and exit code 2; a library user can catch `YolojaxError`."""

import reprlib

_LONGEST_MESSAGE = 1500


class YolojaxError(Exception):
    """Something is wrong with what the user gave. The message says what, where, and how to mend it.

    Of a message of more than 1500 characters, which only foreign input makes so long, the middle is left out.
    """

    def __str__(self) -> str:
        text = super().__str__()
        half = _LONGEST_MESSAGE // 2
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


class DataError(YolojaxError):
    """A data set, annotation or image file is missing, unreadable or contradicts itself."""


class ConfigError(YolojaxError):
    """A setting is unknown, out of range or contradicts another one."""


class CheckpointError(YolojaxError):
    """A checkpoint or weight file is missing, damaged, or does not fit the detector it is loaded into."""


class NonFiniteError(YolojaxError):
    """The loss or a gradient became NaN or infinite; training stopped before the state was overwritten."""


class LostProcessError(YolojaxError):
    """Another process of a job over several is gone; what was saved last is whole."""


class WriteError(YolojaxError):
    """A file cannot be written: the disk is full or refuses, or a folder is in its place."""


class ResultError(YolojaxError):
    """A detection result cannot be evaluated: not finite, malformed, or about unknown images or classes."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: the run saved where it was and stopped. Like Ctrl-C, this is no failure of the program."""


class _Bounded(reprlib.Repr):
    """Formats a few elements of a few levels of a value; an alias of YAML may stand for billions of them."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 4
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of more than 4300 digits."""
        return repr(x) if x.bit_length() < 200 else f"an integer of {x.bit_length()} bits"

    def repr_instance(self, x: object, level: int) -> str:
        """The values that files hold are plain, as are NumPy's numbers; of anything else the type says enough."""
        shape, item = getattr(x, "shape", None), getattr(x, "item", None)
        if shape == () and item is not None:
            return self.repr1(item(), level - 1)
        if isinstance(shape, tuple):
            return f"an array of shape {list(shape)}"
        return repr(x) if isinstance(x, float | complex | bool | None) else f"a {type(x).__name__}"


def shown(value: object, most: int = 80) -> str:
    """``repr`` of a value that was read from a file, for a message: at most ``most`` characters, in bounded time.

    Example:
      >>> shown([1, 2, 3, 4, 5, 6])
      '[1, 2, 3, 4, ...]'
    """
    text = repr(value[: most + 1]) if isinstance(value, str | bytes) else _Bounded().repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def shortened(text: str, most: int = 300) -> str:
    """A text of foreign origin on one line, at most ``most`` characters of it."""
    plain = " ".join(text[: 4 * most].split())
    return plain if len(plain) <= most else plain[: most - 3] + "..."
