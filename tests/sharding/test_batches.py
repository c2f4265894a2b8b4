"""A batch that is split over devices: the same numbers, and no collective from what treats images one by one."""

import re

import jax
import numpy as np
import pytest

from yolojax import zoo
from yolojax.augment import compose, random_flip
from yolojax.config import OptimiserConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.image_wise import image_wise, split_over
from yolojax.inference.evaluate import make_detect_batch
from yolojax.sharding.batches import on_split_batches
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
    return compiled_step(detector, shardings, batch)


def compiled_step(detector, shardings, batch):
    replicated, split = shardings
    step = make_train_step(
        on_split_batches(detector, split),
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
    check_sums_only(program)


QUERIES = {"scale": "atto", "queries": 12, "denoising": 4}
PROPOSALS = {"depth": 18, "width": 4, "channels": 8, "hidden": 8, "anchor_sizes": [8.0, 16.0, 32.0, 64.0, 128.0]}
PROPOSALS |= {"proposals": 12, "training_proposals": 16, "first_sample": 32, "second_sample": 16}


@pytest.mark.slow  # two to four minutes each
@pytest.mark.parametrize(("name", "options"), [("deimv2", QUERIES), ("fasterrcnn", PROPOSALS)])
def test_so_it_is_where_the_network_chooses_queries_or_proposals(name, options, shardings):
    detector = zoo.build(name, tuple("abcdef"), (64, 64), **options)
    images = build_cache(shapes_dataset(4, size=(64, 64)), (64, 64), detector.spec.preprocess)
    check_sums_only(compiled_step(detector, shardings, images.batch(np.arange(4))))


def check_sums_only(program):
    found = collectives(program.as_text())
    assert sum(kind == "all-reduce" for kind, _, _ in found) >= 10  # gradients and BatchNorm; else this sees nothing
    for kind, shape, origin in found:
        assert not re.search(r"top_k|while|sort|scatter|gather", origin), (kind, shape, origin)
        if kind != "all-reduce":
            # The report's loss of each image, which every process reads: four numbers.
            assert kind == "all-gather" and shape.strip().startswith("f32[4]"), (kind, shape, origin)


def test_what_treats_images_one_by_one_needs_no_communication(shardings):
    split = shardings[1]

    def best(x, weights):
        return image_wise(lambda x, weights: jax.lax.top_k(x * weights[None], 3), x, weights, shared=1)

    def known(x, weights):
        with split_over(split):
            return best(x, weights)

    x, weights = jax.random.normal(jax.random.key(0), (4, 50)), jax.random.normal(jax.random.key(1), (50,))
    compiled = [jax.jit(f, in_shardings=(split, shardings[0])).lower(x, weights).compile() for f in (best, known)]
    collected, alone = (collectives(program.as_text()) for program in compiled)
    assert {kind for kind, *_ in collected} == {"all-gather"} and not alone
    found = compiled[1](jax.device_put(x, split), jax.device_put(weights, shardings[0]))
    jax.tree.map(np.testing.assert_array_equal, found, jax.lax.top_k(x * weights[None], 3))
    slope = jax.grad(lambda x: known(x, weights)[0].sum())(x)
    np.testing.assert_array_equal(slope, jax.grad(lambda x: best(x, weights)[0].sum())(x))


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
    split_up = on_split_batches(detector, shardings[1])

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
