"""Initial kernels: PyTorch's law, each its own values, and nothing else touched."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import YOLOHead
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
