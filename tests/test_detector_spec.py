"""The description of a detector: sequences of any kind become tuples, so that descriptions compare."""

import subprocess
import sys

PROGRAM = """
from yolojax.detector import DetectorSpec
from yolojax.errors import ConfigError

spec = DetectorSpec("mine", ["cat", "dog"], [64, 96], [8, 16])
print(spec == DetectorSpec("mine", ("cat", "dog"), (64, 96), (8, 16)))
for names, size in (("cat", (64, 64)), (("cat",), 64)):
    try:
        DetectorSpec("mine", names, size, (8,))
    except ConfigError as error:
        print(error)
"""


def test_sequences_become_tuples_and_anything_else_is_named():
    """In a process of its own: in this one, types are checked before the constructor runs."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ended.stdout.splitlines() == [
        "True",
        "DetectorSpec: class_names = 'cat': give a tuple",
        "DetectorSpec: input_size = 64: give a tuple",
    ], ended.stderr
