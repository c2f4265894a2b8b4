"""The callbacks that ship, and what callbacks cost."""

import struct

import numpy as np
import pytest

from tests.training.own_detectors import tuple_detector
from tests.training.test_own_detector import CONFIG, DATA
from yolojax.errors import ConfigError
from yolojax.training.callbacks import EvaluationReport, Pictures, reads_state
from yolojax.training.fit import fit
from yolojax.training.loggers import TensorBoard


def scalars(folder):
    """All scalars of an event file, by name, as lists of (step, value): TFRecords of serialised events."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)  # then a checksum of 4 bytes, the event, and another
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 12 + length + 4
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_gets_what_the_log_has(tmp_path):
    pytest.importorskip("tensorboardX")
    rows = []
    watch = lambda event: rows.append((event.kind, event.step, event.row))  # noqa: E731
    fit(CONFIG, tmp_path / "run", data=DATA, detector=tuple_detector(), callbacks=[watch, TensorBoard()])
    found = scalars(tmp_path / "run" / "tensorboard")
    steps = [(step, row["train/loss"]) for kind, step, row in rows if kind == "step"]
    epochs = [(step, row["train/loss"]) for kind, step, row in rows if kind == "epoch"]
    np.testing.assert_allclose(found["step/train/loss"], steps, rtol=1e-6)
    np.testing.assert_allclose(found["train/loss"], epochs, rtol=1e-6)
    assert found["val/AP"][0][0] == 8 and len(found["learning_rate"]) == 4


def test_tensorboard_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"pip install 'yolojax\[tensorboard\]'"):
        TensorBoard()


def test_only_a_callback_that_may_read_states_keeps_them():
    assert not reads_state([EvaluationReport(), Pictures()]) and reads_state([Pictures(), print])
