"""The order of equal scores on an accelerator. On a CPU, where the other tests run, it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.nms import batched_nms
from yolojax.nms.sorting import ascending_order, score_keys
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates

CPU = jax.devices("cpu")[0]
DEVICES = {d.platform: d for d in jax.devices() if d.platform != "cpu"} or {"cpu": None}


@pytest.fixture(params=DEVICES.values(), ids=DEVICES)
def accelerator(request):
    if request.param is None:
        pytest.skip("no accelerator here: the order of equal scores on one can only be checked there")
    return request.param


def tied(n=3000):
    rng = np.random.default_rng(n)
    low = rng.uniform(0, 600, (n, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 80, (n, 2))], -1).astype(np.float32)
    return boxes, rng.choice(np.float32([0.25, 0.5, 0.75]), n), rng.integers(0, 3, n).astype(np.int32)


def on(device, f, *arrays):
    return jax.tree.map(np.asarray, jax.jit(f)(*jax.device_put(arrays, device)))


def test_top_k_takes_the_earlier_of_equals(accelerator):
    """Assigners count on it."""
    _, scores, _ = tied()
    expected = np.argsort(-scores, kind="stable")[:100]
    np.testing.assert_array_equal(on(accelerator, lambda s: jax.lax.top_k(s, 100)[1], scores), expected)
    rows = np.stack([scores, scores[::-1]])
    got = on(accelerator, lambda s: jax.lax.top_k(s, 100)[1], rows)
    np.testing.assert_array_equal(got[1], np.argsort(-rows[1], kind="stable")[:100])


def test_sorting_is_stable(accelerator):
    _, scores, _ = tied()
    got = on(accelerator, lambda s: ascending_order(score_keys(s, jnp.ones(s.shape, bool))), scores)
    np.testing.assert_array_equal(got, np.argsort(-scores, kind="stable"))


def test_suppression_and_postprocess_equal_the_cpus(accelerator):
    boxes, scores, classes = tied()
    f = lambda b, s, c: batched_nms(b, s, c, 0.5, 500)  # noqa: E731
    for a, b in zip(on(accelerator, f, boxes, scores, classes), on(CPU, f, boxes, scores, classes), strict=True):
        np.testing.assert_array_equal(a, b)
    table = np.stack([np.where(classes == c, scores, 0.1) for c in range(3)], -1)[None].astype(np.float32)
    g = lambda b, s: postprocess(Candidates(b, s), 0.05, 0.5, multi_label=True)  # noqa: E731
    for a, b in zip(on(accelerator, g, boxes[None], table), on(CPU, g, boxes[None], table), strict=True):
        np.testing.assert_array_equal(a, b)
