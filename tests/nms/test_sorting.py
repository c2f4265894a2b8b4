"""Searches in masks against `numpy.flatnonzero` and `numpy.any`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax.nms.sorting import any_of_rows, count_set, first_set, words_of


@pytest.mark.parametrize("n", [1, 31, 32, 33, 700, 1056, 40_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_words_of_a_mask_give_its_entries_in_order(n, share):
    mask = np.random.default_rng(n).random(n) < share
    words = words_of(jnp.asarray(mask))
    assert int(count_set(words)) == mask.sum()
    positions, exists = jax.jit(first_set, static_argnums=1)(words, 40)
    want = np.flatnonzero(mask)[:40]
    np.testing.assert_array_equal(np.asarray(exists), np.arange(40) < len(want))
    np.testing.assert_array_equal(np.asarray(positions)[: len(want)], want)
    assert not np.asarray(positions)[len(want) :].any()


@pytest.mark.parametrize("length", [1, 3, 32, 37, 80, 91])
def test_rows_of_any_length_are_reduced(length):
    mask = np.random.default_rng(length).random((50, length)) < 0.5 / length
    np.testing.assert_array_equal(np.asarray(any_of_rows(jnp.asarray(mask))), mask.any(-1))
