"""Activations that are computed again: the same step, fewer bytes kept, and the best places to cut."""

import functools
import itertools
import json
import math
import warnings
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.own_detectors import tuple_detector
from tests.training.toy import toy_batch, toy_detector
from tests.zoo.test_queries_fit import MODELS
from tests.zoo.test_two_stage import SMALL
from yolojax import zoo
from yolojax.augment import compose
from yolojax.config import OptimiserConfig, Remat
from yolojax.errors import ConfigError
from yolojax.structures import Hyper, Targets, hyper_as_arrays
from yolojax.training import remat
from yolojax.training.remat import (
    Life,
    crossing,
    cut,
    in_segments,
    keep_products,
    least_kept,
    remat_function,
    within,
)
from yolojax.training.run_directory import read_config
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step, whole_gradient

CONFIG = OptimiserConfig(warmup_steps=0, schedule="constant", ema_decay=0.5)
HYPER = hyper_as_arrays(Hyper(learning_rate=0.01, weight_decay=0.1))
WIDTH, LAYERS = 32, 24
KEY = jax.random.key(0)
KINDS = ("none", "activations", "segments")
TARGETS = toy_batch(size=2).targets


def chain(variables, images, targets, key):
    """A network without Flax: equal layers, an early one of which the last reads too."""
    x = early = images[:, :, 0, 0]
    for index, weight in enumerate(variables["params"]):
        x = jnp.tanh(x @ weight)
        early = x if index == 1 else early
    return x + early, {"seen": variables["seen"] + 1}


def chain_variables():
    weights = [jax.random.normal(jax.random.key(i), (WIDTH, WIDTH)) / math.sqrt(WIDTH) for i in range(LAYERS)]
    return {"params": weights, "seen": jnp.int32(0)}


def residual_bytes(forward_train, variables, images):
    """Bytes that the backward pass reads: the leaves of the function that `jax.vjp` returns, without the parameters."""

    def backward(params):
        return jax.vjp(lambda params: forward_train({**variables, "params": params}, images, TARGETS, KEY), params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, variables["params"]))
    given = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables["params"]))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) - given


@functools.cache
def after_a_step(make, **settings):
    """The state of a detector after one step from its initial values."""
    state = make_state(make(), CONFIG, 10, KEY)
    step = jax.jit(make_train_step(make(), CONFIG, compose([]), jax.random.key(1), **settings))
    return step(state, toy_batch(), HYPER)[0]


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"freeze": ("backbone",)}])
@pytest.mark.parametrize("kind", ["activations", "segments"])
def test_what_is_computed_again_changes_no_step(kind, settings):
    want, got = after_a_step(toy_detector, **settings), after_a_step(toy_detector, remat=kind, **settings)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(same, got.variables, want.variables)


@pytest.mark.parametrize("kind", ["activations", "segments"])
def test_a_network_of_plain_functions_gives_the_same_and_its_collections_move(kind):
    variables, images = chain_variables(), jax.random.normal(KEY, (8, WIDTH, 1, 3))

    def loss(params, forward_train):
        outputs, new = forward_train({**variables, "params": params}, images, TARGETS, KEY)
        return jnp.sum(jnp.square(outputs)), new

    of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    want, got = of(variables["params"], chain), of(variables["params"], remat_function(kind)(chain))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), got, want)
    assert int(got[0][1]["seen"]) == 1


def test_a_detector_of_the_zoo_keeps_fewer_bytes_of_each_kind():
    shape = {"widths": (4, 4, 8), "depths": (0, 0, 1), "head_width": 8, "reg_max": 4, "shared_head": True}
    detector = zoo.build("compact", ("thing",), (64, 64), **shape)
    variables = jax.jit(detector.init)(KEY)
    images = jnp.zeros((8, 64, 64, 3))
    plain, activations, segments = (
        residual_bytes(wrap(detector.forward_train), variables, images) for wrap in map(remat_function, KINDS)
    )
    assert activations < 0.6 * plain and segments < 0.8 * plain


def test_of_equal_layers_about_the_square_root_is_kept():
    """24 layers cut into s segments keep s - 1 values and those of one segment, 24 / s (Chen et al., section 4.1)."""
    variables, images = chain_variables(), jnp.zeros((4096, WIDTH, 1, 3))
    layer = images[..., 0, 0].nbytes
    bounds = [0, *cut(jax.make_jaxpr(chain)(variables, images, TARGETS, KEY).jaxpr)]
    assert 3 <= len(bounds) <= 9
    assert residual_bytes(chain, variables, images) >= LAYERS * layer
    # Each segment keeps what it reads: the first the images, the others the value before them, the last an early one.
    assert residual_bytes(in_segments(chain), variables, images) <= images.nbytes + len(bounds) * layer


def test_of_images_what_the_network_reads_is_kept():
    def narrow(variables, images, targets, key):
        x = images.astype(jnp.bfloat16)
        return jnp.sin(jnp.sin(jnp.sin(x @ variables["params"]) @ variables["params"])), {}

    variables, images = {"params": jnp.ones((3, 3), jnp.bfloat16)}, jnp.ones((2, 8, 8, 3))
    # The images and one value of their shape, both in bfloat16.
    assert residual_bytes(in_segments(narrow), variables, images) <= images.nbytes
    np.testing.assert_array_equal(
        in_segments(narrow)(variables, images, TARGETS, KEY)[0], narrow(variables, images, TARGETS, KEY)[0]
    )


@pytest.mark.parametrize(
    "one", [jnp.matmul, lambda images, params: images * params[0, 0], lambda images, params: images]
)
def test_a_network_of_one_operation_or_none_is_not_cut(one):
    def forward_train(variables, images, targets, key):
        return one(images, variables["params"]), {}

    arguments = {"params": jnp.ones((3, 3))}, jnp.ones((2, 1, 3, 3)), TARGETS, KEY
    assert cut(jax.make_jaxpr(forward_train)(*arguments).jaxpr) == []
    with pytest.warns(UserWarning, match="remat = segments: no cut of this network would save memory"):
        found = in_segments(forward_train)(*arguments)[0]
    np.testing.assert_array_equal(found, forward_train(*arguments)[0])


def test_outputs_that_are_arguments_or_constants_pass():
    def forward_train(variables, images, targets, key):
        return (images, jnp.sin(jnp.sin(images) @ variables["params"]), 2.0), {"stays": variables["stays"]}

    arguments = {"params": jnp.ones((3, 3)), "stays": jnp.arange(3)}, jnp.ones((2, 1, 1, 3)), TARGETS, KEY
    want, got = forward_train(*arguments), jax.jit(in_segments(forward_train))(*arguments)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, want)


@pytest.mark.any_platform
def test_the_choice_of_a_platform_is_never_cut_from_what_it_chooses(monkeypatch):
    """A choice that reaches its operation as a number is no longer known when the program is lowered."""
    detector = zoo.build("compact", ("thing",), (64, 64), widths=(4, 4, 8), depths=(0, 0, 1), head_width=8, reg_max=4)
    variables = jax.jit(detector.init)(KEY)
    jaxpr = jax.make_jaxpr(detector.forward_train)(variables, jnp.zeros((2, 64, 64, 3)), TARGETS, KEY).jaxpr
    chosen = [index for index, equation in enumerate(jaxpr.eqns) if equation.primitive.name == "platform_index"]
    monkeypatch.setattr(remat, "CHEAP", remat.CHEAP - {"platform_index"})
    assert chosen and not {index + 1 for index in chosen} & set(cut(jaxpr))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_least_crosses_the_cuts_of_all_within_a_budget(data):
    """Against every choice of places, by the definition of what memory holds when the backward pass is at a segment."""
    count = data.draw(st.integers(1, 7))
    lives = [Life(made, data.draw(st.integers(made, count - 1)), data.draw(st.integers(0, 9))) for made in range(count)]
    work = np.array(data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))

    def costs(cuts):
        bounds, needs = [0, *cuts, count], []
        for start, stop in itertools.pairwise(bounds):
            needs.append(
                kept([place for place in cuts if place <= start]) + work[start:stop].sum() + work[start:stop].max()
            )
        return kept(cuts), max(needs)

    def kept(cuts):
        return sum(life.size for life in lives if any(life.made < place <= life.read for place in cuts))

    places, budget = range(count + 1), data.draw(st.integers(2, 60))
    found = least_kept(crossing(lives, places), within(work, places), float(budget))
    choices = [choice for number in range(count) for choice in itertools.combinations(range(1, count), number)]
    allowed = [costs(choice)[0] for choice in choices if costs(choice)[1] <= budget]
    if found is None:
        assert not allowed
    else:
        assert (found.kept, found.peak) == costs(found.places)
        assert found.peak <= budget and found.kept == min(allowed)


def test_the_kinds_are_named_by_the_setting():
    assert set(remat.KINDS) == set(get_args(Remat))
    assert remat_function("activations") is keep_products and remat_function("segments") is in_segments
    assert remat_function("none")(chain) is chain
    with pytest.raises(ConfigError, match="remat = 'all': give one of none, activations, segments"):
        remat_function("all")


def test_a_compiled_function_is_cut_as_its_layers_are():
    factor = jnp.ones(WIDTH)  # closed over, inside and outside of what is compiled

    def compiled(variables, images, targets, key):
        inner = jax.jit(lambda *given: (chain(*given)[0] * factor[None], chain(*given)[1]))
        outputs, new = inner(variables, images, targets, key)
        return outputs * factor[None], new

    variables, images = chain_variables(), jax.random.normal(KEY, (64, WIDTH, 1, 3))
    assert cut(jax.make_jaxpr(compiled)(variables, images, TARGETS, KEY).jaxpr) == []
    kept = [residual_bytes(in_segments(network), variables, images) for network in (chain, compiled)]
    assert max(kept) < residual_bytes(chain, variables, images) / 2
    assert kept[1] <= kept[0] + 4 * images[..., 0, 0].nbytes
    want, got = (network(variables, images, TARGETS, KEY) for network in (chain, in_segments(compiled)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)


def test_a_loop_is_one_operation_that_weighs_all_of_its_turns():
    def loop(variables, images, targets, key):
        weights = jnp.stack(variables["params"])
        return jax.lax.scan(lambda x, weight: (jnp.tanh(x @ weight), None), images[:, :, 0, 0], weights)[0], {}

    def around(variables, images, targets, key):
        x = loop(variables, images, targets, key)[0]
        return jnp.tanh(x @ variables["params"][0]) @ variables["params"][1], {}

    variables, images = chain_variables(), jnp.ones((64, WIDTH, 1, 3))
    equations = jax.make_jaxpr(loop)(variables, images, TARGETS, KEY).jaxpr.eqns
    (scan,) = (equation for equation in equations if equation.primitive.name == "scan")
    assert remat._activations(scan) == LAYERS * 64 * WIDTH * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_segments(around)(variables, images, TARGETS, KEY)


def test_random_numbers_and_hand_written_derivatives_are_the_same_the_second_time():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, slope: (1.1 * slope,))  # wrong on purpose: it has to be this one

    def noisy(variables, images, targets, key):
        x = images[:, :, 0, 0]
        for weight, own in zip(variables["params"], jax.random.split(key, LAYERS), strict=True):
            x = double(jnp.tanh(x @ weight)) * jax.random.bernoulli(own, 0.5, x.shape)
        return x, {}

    variables, images = chain_variables(), jax.random.normal(KEY, (8, WIDTH, 1, 3))

    def loss(params, network):
        return jnp.sum(jnp.square(network({**variables, "params": params}, images, TARGETS, KEY)[0]))

    want, got = (jax.jit(jax.grad(loss), static_argnums=1)(variables["params"], n) for n in (noisy, in_segments(noisy)))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


def test_runs_of_before_there_were_two_kinds_are_read(tmp_path):
    for old, new in ((True, "activations"), (False, "none")):
        (tmp_path / "config.json").write_text(json.dumps({"remat": old}))
        assert read_config(tmp_path).remat == new


def test_a_small_network_with_tuples_as_variables_is_trained_as_without():
    detector = tuple_detector()
    variables, images = detector.init(KEY), jax.random.uniform(KEY, (2, 32, 32, 3))
    want = detector.forward_train(variables, images, TARGETS, KEY)
    with pytest.warns(UserWarning, match="no cut of this network would save memory"):
        got = in_segments(detector.forward_train)(variables, images, TARGETS, KEY)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), got, want)


CHOOSING = {"rtdetr": MODELS["rtdetr"], "fasterrcnn": SMALL["fasterrcnn"]}
"""Detectors that choose queries or proposals inside their forward pass."""


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOOSING)
def test_what_chooses_inside_its_forward_pass_has_the_same_gradient_by_segments(name):
    detector = zoo.build(name, ("cat", "dog"), (64, 64), **CHOOSING[name])
    rng = np.random.default_rng(0)
    # No two weights alike: where boxes or scores are equal, rounding decides what is chosen.
    stir = lambda x: x + rng.normal(0, 0.03, x.shape).astype(np.float32)  # noqa: E731
    variables = jax.jit(detector.init)(KEY)
    variables = {**variables, "params": jax.tree.map(stir, variables["params"])}
    boxes = jnp.array([[[8, 8, 40, 44], [30, 20, 60, 50]], [[4, 12, 50, 60], [0, 0, 0, 0]]], jnp.float32)
    valid = jnp.array([[True, True], [True, False]])
    targets = Targets(boxes, jnp.array([[0, 1], [1, 0]]), valid, jnp.zeros_like(valid), jnp.zeros(2, jnp.int32))
    images = jax.random.normal(KEY, (2, 64, 64, 3))

    def gradient(wrap):
        wrapped = detector._replace(forward_train=wrap(detector.forward_train))
        return jax.jit(functools.partial(whole_gradient, wrapped))(variables, images, targets, KEY, HYPER)

    want, got = gradient(remat.KINDS["none"]), gradient(remat.KINDS["segments"])
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want.parameters))
    same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5 * largest)
    jax.tree.map(same, got.parameters, want.parameters)
