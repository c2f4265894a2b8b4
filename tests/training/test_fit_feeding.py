"""Whole runs, fed in every way: where images are kept changes nothing, and several sizes cost one program each."""

import json

import jax
import numpy as np
import pytest

from yolojax.config import AugmentConfig, DataConfig, ModelConfig, TrainConfig
from yolojax.data import shapes_dataset, write_yolo
from yolojax.training.augmentation import size_index_at, sizes_around
from yolojax.training.fit import fit

SMALL = {"widths": (4, 4, 8), "depths": (0, 0, 0), "head_width": 8, "reg_max": 4, "shared_head": True}
PLAIN = AugmentConfig(scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0)
TIMES = ("seconds", "images_per_second", "waiting_share", "device_memory")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set on disk with a training part only."""
    place = tmp_path_factory.mktemp("data") / "set"
    write_yolo({"train": shapes_dataset(16, size=(64, 64))}, place)
    return place


class Heard:
    """A reporter that remembers what was said."""

    def __init__(self):
        self.lines = []

    from contextlib import contextmanager

    @contextmanager
    def task(self, description, total):
        yield lambda done, note="": None

    def say(self, line):
        self.lines.append(line)


def run(folder, out, *, cache="memory", epochs=2, **model):
    data = DataConfig(path=str(folder), cache=cache, cache_folder=str(out.parent / "cache"))
    model = ModelConfig(name="compact", size=64, options=SMALL, **model)
    heard = Heard()
    config = TrainConfig(data=data, model=model, augment=PLAIN, epochs=epochs, batch_size=8, checkpoint_every=0)
    made = fit(config, out, reporter=heard)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return made, [{k: v for k, v in row.items() if k not in TIMES} for row in rows], "\n".join(heard.lines)


@pytest.mark.slow
def test_where_images_are_kept_changes_no_byte(folder, tmp_path):
    kinds = {"memory": "kept in memory", "device": "device memory", "disk": "mapped into memory", "stream": "decoded"}
    weights, logs = {}, {}
    for kind, says in kinds.items():
        made, logs[kind], lines = run(folder, tmp_path / kind, cache=kind)
        assert says in lines
        weights[kind] = jax.tree.leaves(made.variables)
    assert list((tmp_path / "cache").iterdir())  # the one on disk
    for kind in kinds:
        assert logs[kind] == logs["memory"], kind
        for a, b in zip(weights[kind], weights["memory"], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=kind)


@pytest.mark.slow
def test_several_sizes_are_one_program_each_and_change_with_the_step(folder, tmp_path):
    made, rows, lines = run(folder, tmp_path / "run", epochs=15, multi_scale=3, multi_scale_range=0.5)
    sizes = sizes_around((64, 64), 3, 0.5, made.detector.spec.strides[-1])
    assert sizes == ((32, 32), (64, 64), (96, 96)) and "training at 32 x 32, 64 x 64, 96 x 96" in lines
    seen = {size_index_at(0, step, 3) for step in range(30)}
    assert len(seen) > 1 and made.programs == len(seen)
    assert rows[-1]["programs"] == len(seen) and rows[-1]["recompilations"] == 0
