"""The command ``yolojax``, also as ``python -m yolojax``: here a Ctrl-C is caught from the first moment on.

Importing JAX takes a second, and an exception that a signal raises while modules are imported may be swallowed by the
code that imports them. So the signal ends the program at once then: nothing has been written yet.
"""

import contextlib
import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""128 plus the number of the signal, as a shell counts."""

_arrived = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the program while modules are imported; otherwise raises `KeyboardInterrupt`, as Python does."""
    global _arrived
    _arrived = True
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def _end() -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads the output any more
        # `sys.stderr` may be a buffer at that moment, in which the parser's words are caught.
        print("yolojax: interrupted", file=sys.__stderr__, flush=True)
    os._exit(INTERRUPTED)


def run() -> int:
    """Runs the command line and returns its exit code."""
    with contextlib.suppress(ValueError):  # in another thread than the main one signals are not ours
        signal.signal(signal.SIGINT, _interrupt)
    try:
        from yolojax.cli import main

        code = main()
    except KeyboardInterrupt:
        _end()
        raise
    if _arrived and code == 0:  # swallowed by a callback of some library
        _end()
    return code


if __name__ == "__main__":
    sys.exit(run())
