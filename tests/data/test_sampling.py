"""Samplers: what comes how often, counted, and that it depends on seed and step alone."""

import itertools

import numpy as np
import pytest

from tests.data.test_input_images import dataset, record
from yolojax.data import (
    class_balanced_weights,
    repeat_factor_weights,
    sample_indices,
    uniform_sampler,
    weighted_sampler,
)
from yolojax.errors import ConfigError, DataError

PICTURE = np.zeros((8, 8, 3), np.uint8)


def epochs_of(sampler, n, count, batch_size, seed=0):
    stream = np.concatenate([sampler(seed, t) for t in range(-(-count * n // batch_size))])
    return stream[: count * n].reshape(count, n)


def test_equal_weights_are_uniform_sampling_index_for_index():
    for n, batch_size in itertools.product((1, 7, 30), (1, 4, 9)):
        weighted, uniform = weighted_sampler(np.full(n, 0.3), batch_size), uniform_sampler(n, batch_size)
        for step in (0, 1, 5, 1000):
            np.testing.assert_array_equal(weighted(3, step), uniform(3, step))
            np.testing.assert_array_equal(uniform(3, step), sample_indices(3, step, batch_size, n))


def test_images_come_as_often_as_their_weight_says():
    weights = np.random.default_rng(0).uniform(0.05, 3, 40)
    weights[5] = 0
    share = weights / weights.mean()
    epochs = epochs_of(weighted_sampler(weights, 16), 40, 300, 16)
    counts = np.stack([np.bincount(epoch, minlength=40) for epoch in epochs])
    assert (counts >= np.floor(share)).all() and (counts <= np.ceil(share)).all() and (counts[:, 5] == 0).all()
    # A share f of an image comes in f of 300 epochs: five standard deviations of that, at most .5, are .15.
    np.testing.assert_allclose(counts.mean(0), share, atol=0.15)
    assert len({epoch.tobytes() for epoch in epochs}) == 300  # in an order of its own each time


def test_a_batch_depends_on_seed_and_step_alone():
    weights = np.arange(1.0, 12)
    first = weighted_sampler(weights, 4)
    wanted = [first(9, t) for t in range(20)]
    other = weighted_sampler(weights, 4)
    for t in reversed(range(20)):
        np.testing.assert_array_equal(other(9, t), wanted[t])
    assert any((first(8, t) != wanted[t]).any() for t in range(3))
    # Recorded once: a change here would break the resuming of runs that were started before it.
    np.testing.assert_array_equal(first(0, 3), [10, 6, 7, 3])


def rare_and_common():
    """Nine images of class 0, one of class 1, one of both, one with a crowd region of class 1, one without objects."""
    box = [[0, 0, 4, 4]]
    classes = [[0]] * 9 + [[1], [0, 1], [1], []]
    return dataset(
        [record(i, PICTURE, box * len(c), classes=c, crowd=[i == 11] * len(c)) for i, c in enumerate(classes)]
    )


def test_class_balance_draws_every_class_equally_often():
    data = rare_and_common()
    weights = class_balanced_weights(data)
    # By hand: class 0 is on ten images, class 1 on two; the crowd region's image and the empty one keep their share.
    raw = np.array([1 / 10] * 9 + [1 / 2, 1 / 10 + 1 / 2])
    np.testing.assert_allclose(weights[:11], raw / raw.sum() * 11)
    np.testing.assert_allclose(weights[11:], 1)
    with pytest.raises(DataError, match="no class"):
        class_balanced_weights(dataset([record(0, PICTURE, [])]))


def test_repeat_factors_are_those_of_the_paper():
    weights = repeat_factor_weights(rare_and_common(), 0.5)
    rare = np.sqrt(0.5 / (2 / 13))
    np.testing.assert_allclose(weights, [1] * 9 + [rare, rare, 1, 1])
    with pytest.raises(ConfigError, match="threshold"):
        repeat_factor_weights(rare_and_common(), 0.0)


@pytest.mark.parametrize("weights", [[], [1, -1], [0, 0], [1, np.nan]])
def test_senseless_weights_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        weighted_sampler(np.array(weights, float), 4)
