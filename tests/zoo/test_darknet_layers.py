"""Layers that OpenCV does not read, or reads differently, against Darknet's own formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import darknet_reference
from tests.darknet_cases import Writer, random_image, random_weights
from yolojax.models.darknet import darknet_network, drop, reorg, variables_from_arrays
from yolojax.models.darknet_parts import backbone_length, split_parts
from yolojax.models.layers import Style
from yolojax.weights.darknet import parse_cfg, stored_arrays


def weighted_network() -> str:
    """Shortcuts with factors and of several inputs, other channel counts, other sizes, relu6, silu, odd
    sizes, unequal anchors."""
    w = Writer((40, 24), 1.0, 2)
    first = w.conv(6, 3, 2, "relu6")
    w.conv(6, 3, 1, "silu")
    w.add("shortcut", from_=first, weights_type="per_feature", weights_normalization="softmax", activation="mish")
    w.conv(4, 1, 1, "mish")
    w.add("shortcut", from_=f"-2,{first}", weights_type="per_channel", weights_normalization="relu")
    narrow = w.count - 1
    w.conv(9, 3, 1, "leaky")
    w.add("shortcut", from_=f"{narrow},{first}", activation="swish")
    wide = w.count - 1
    w.add("convolutional", filters=1, size=1, activation="logistic")
    w.add("scale_channels", from_=wide, scale_wh=1, activation="relu6")
    w.add("upsample", stride=3, scale=0.5)
    w.add("maxpool", size=4, stride=3, padding=1)
    w.add("convolutional", filters=7, size=4, stride=2, padding=1, activation="logistic")
    w.add("maxpool", size=2, stride=2)
    w.conv(8, 2, 1, "linear")
    large = w.count - 1
    w.conv(5, 3, 2, "linear")
    w.add("shortcut", from_=large, activation="leaky")
    small = w.count - 1
    w.add("upsample", stride=2)
    w.conv(6, 1, 1, "linear")
    w.add("shortcut", from_=small, activation="linear")
    w.add("convolutional", filters=21, size=1, activation="linear")
    w.add("region", anchors="1,1, .5,2, 2.5,.5", classes=2, num=3, softmax=0)
    return w.text()


def test_every_other_layer_equals_darknets_formula():
    text = weighted_network()
    cfg = parse_cfg(text)
    arrays = random_weights(stored_arrays(cfg), 3)
    image = random_image((40, 24), 5)
    expected = darknet_reference.run(cfg, arrays, image, 1e-5)[-1]
    parts = split_parts(cfg, backbone_length(cfg))
    network = darknet_network(cfg, parts, Style(epsilon=1e-5))
    variables = jax.tree.map(jnp.asarray, variables_from_arrays(parts, arrays))
    (found,) = jax.jit(lambda v, x: network.apply(v, x, False))(variables, jnp.asarray(image)[None])
    assert expected.std() > 0.1
    ours = np.asarray(found[0]).reshape(*found.shape[1:3], -1).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_reorg_equals_the_loop_over_memory(stride):
    x = np.random.default_rng(0).normal(size=(stride**2 * 2, 2 * stride, 3 * stride)).astype(np.float32)
    ours = reorg(jnp.asarray(x.transpose(1, 2, 0))[None], stride)[0]
    np.testing.assert_array_equal(np.asarray(ours).transpose(2, 0, 1), darknet_reference.reorg(x, stride))


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.5])
def test_dropout_drops_that_share_independently_of_place_and_seed(probability):
    """Bounds are five standard deviations of the share of 65536 independent draws."""
    x = jnp.ones((64, 32, 32))
    seeds = (0, 1, 2**32 - 1)
    dropped = [np.asarray(drop(x, probability, jnp.uint32(seed))) == 0 for seed in seeds]
    bound = 5 * 0.5 / np.sqrt(x.size)
    for one in dropped:
        assert abs(one.mean() - probability) <= bound
        for axis in range(3):
            both = one & np.roll(one, 1, axis)
            assert abs(both.mean() - probability**2) <= bound
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs((dropped[one] & dropped[other]).mean() - probability**2) <= bound
    np.testing.assert_allclose(float(drop(x, probability, jnp.uint32(5)).max()), 1 / (1 - probability))
