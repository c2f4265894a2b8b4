"""Area attention against a transcription of YOLOv12's section 3.2 in NumPy, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.yolo11 import Attention
from yolojax.models.yolo12 import GAIN, RELAN

HEADS = 2


def normalised(x, params, stats):
    kernel = np.asarray(params["conv"]["kernel"], np.float64)[0, 0]
    scale, bias, mean, var = (
        np.asarray(a, np.float64)
        for a in (params["norm"]["scale"], params["norm"]["bias"], stats["norm"]["mean"], stats["norm"]["var"])
    )
    return (x @ kernel - mean) / np.sqrt(var + 1e-3) * scale + bias


def convolved_per_channel(x, params, stats):
    kernel = np.asarray(params["conv"]["kernel"], np.float64)[:, :, 0]
    size = len(kernel)
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    height, width, _ = x.shape
    y = sum(padded[i : i + height, j : j + width] * kernel[i, j] for i in range(size) for j in range(size))
    identity = {"conv": {"kernel": np.eye(x.shape[-1])[None, None]}, "norm": params["norm"]}
    return normalised(y, identity, stats)


def attend(x, variables, areas, value):
    """One image, place by place: a place sees the places of its own run, in the order of rows."""
    params, stats = variables["params"], variables["batch_stats"]
    height, width, channels = x.shape
    qkv = normalised(x, params["qkv"], stats["qkv"]).reshape(height * width, HEADS, -1)
    key = (qkv.shape[-1] - value) // 2
    q, k, v = qkv[..., :key], qkv[..., key : 2 * key], qkv[..., 2 * key :]
    out, run = np.zeros_like(v), height * width // areas
    for place in range(height * width):
        first = place // run * run
        for head in range(HEADS):
            logits = k[first : first + run, head] @ q[place, head] / np.sqrt(key)
            weights = np.exp(logits - logits.max())
            out[place, head] = weights @ v[first : first + run, head] / weights.sum()
    position = convolved_per_channel(v.reshape(height, width, channels), params["position"], stats["position"])
    return normalised(out.reshape(height, width, channels) + position, params["project"], stats["project"])


def drawn(module, x):
    """Variables with different numbers everywhere, and variances above zero."""
    rng = np.random.default_rng(3)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.3, 1.2, leaf.shape), jnp.float32), shapes)


@pytest.mark.parametrize(("areas", "narrow", "position"), [(1, True, 3), (4, False, 7)], ids=["YOLO11", "YOLO12"])
def test_attention_is_that_of_the_paper(areas, narrow, position):
    rng = np.random.default_rng(0)
    module = Attention(HEADS, narrow_keys=narrow, position=position, areas=areas)
    x = jnp.asarray(rng.normal(size=(2, 6, 10, 8)), jnp.float32)
    variables = drawn(module, x)
    got = jax.jit(lambda v, x: module.apply(v, x, False))(variables, x)
    for image, found in zip(np.asarray(x, np.float64), got, strict=True):
        expected = attend(image, variables, areas, 4)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_residual_block_adds_its_input():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 4, 64)), jnp.float32)
    plain, residual = RELAN(64, 1, 4, 1.2), RELAN(64, 1, 4, 1.2, residual=True)
    variables = drawn(residual, x)
    without = {**variables, "params": {k: v for k, v in variables["params"].items() if k != "gain"}}
    both = jax.jit(lambda x: (plain.apply(without, x, False), residual.apply(variables, x, False)))(x)
    gain = np.asarray(variables["params"]["gain"])
    np.testing.assert_allclose(both[1], np.asarray(x) + gain * np.asarray(both[0]), rtol=1e-5, atol=1e-5)
    begun = jax.jit(lambda: residual.init(jax.random.key(0), x, False))()["params"]["gain"]
    assert begun.shape == (64,) and np.unique(begun).tolist() == [np.float32(GAIN)]
