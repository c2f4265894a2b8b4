"""A batch that is split over devices: the same numbers, and no collective from what treats images one by one."""

import re

import jax
import numpy as np
import pytest

from yolojax import zoo
from yolojax.augment import compose, random_flip
from yolojax.config import OptimiserConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.inference.evaluate import make_detect_batch
from yolojax.sharding.by_image import with_loss_by_image
from yolojax.structures import Hyper, hyper_as_arrays
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step

TINY = {"widths": [8, 8, 16], "depths": [0, 0, 0], "head_width": 8, "reg_max": 4}
COLLECTIVES = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)[a-z-]*\(")


@pytest.fixture(scope="module")
def detector():
    return zoo.build("compact", tuple("abcdef"), (32, 32), **TINY)


@pytest.fixture(scope="module")
def shardings():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.NamedSharding(mesh, jax.P()), jax.NamedSharding(mesh, jax.P("data"))


@pytest.fixture(scope="module")
def batch(detector):
    return build_cache(shapes_dataset(4, size=(32, 32)), (32, 32), detector.spec.preprocess).batch(np.arange(4))


@pytest.fixture(scope="module")
def program(detector, shardings, batch):
    replicated, split = shardings
    step = make_train_step(
        with_loss_by_image(detector, split),
        OptimiserConfig(),
        compose([random_flip(0.5)]),
        jax.random.key(0),
    )
    state = jax.eval_shape(lambda: make_state(detector, OptimiserConfig(), 10, jax.random.key(0)))
    jitted = jax.jit(step, in_shardings=(replicated, split, replicated), out_shardings=replicated)
    return jitted.lower(state, batch, hyper_as_arrays(Hyper())).compile()


def collectives(text: str) -> list[tuple[str, str, str]]:
    """Kind, shape and origin of every collective of a compiled program."""
    found = []
    for line in text.splitlines():
        if match := COLLECTIVES.search(line):
            origin = re.search(r'op_name="([^"]*)"', line)
            found.append(
                (match.group(1), line.split("=")[1].split(match.group(1))[0], origin.group(1) if origin else "")
            )
    return found


def test_the_step_communicates_sums_only(program):
    found = collectives(program.as_text())
    assert sum(kind == "all-reduce" for kind, _, _ in found) >= 10  # gradients and BatchNorm; else this sees nothing
    for kind, shape, origin in found:
        assert not re.search(r"top_k|while|sort|scatter|gather", origin), (kind, shape, origin)
        if kind != "all-reduce":
            # The report's loss of each image, which every process reads: four numbers.
            assert kind == "all-gather" and shape.strip().startswith("f32[4]"), (kind, shape, origin)


def test_loss_and_gradient_are_those_of_one_device(detector, shardings, batch, program):
    hyper, key = hyper_as_arrays(Hyper()), jax.random.key(0)
    state = jax.jit(lambda key: make_state(detector, OptimiserConfig(), 10, key))(key)
    alone = make_train_step(
        detector,
        OptimiserConfig(),
        compose([random_flip(0.5)]),
        key,
    )
    wanted, report = jax.jit(alone)(state, batch, hyper)
    found, other = program(*jax.device_put((state, batch, hyper), (shardings[0], shardings[1], shardings[0])))
    np.testing.assert_allclose(other.loss, report.loss, rtol=1e-5)
    np.testing.assert_allclose(other.image_loss, report.image_loss, rtol=1e-4)
    np.testing.assert_allclose(other.gradient_norm, report.gradient_norm, rtol=1e-4)
    assert {k: float(v) for k, v in other.counts.items()} == {k: float(v) for k, v in report.counts.items()}
    moved = [
        float(np.abs(np.asarray(a) - np.asarray(b)).max())
        for a, b in zip(jax.tree.leaves(found.ema), jax.tree.leaves(wanted.ema), strict=True)
    ]
    assert max(moved) < 1e-3


def test_shared_divisors_stay_shared(detector, shardings, batch):
    """Accumulation takes one gradient for each different divisor, and tells them apart by identity."""
    split_up = with_loss_by_image(detector, shardings[1])

    def terms(batch):
        images = batch.images.astype(np.float32) / 255
        variables = detector.init(jax.random.key(0))
        outputs, _ = detector.forward_train(variables, images, batch.targets, jax.random.key(0))
        counted.append(len({id(x) for x in split_up.loss(outputs, batch.targets, Hyper()).normalisers.values()}))
        return outputs

    counted = []
    jax.eval_shape(terms, batch)
    assert counted == [1]


def test_detections_need_no_communication_but_their_collection(detector, shardings, batch):
    variables = detector.init(jax.random.key(0))
    arguments = (variables, batch.images, np.float32(0.001), np.float32(0.7))
    alone = jax.device_get(make_detect_batch(detector, 20)(*arguments))
    split_up = make_detect_batch(detector, 20, shardings[1])
    found = jax.device_get(split_up(*arguments))
    np.testing.assert_array_equal(found.classes, alone.classes)
    np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
    text = split_up.program.lower(*arguments).compile().as_text()
    assert {kind for kind, _, _ in collectives(text)} <= {"all-gather", "all-reduce"}
    for _, shape, origin in collectives(text):
        assert re.match(r"\s*\(?(f32|s32|pred)\[4(,20)?(,4)?\]", shape), (shape, origin)
