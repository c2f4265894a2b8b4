"""The named errors. A command turns each into one line and exit code 2; a library user can catch `YolojaxError`."""


class YolojaxError(Exception):
    """Something is wrong with what the user gave. The message says what, where, and how to mend it."""


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
