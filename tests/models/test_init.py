"""Initial values: PyTorch's law for the library's own kernels; what other modules draw is what they get."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from yolojax import zoo
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import Conv, ConvBNAct
from yolojax.models.necks import FPN
from yolojax.models.network import Network, init_variables

NETWORK = Network(DarknetTiny((8, 16, 32, 64, 64), (0, 1, 1, 1, 1)), FPN(32), YOLOHead(3, 4))


def test_kernels_are_uniform_within_one_over_the_root_of_their_fan_in():
    flat = flatten_dict(init_variables(NETWORK, jax.random.key(0), (64, 64))["params"])
    kernels = {path: np.asarray(x) for path, x in flat.items() if path[-1] == "kernel"}
    assert len(kernels) > 20
    for path, kernel in kernels.items():
        bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))  # torch.nn.Conv2d: kaiming_uniform_ with a = sqrt(5)
        assert np.abs(kernel).max() <= bound, path
        # Five standard errors of the mean and of the mean square of uniform numbers.
        assert abs(kernel.mean()) <= 5 * bound / np.sqrt(3 * kernel.size), path
        assert abs((kernel**2).mean() - bound**2 / 3) <= 5 * bound**2 * np.sqrt(4 / 45 / kernel.size), path
    values = np.concatenate([k.ravel()[:50] / np.abs(k).max() for k in kernels.values()])
    assert len(np.unique(values)) == len(values)
    for path, x in flat.items():
        if path[-1] == "scale":
            np.testing.assert_array_equal(x, 1.0)


def test_a_key_gives_the_same_parameters_and_another_key_others():
    one, same, other = (init_variables(NETWORK, jax.random.key(seed), (64, 64)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    stem = lambda v: jax.tree.leaves(v["params"]["backbone"])  # noqa: E731
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(stem(one), stem(other), strict=True))


def test_neither_convolution_nor_normalisation_is_traced():
    text = str(jax.make_jaxpr(lambda key: init_variables(NETWORK, key, (64, 64)))(jax.random.key(0)))
    assert "random_bits" in text
    assert not any(operation in text for operation in ("conv_general_dilated", "dot_general", "rsqrt"))


class Foreign(nn.Module):
    """Somebody's own modules, with initialisers of every kind, beside layers of the library."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvBNAct(4, 3, name="ours")(x, train)
        x = nn.Conv(4, (3, 3), kernel_init=nn.initializers.zeros, name="zero")(x) + x
        x = nn.Conv(4, (1, 1), kernel_init=nn.initializers.constant(0.3), name="constant")(x)
        x = nn.BatchNorm(use_running_average=not train, scale_init=nn.initializers.constant(0.1), name="bn")(x)
        x = nn.Dense(4, name="dense")(x)
        x = Conv(4, kernel_init=nn.initializers.ones, name="ones")(x)
        x = nn.vmap(Conv, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2)(
            4, 3, name="pair"
        )(x)
        shift = self.param("kernel", nn.initializers.constant(7.0), (2,))
        self.variable("memory", "kernel", jnp.full, (2,), 5.0)
        return x + shift.sum()


def test_modules_of_others_keep_what_they_draw():
    """The oracle is Flax's own `init`, which knows nothing of this library."""
    key, image = jax.random.key(3), jnp.zeros((1, 8, 8, 3))
    found, expected = init_variables(Foreign(), key, (8, 8)), Foreign().init(key, image, train=True)
    assert set(found) == {"params", "batch_stats", "memory"}
    found, expected = flatten_dict(found, sep="/"), flatten_dict(dict(expected), sep="/")
    assert set(found) == set(expected)
    drawn_at_once = {"params/ours/conv/kernel", "params/pair/kernel"}
    for name in set(expected) - drawn_at_once:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert not found["params/zero/kernel"].any() and (found["params/ones/kernel"] == 1).all()
    assert np.std(found["params/dense/kernel"]) > 0.1
    for name in drawn_at_once:
        fan_in = np.prod(expected[name].shape[-4:-1])
        assert found[name].shape == expected[name].shape and 0.5 < np.abs(found[name]).max() * np.sqrt(fan_in) <= 1
    assert (found["params/pair/kernel"][0] != found["params/pair/kernel"][1]).all()


@pytest.mark.parametrize(
    ("name", "options", "digest"),
    [
        ("compact", {}, "c86920b05639bd5371e3d28018eb53d1"),
        ("yolox-nano", {}, "eaef5a2d4ab76d24b0f1e884b5328c3f"),
        (
            "lesson",
            {"anchors": [[[10.0, 12.0], [20.0, 16.0]], [[30.0, 40.0], [60.0, 50.0]]]},
            "91f38963d0eef1f4f5e138707c8dea27",
        ),
    ],
)
def test_a_seed_gives_the_values_that_the_records_were_made_with(name, options, digest):
    """Numbers in ``experiments`` depend on initial values: these are those of the first release."""
    size = (64, 96) if name == "compact" else (64, 64)
    variables = zoo.build(name, ("a", "b", "c"), size, **options).init(jax.random.key(7))
    content = hashlib.sha256()
    for path, x in jax.tree_util.tree_leaves_with_path(variables):
        content.update(jax.tree_util.keystr(path).encode() + np.asarray(x).tobytes())
    assert content.hexdigest()[:32] == digest
