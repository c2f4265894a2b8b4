"""Targets of a plan: their texts, their published figures, and what the compiler of a GPU is told."""

import re

import pytest

from yolojax.bench.peak import sheet_of
from yolojax.errors import ConfigError
from yolojax.planning.compilers import missing_compiler
from yolojax.planning.targets import devices, gpu_description, parse_target, slices, target_table


@pytest.mark.parametrize(
    ("text", "chips"), [("v5e:4x4", 16), ("v5p:2x2x2", 8), ("V6E:1x1", 1), ("h100", 1), ("l4:8", 8)]
)
def test_targets_are_read(text, chips):
    target = parse_target(text)
    assert target.chips == chips and parse_target(target.text) == target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v5", "known are v5e, v5p"),
        ("abacus", "known are v5e"),
        ("v5e", "TPU v5e needs a slice; give one of 1x1, 2x2"),
        ("v5e:3x3", "no slice 3x3 of TPU v5e"),
        ("h100:9", "no slice 9 of NVIDIA H100"),
        ("h100:", "needs a slice"),
        ("", "known are"),
    ],
)
def test_targets_that_do_not_exist_are_named(text, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse_target(text)


@pytest.mark.parametrize("device", devices().values(), ids=list(devices()))
def test_figures_are_those_of_the_other_table(device):
    """`yolojax.bench.peak` has the vendors' figures by the names that devices tell of themselves."""
    _, sheet = sheet_of(device.name)
    assert sheet is not None
    assert device.flops == sheet.flops
    assert device.bandwidth == pytest.approx(sheet.bandwidth, rel=0.05)
    assert device.source and device.link < device.bandwidth
    assert slices(device)[0] in ("1", "1x1", "2x2x1") and f"{device.key:<8}" in target_table()


@pytest.mark.parametrize("device", [d for d in devices().values() if d.kind == "gpu"], ids=lambda device: device.key)
def test_a_gpus_description_is_whole(device):
    text = gpu_description(device, 13)
    assert text.count("{") == text.count("}") and "None" not in text
    assert f"core_count: {device.facts['multiprocessors']}\n" in text
    assert f'device_description_str: "{device.name}"' in text and "runtime_version { major: 13 " in text


def test_a_missing_compiler_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_compiler(parse_target("v5e:2x2")) == (
        "target v5e:2x2: its compiler (libtpu) is not installed; install it with: pip install 'yolojax[plan-tpu]'"
    )
    assert str(missing_compiler(parse_target("h100"))).endswith("pip install 'yolojax[plan-gpu]'")
