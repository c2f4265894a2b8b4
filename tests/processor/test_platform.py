"""A program is made for the platform that it is lowered for, on a machine that need not have one."""

import re
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jaxtyping import Array

from tests.training.toy import Head, Part, toy_batch, toy_loss
from yolojax.augment import random_hsv
from yolojax.config import OptimiserConfig
from yolojax.detector import DetectorSpec
from yolojax.models import layers
from yolojax.models.layers import ConvBNAct, Style
from yolojax.models.network import Network
from yolojax.postprocess import postprocess
from yolojax.processor.convolution import COLUMNS_CHANNELS, plain
from yolojax.processor.platform import by_platform, for_platform
from yolojax.structures import Candidates, Hyper, hyper_as_arrays
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step
from yolojax.zoo import flax_detector

CONFIG = OptimiserConfig()

pytestmark = pytest.mark.any_platform


@pytest.fixture(autouse=True)
def nobody_asks_for_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError("a lowering was chosen while the program was traced")

    monkeypatch.setattr(jax, "default_backend", fail)


def lowered(function, arguments, platform: str) -> str:
    """The program that is handed to the compiler of a platform."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


class Backbone(nn.Module):
    """A convolution of each kind that has a lowering of its own for a processor: strided, depthwise and 1x1."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = ConvBNAct(COLUMNS_CHANNELS, 3, 2)(x, train)
        x = ConvBNAct(COLUMNS_CHANNELS, 3, 2)(x, train)
        x = ConvBNAct(COLUMNS_CHANNELS, 3, 1, groups=COLUMNS_CHANNELS)(x, train)
        return ConvBNAct(4, 1)(x, train)


def training_step(platform: str, accumulate: int) -> Counter:
    """The operations in a training step with colour jitter."""
    spec = DetectorSpec("small", ("thing",), (16, 16), (4,))
    network = Network(Backbone(), Part(1, Style()), Head("float32"))
    detector = flax_detector(spec, network, toy_loss, lambda outputs: Candidates(*outputs))
    state = jax.eval_shape(lambda: make_state(detector, CONFIG, 10, jax.random.key(0)))
    batch = toy_batch(size=4)._replace(images=jnp.zeros((4, 16, 16, 3), jnp.uint8))
    hyper = hyper_as_arrays(Hyper()._replace(**detector.spec.hyper))
    step = make_train_step(detector, CONFIG, random_hsv(0.1, 0.1, 0.1), jax.random.key(1), accumulate=accumulate)
    return Counter(re.findall(r"stablehlo\.(\w+)", lowered(step, (state, batch, hyper), platform)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_step_for_a_gpu_holds_no_lowering_for_a_processor(monkeypatch, accumulate):
    found = training_step("cuda", accumulate)
    monkeypatch.setattr(layers, "convolve", plain)
    want = training_step("cuda", accumulate)
    for name in ("convolution", "dot_general", "optimization_barrier", "concatenate"):
        assert found[name] == want[name], name
    # Values and both gradients of six layers.
    assert found["convolution"] > 12


def test_only_forms_that_can_run_are_traced():
    """Of a choice within a choice two forms are, and one where the platform is known; the values are those of it."""
    traced = []

    def form(name, factor, inner=None):
        def run(x):
            traced.append(name)
            return inner(x * factor) if inner else x * factor

        return run

    def choice(x, inner=None):
        return by_platform(x, cpu=form("cpu", 2.0, inner), default=form("default", 3.0, inner))

    nested = partial(choice, inner=choice)
    assert jax.jit(nested)(1.0) == 4.0 and traced == ["cpu", "cpu", "default", "default"]
    for platform, name, value in (("cpu", "cpu", 4.0), ("gpu", "default", 9.0)):
        traced.clear()
        # The same function once more: what JAX remembers of its trace belongs to another platform.
        assert jax.jit(for_platform(platform, nested))(1.0) == value and traced == [name, name]


def test_suppression_is_chosen_for_the_platform():
    candidates = Candidates(jnp.zeros((2, 600, 4)), jnp.zeros((2, 600, 3)))
    texts = {
        platform: lowered(lambda boxes, scores: postprocess(Candidates(boxes, scores), 0.1, 0.5), candidates, platform)
        for platform in ("cpu", "cuda", "tpu")
    }
    # A processor sorts lone integers; the others sort pairs of a key and a position.
    for platform, text in texts.items():
        sorts = set(re.findall(r'"stablehlo\.sort"\(([^)]*)\)', text))
        assert sorts
        assert {operands.count(",") for operands in sorts} == ({0} if platform == "cpu" else {1})
