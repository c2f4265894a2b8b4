"""Joining a job of several processes, and what a process does when another is lost."""

import json

import jax
import numpy as np
import pytest

from yolojax.data import build_cache, device_batches, local_rows, onto_devices, shapes_dataset, uniform_sampler
from yolojax.errors import ConfigError, LostProcessError
from yolojax.geometry import Preprocess
from yolojax.sharding import processes


@pytest.fixture
def job(monkeypatch):
    def set_variables(*values):
        for name, value in zip(processes.VARIABLES, values, strict=True):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        return processes.job_of_environment()

    return set_variables


def test_the_environment_describes_a_job_or_none(job):
    assert job(None, None, None) is None
    assert job("127.0.0.1:99", "4", "3") == ("127.0.0.1:99", 4, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("h:1", "2", None), "YOLOJAX_PROCESS is not set"),
        (("h:1", "two", "0"), "whole numbers"),
        (("h:1", "2", "2"), "below the number"),
        (("h", "2", "0"), "HOST:PORT"),
    ],
)
def test_half_a_job_is_refused_by_name(job, values, message):
    with pytest.raises(ConfigError, match=message):
        job(*values)


def test_one_process_is_the_first_and_agrees_with_itself():
    assert processes.is_first() and processes.any_process(True) and not processes.any_process(False)
    assert processes.first_of(3.25) == 3.25
    processes.wait_for_all("nobody")


def test_a_lost_connection_is_named_in_a_job_only(monkeypatch):
    def fail():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer\nmore")

    with pytest.raises(jax.errors.JaxRuntimeError), processes.noticing_lost_processes("resume"):
        fail()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(LostProcessError, match=r"process 0 of 2 lost another.*closed by peer.*go on with it"),
        processes.noticing_lost_processes("go on with it"),
    ):
        fail()


def test_batches_lie_split_on_the_devices_in_the_samplers_order():
    cache = build_cache(shapes_dataset(6, size=(32, 32)), (32, 32), Preprocess())
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    sampler = uniform_sampler(6, 4)
    np.testing.assert_array_equal(local_rows(split, 4), np.arange(4))
    batches = device_batches(cache, sampler, 5, 4, split, first_step=2)
    for step in (2, 3, 4):
        ids, batch = next(batches)
        np.testing.assert_array_equal(ids, cache.image_ids[sampler(5, step)])
        np.testing.assert_array_equal(batch.images, cache.images[sampler(5, step)])
        assert all(leaf.sharding == split for leaf in jax.tree.leaves(batch))
    assert onto_devices(batch.images, split, 4) is batch.images  # from a device cache: nothing to move


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_after_one_was_killed(tmp_path):
    """The study at its smallest; `python -m experiments.scale_out` records it."""
    from experiments.scale_out import jobs
    from yolojax.data import write_yolo

    data = tmp_path / "data"
    write_yolo({p: shapes_dataset(n, size=(64, 64), split=p) for p, n in (("train", 96), ("val", 24))}, data)
    # At full length: the warm-up of a short run ends within its first steps, and large steps magnify rounding.
    with jobs.started(data, tmp_path / "one") as child:
        code, text = child.end(300)
    assert code == 0, text
    one = json.loads((tmp_path / "one.json").read_text())
    assert [code for code, _ in jobs.together(data, tmp_path / "two")] == [0, 0]
    two, other = (json.loads((tmp_path / name).read_text()) for name in ("two.json", "two.1.json"))
    assert two == other
    np.testing.assert_allclose(two["losses"][:10], one["losses"][:10], rtol=1e-4)
    ends = jobs.together(data, tmp_path / "killed", kill=1)
    assert ends[0][0] == 2 and "lost another" in ends[0][1], ends
    assert [code for code, _ in jobs.together(data, tmp_path / "killed", resume=True)] == [0, 0]
    assert json.loads((tmp_path / "killed.json").read_text())["AP"] == two["AP"]
