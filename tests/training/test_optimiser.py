"""Schedule and optimiser against values computed by hand and against the papers' equations in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yolojax.config import OptimiserConfig, TrainConfig, check
from yolojax.detector import decay_matrices
from yolojax.errors import ConfigError
from yolojax.structures import Hyper, hyper_as_arrays
from yolojax.training.optimiser import OPTIMIZERS, ema_decay_at, make_optimiser, schedule_at, update_ema


def factors(steps, total=1000, **settings):
    at = jax.jit(jax.vmap(lambda step, total: schedule_at(OptimiserConfig(**settings), step, total), (0, None)))
    return np.asarray(at(jnp.array(steps), jnp.int32(total)))


def test_warm_up_is_linear_from_one_part_to_the_whole():
    np.testing.assert_allclose(factors([0, 1, 3, 4], warmup_steps=4), [0.2, 0.4, 0.8, 1.0], rtol=1e-6)


def test_warm_up_takes_at_most_a_tenth_of_the_run():
    np.testing.assert_allclose(factors([0, 1, 2], total=20, warmup_steps=500)[:2], [1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(factors([0], total=9, warmup_steps=500), [1.0])  # no whole step is left for it


def test_cosine():
    # Warm-up to step 100; at 550 half of the rest is done: the middle of 1 and .02. arXiv 1608.03983, equation 5.
    got = factors([100, 325, 550, 1000, 5000], warmup_steps=100, final_fraction=0.02)
    quarter = 0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2
    np.testing.assert_allclose(got, [1.0, quarter, 0.51, 0.02, 0.02], rtol=1e-5)


def test_linear_and_constant():
    got = factors([100, 550, 1000], schedule="linear", warmup_steps=100, final_fraction=0.1)
    np.testing.assert_allclose(got, [1.0, 0.55, 0.1], rtol=1e-5)
    np.testing.assert_allclose(factors([100, 1000], schedule="constant", warmup_steps=100), [1.0, 1.0])


def test_an_unknown_shape_is_refused():
    config = OptimiserConfig()
    object.__setattr__(config, "schedule", "step")
    with pytest.raises(ConfigError, match="schedule = 'step'"):
        schedule_at(config, 0, 10)


PARAMS = {
    "backbone": {
        "conv": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]])},
        "norm": {"scale": jnp.array([1.0, 2.0]), "bias": jnp.array([0.1, -0.1])},
    },
    "neck": {},
    "head": {"predict": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([4.0])}},
}


def test_only_kernels_decay():
    assert decay_matrices(PARAMS) == {
        "backbone": {"conv": {"kernel": True}, "norm": {"scale": False, "bias": False}},
        "neck": {},
        "head": {"predict": {"kernel": True, "bias": False}},
    }


def test_without_gradient_only_kernels_shrink():
    config = OptimiserConfig(warmup_steps=0, schedule="constant")
    hyper = hyper_as_arrays(Hyper(learning_rate=0.1, weight_decay=0.5))
    optimiser = make_optimiser(config, hyper)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = jax.jit(optimiser.update)(zero, optimiser.init(PARAMS), PARAMS)
    moved = optax.apply_updates(PARAMS, updates)
    for name, decays in (("conv", True), ("norm", False)):
        for leaf, value in moved["backbone"][name].items():
            np.testing.assert_allclose(value, PARAMS["backbone"][name][leaf] * (0.95 if decays else 1.0), rtol=1e-6)


def gradients(step: int) -> dict:
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), PARAMS)


def oracle(config: OptimiserConfig, hyper: Hyper, steps: int, total: int) -> dict:
    """AdamW (arXiv 1711.05101, algorithm 2) or SGD with Nesterov momentum, clipped, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
    first, second = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    b1, b2 = config.b1, config.b2
    decay = jax.tree.map(lambda masked: hyper.weight_decay if masked else 0.0, decay_matrices(PARAMS))
    for t in range(steps):
        gradient = jax.tree.map(lambda x: np.asarray(x, np.float64), gradients(t))
        norm = math.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
        gradient = jax.tree.map(lambda g, n=norm: g * min(1.0, config.clip_norm / n), gradient)
        if config.decay == "coupled":
            gradient = jax.tree.map(lambda g, p, w: g + w * p, gradient, params, decay)
        if config.name == "adamw":
            first = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, first, gradient)
            second = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, second, gradient)
            direction = jax.tree.map(
                lambda m, v, n=t + 1: m / (1 - b1**n) / (np.sqrt(v / (1 - b2**n)) + 1e-8), first, second
            )
        else:
            first = jax.tree.map(lambda m, g: config.momentum * m + g, first, gradient)
            direction = jax.tree.map(lambda m, g: config.momentum * m + g, first, gradient)
        rate = hyper.learning_rate * float(schedule_at(config, t, total))
        own = decay if config.decay == "decoupled" else jax.tree.map(lambda _: 0.0, decay)
        params = jax.tree.map(lambda p, d, w, r=rate: p - r * (d + w * p), params, direction, own)
    return params


@pytest.mark.parametrize(("name", "decay"), [("adamw", "decoupled"), ("sgd", "decoupled"), ("sgd", "coupled")])
@pytest.mark.parametrize("clip_norm", [1.5, 100.0])
def test_steps_equal_the_equations_in_float64(name, decay, clip_norm):
    """Coupled decay is that of `torch.optim.SGD(nesterov=True)`: it is added to the gradient before the momentum."""
    config = OptimiserConfig(name=name, warmup_steps=2, clip_norm=clip_norm, decay=decay)
    hyper = Hyper(learning_rate=0.05, weight_decay=0.3)
    traced = 0

    @jax.jit
    def update(gradient, state, params, hyper, step):
        nonlocal traced
        traced += 1
        optimiser = make_optimiser(config, hyper, schedule_at(config, step, 30))
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, make_optimiser(config, Hyper()).init(PARAMS)
    for t in range(6):
        params, state = update(gradients(t), state, params, hyper_as_arrays(hyper), t)
    want = oracle(config, hyper, 6, 30)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)

    # Another learning rate and decay are other values, not another program.
    changed = hyper_as_arrays(hyper._replace(learning_rate=0.01, weight_decay=0.0))
    other, _ = update(gradients(6), state, params, changed, 6)
    assert traced == 1
    assert not np.allclose(other["head"]["predict"]["kernel"], params["head"]["predict"]["kernel"])


def test_lion_equals_its_algorithm_in_float64():
    """arXiv 2302.06675, algorithm 2: the sign of one interpolation, the momentum of another."""
    config = OptimiserConfig(name="lion", b1=0.9, b2=0.99, clip_norm=100.0)
    hyper = Hyper(learning_rate=0.05, weight_decay=0.3)
    optimiser = make_optimiser(config, hyper_as_arrays(hyper))
    params, state = PARAMS, optimiser.init(PARAMS)
    want = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
    momentum = jax.tree.map(np.zeros_like, want)
    for t in range(3):
        updates, state = optimiser.update(gradients(t), state, params)
        params = optax.apply_updates(params, updates)
        sign = jax.tree.map(lambda m, g: np.sign(0.9 * m + 0.1 * g), momentum, gradients(t))
        decay = jax.tree.map(lambda masked: 0.3 if masked else 0.0, decay_matrices(PARAMS))
        want = jax.tree.map(lambda p, s, w: p - 0.05 * (s + w * p), want, sign, decay)
        momentum = jax.tree.map(lambda m, g: 0.99 * m + 0.01 * g, momentum, gradients(t))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_goes_down_a_slope(name):
    """A quadratic with its minimum at zero, by the optimisers' ordinary second moment."""
    config = OptimiserConfig(name=name, b2=0.999)
    optimiser = make_optimiser(config, hyper_as_arrays(Hyper(learning_rate=0.01, weight_decay=0.0)))

    @jax.jit
    def descend(params):
        def step(carry, _):
            params, state = carry
            updates, state = optimiser.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimiser.init(params)), length=30)[0][0]

    size = lambda tree: float(optax.tree.norm(tree))  # noqa: E731
    assert size(descend(PARAMS)) < 0.99 * size(PARAMS)


def test_the_average_forgets_the_start_soon():
    decay = jax.jit(jax.vmap(lambda step: ema_decay_at(step, 0.998)))(jnp.array([0.0, 8.0, 90.0, 1e6]))
    np.testing.assert_allclose(decay, [0.1, 0.5, 0.91, 0.998], rtol=1e-6)


def test_a_setting_that_the_optimiser_does_not_read_is_an_error():
    unread = {"sgd": {"b1": 0.8}, "adamw": {"momentum": 0.8}, "lion": {"decay": "coupled"}, "rmsprop": {"b1": 0.8}}
    for name, wrong in unread.items():
        with pytest.raises(ConfigError, match=f"optimiser.{next(iter(wrong))} = "):
            check(TrainConfig(optimiser=OptimiserConfig(name=name, **wrong)))


def test_learning_rate_and_decay_have_one_set_of_defaults():
    config, hyper = OptimiserConfig(), Hyper()
    assert (hyper.learning_rate, hyper.weight_decay) == (config.learning_rate, config.weight_decay)


def test_counters_are_not_averaged():
    old = {"mean": jnp.array([1.0]), "seen": jnp.array(3)}
    new = {"mean": jnp.array([2.0]), "seen": jnp.array(4)}
    ema = update_ema(old, new, jnp.float32(0.75))
    assert float(ema["mean"][0]) == 1.25 and int(ema["seen"]) == 4 and ema["seen"].dtype == old["seen"].dtype


@pytest.mark.parametrize("form", ["leaf by leaf", "one for each branch"])
def test_parts_have_learning_rates_of_their_own(form):
    """AdamW with decay, two steps: the parts move by their multiple of the common rate, and a rate of 0 stops them."""

    def rates(params):
        if form == "one for each branch":
            return RATES
        return {part: jax.tree.map(lambda _, by=by: by, params[part]) for part, by in RATES.items()}

    @jax.jit
    def two_steps(params):
        moved = []
        for options in ({}, {"learning_rates": rates}):
            optimiser = make_optimiser(OptimiserConfig(), hyper_as_arrays(Hyper(learning_rate=0.1)), **options)
            state = optimiser.init(params)
            for _ in range(2):
                updates, state = optimiser.update(jax.tree.map(jnp.cos, params), state, params)
            moved.append(updates)
        return moved

    common, own = two_steps(PARAMS)
    expected = {part: jax.tree.map(lambda x, by=by: by * x, common[part]) for part, by in RATES.items()}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), own, expected)


RATES = {"backbone": 0.1, "neck": 1.0, "head": 0.0}
