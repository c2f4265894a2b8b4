"""How far gradients of boxes reach back through the layers of a decoder of queries."""

import jax
import numpy as np
import pytest

from yolojax.models.queries import DecoderSize, RTDETRHead

LAYERS = 3


@pytest.mark.slow  # a decoder and its gradient compile for some seconds
def test_a_box_has_gradients_in_its_own_layer_and_in_the_one_before():
    """Look forward twice (DINO, arXiv 2203.03605, section 3.5), as RT-DETR's authors train.

    The heads of the boxes start at 0, so the boxes ``b`` of all layers are equal, and each depends on the last bias of
    a head by ``b (1 - b)`` or not at all. The layers are weighed by 1, 10 and 100, which tells them apart.
    """
    size = DecoderSize(width=8, hidden=8, queries=2, layers=LAYERS, answering=LAYERS, points=(1,), heads=1)
    head, features = RTDETRHead(2, size), (jax.random.normal(jax.random.key(0), (1, 2, 2, 8)),)

    @jax.jit
    def boxes_and_slopes():
        variables = head.init(jax.random.key(1), features, False)

        def weighted(biases):
            params = dict(variables["params"])
            for i, bias in enumerate(biases):
                mlp = params[f"boxes{i}"]
                params[f"boxes{i}"] = {**mlp, "layer2": {**mlp["layer2"], "bias": bias}}
            found, _ = head.apply({**variables, "params": params}, features, True, mutable=["batch_stats"])
            layers = found.queries.boxes[0].sum(axis=1)
            return sum(10.0**i * layers[i].sum() for i in range(LAYERS)), found.queries.boxes[0]

        biases = [variables["params"][f"boxes{i}"]["layer2"]["bias"] for i in range(LAYERS)]
        return jax.grad(weighted, has_aux=True)(biases)

    slopes, boxes = jax.device_get(boxes_and_slopes())
    np.testing.assert_allclose(boxes, boxes[:1].repeat(LAYERS, axis=0), rtol=1e-5)
    once = (boxes[0] * (1 - boxes[0])).sum(axis=0)
    for slope, factor in zip(slopes, (1 + 10, 10 + 100, 100), strict=True):
        np.testing.assert_allclose(slope, factor * once, rtol=1e-4)
