"""Shapes, parameter trees, initial predictions and precision of whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.models.backbones import DarknetTiny
from yolojax.models.batch_norm import fold_batch_norm, noting_folds
from yolojax.models.heads import AnchorFreeHead, YOLOHead
from yolojax.models.layers import Style
from yolojax.models.necks import FPN, PAN, Identity
from yolojax.models.network import Network, convolution_flops, init_variables, parameter_count
from yolojax.models.resnet import ResNet18

WIDTHS, DEPTHS = (8, 8, 16, 16, 24), (0, 1, 1, 1, 1)
STYLE = Style()


def anchor_free(style: Style = STYLE, input_size=(64, 96), csp=True) -> Network:
    return Network(
        DarknetTiny(WIDTHS, DEPTHS, csp=csp, style=style),
        PAN((16, 16, 24), style=style),
        AnchorFreeHead(3, (8, 16, 32), input_size, box_width=16, cls_width=16, depth=1, style=style),
    )


@pytest.mark.parametrize("csp", [False, True])
@pytest.mark.parametrize("input_size", [(64, 96), (32, 32)])
def test_anchor_free_shapes_and_tree(input_size, csp):
    network = anchor_free(input_size=input_size, csp=csp)
    variables = jax.eval_shape(lambda key: init_variables(network, key, input_size), jax.random.key(0))
    assert set(variables) == {"params", "batch_stats"}
    assert set(variables["params"]) == {"backbone", "neck", "head"}
    out = jax.eval_shape(lambda v, x: network.apply(v, x, False), variables, jnp.zeros((2, *input_size, 3)))
    for stride, level in zip((8, 16, 32), out, strict=True):
        grid = (2, input_size[0] // stride, input_size[1] // stride)
        assert level.box.shape == (*grid, 64)
        assert level.cls.shape == (*grid, 3)
        assert level.box.dtype == level.cls.dtype == jnp.float32


def test_resnet18_has_the_published_number_of_parameters():
    network = Network(ResNet18(), Identity(), YOLOHead(3, 2))
    variables = jax.eval_shape(lambda key: init_variables(network, key, (64, 64)), jax.random.key(0))
    backbone = parameter_count({"params": variables["params"]["backbone"]})
    assert backbone == 11_689_512 - (512 * 1000 + 1000)  # torchvision's resnet18, less its classifier
    assert variables["params"]["neck"] == {}
    # 1.814 GMAC at 224 x 224 by torchvision's table, of which the classifier is 512,000.
    backbone_only = Network(ResNet18(), Identity(), Identity())
    forward = lambda image: backbone_only.init(jax.random.key(0), image, train=False)  # noqa: E731
    assert convolution_flops(forward, (224, 224)) / 2 == pytest.approx(1.814e9 - 0.5e6, rel=1e-3)


def test_objectness_starts_at_its_prior():
    network = Network(DarknetTiny(WIDTHS, DEPTHS), FPN(16), YOLOHead(3, 4, prior=0.01))
    variables = init_variables(network, jax.random.key(0), (64, 64))
    outputs = jax.jit(lambda v, x: network.apply(v, x, False))(variables, jnp.zeros((1, 64, 64, 3)))
    for out, cells in zip(outputs, (8, 4, 2), strict=True):
        assert out.shape == (1, cells, cells, 3, 9)
        np.testing.assert_allclose(jax.nn.sigmoid(out[..., 4]), 0.01, rtol=1e-5)
        np.testing.assert_allclose(jax.nn.sigmoid(out[..., :4]), 0.5, rtol=1e-5)


def test_class_scores_start_at_the_expected_number_of_objects():
    variables = init_variables(anchor_free(input_size=(640, 640)), jax.random.key(0), (64, 64))
    for i, stride in enumerate((8, 16, 32)):
        # YOLOv8's recipe: log(5 / classes / (640 / stride) ** 2)
        bias = variables["params"]["head"][f"level{i}_predict_cls"]["bias"]
        np.testing.assert_allclose(bias, np.log(5 / 3 / (640 / stride) ** 2), rtol=1e-6)
        np.testing.assert_array_equal(variables["params"]["head"][f"level{i}_predict_box"]["bias"], 1.0)


def randomised(variables, key):
    """The same tree with statistics and scales as after some training."""
    leaves, treedef = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    leaves = [
        x * jax.random.uniform(k, x.shape, minval=0.5, maxval=1.5) + 0.01 for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, leaves)


@pytest.mark.parametrize("epsilon", [pytest.param(1e-3, marks=pytest.mark.slow), 1e-5])
def test_folded_forward_equals_the_unfolded_one(epsilon):
    style = Style(epsilon=epsilon)
    variables = randomised(init_variables(anchor_free(style), jax.random.key(0), (64, 96)), jax.random.key(1))
    images = jax.random.uniform(jax.random.key(2), (2, 64, 96, 3))
    network = anchor_free(style)
    folds = {}
    with noting_folds(folds):
        jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 64, 96, 3)), False))
    assert set(folds.values()) == {epsilon}
    folded = fold_batch_norm(variables, folds)
    assert "norm" not in str(jax.tree.structure(folded))
    forward = jax.jit(lambda v, x: network.apply(v, x, False))
    want, got = forward(variables, images), forward(folded, images)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.slow  # tens of seconds of tracing
def test_bfloat16_computes_on_float32_state_with_finite_gradients():
    network = anchor_free(Style(dtype=jnp.bfloat16), (32, 64), csp=False)
    variables = init_variables(network, jax.random.key(0), (32, 64))
    images = jax.random.uniform(jax.random.key(2), (2, 32, 64, 3))

    @jax.jit
    def step(variables, images):
        def loss(params):
            out, state = network.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
            return sum(jnp.sum(x**2) for x in jax.tree.leaves(out)), state

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, state = step(variables, images)
    for x in jax.tree.leaves((variables, gradients, state)):
        assert x.dtype == jnp.float32
        assert np.isfinite(x).all()
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a != b))), state["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved))
