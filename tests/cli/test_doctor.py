"""The doctor: what it tells of an installation, and that its self-test finds what is wrong."""

import json
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

from yolojax.bench import self_test
from yolojax.cli import doctor


def test_it_tells_versions_devices_caches_and_packages(yolojax, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    (tmp_path / "program").write_bytes(bytes(1_500_000))
    monkeypatch.setenv("YOLOJAX_COMPILATION_CACHE", str(tmp_path / "kept"))
    ended = yolojax("doctor", "--no-test")
    assert f"index of data sets: {tmp_path / 'kept' / 'data-index'} (empty)" in ended.out
    assert ended.code == 0 and ended.err == "" and "self-test" not in ended.out
    for said in ("yolojax ", "jaxlib ", "cpu 0: cpu", f"{tmp_path} (1 files, 1.5 MB)", "train --log tensorboard"):
        assert said in ended.out


def test_optional_packages_are_those_of_the_extras():
    """An extra that nobody is told of is not found; some are for developers."""
    root = Path(__file__).resolve().parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {entry.extra for entry in doctor.OPTIONAL} == set(extras) - {"test", "docs", "fuzz"}


def test_checks_that_cost_little_are_right():
    outcomes = list(self_test.run_checks(("convolution", "suppression", "evaluation", "export")))
    assert [outcome.name for outcome in outcomes if not outcome.right] == [] and len(outcomes) == 4


@pytest.mark.slow  # a whole training step is compiled
def test_the_whole_self_test_is_right(yolojax):
    found = json.loads(yolojax("doctor", "--json").out)
    assert [check["name"] for check in found["self_test"]] == list(self_test.CHECKS)
    assert [check for check in found["self_test"] if not check["right"]] == []


def test_a_wrong_answer_is_found(yolojax, monkeypatch):
    broken = self_test.nms
    monkeypatch.setattr(self_test, "nms", lambda boxes, *rest: broken(jnp.roll(boxes, 1, 0), *rest))
    monkeypatch.setattr(self_test, "CHECKS", {"suppression": self_test.check_suppression})
    ended = yolojax("doctor")
    assert ended.code == 2 and "does not compute right: suppression" in ended.out


def test_an_exception_counts_as_a_wrong_answer(monkeypatch):
    monkeypatch.setattr(self_test, "CHECKS", {"broken": lambda: 1 // 0})
    (outcome,) = self_test.run_checks()
    assert not outcome.right and outcome.said.startswith("ZeroDivisionError")
