"""A chain of augmentations as one."""

import jax
import numpy as np

from tests.augment.scenes import make_scene
from yolojax.augment import compose, mosaic, random_affine, random_flip, random_hsv

CHAIN = (mosaic(0.5), random_affine(scale=(0.6, 1.4), translate=0.2), random_hsv(0.02, 0.5, 0.3), random_flip(0.5))


def test_nothing_composed_changes_nothing():
    scene = make_scene()
    images, targets = compose([])(jax.random.key(0), *scene)
    assert images is scene.images and targets is scene.targets


def test_links_run_in_order_each_with_its_own_key():
    calls = []

    def note(name):
        def link(key, images, targets):
            calls.append((name, jax.random.key_data(key).tolist()))
            return images + 1, targets

        return link

    scene = make_scene()
    images, _ = compose([note("first"), note("second")])(jax.random.key(0), *scene)
    np.testing.assert_array_equal(images, scene.images + 2)
    assert [name for name, _ in calls] == ["first", "second"]
    assert calls[0][1] != calls[1][1]


def test_shapes_and_types_stay():
    scene = make_scene()
    changed = jax.eval_shape(compose(CHAIN), jax.random.key(0), *scene)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), changed) == jax.tree.map(
        lambda a: (a.shape, a.dtype), tuple(scene)
    )


def test_the_compiled_chain_equals_its_links_run_eagerly():
    scene = make_scene()
    key = jax.random.key(11)
    links = CHAIN[2:]  # the other two take seconds to run operation by operation; they are compared below
    images, targets = jax.jit(compose(links))(key, *scene)
    eager_images, eager = compose(links)(key, *scene)
    # Fused arithmetic may round a value that lies between two grey levels to the other one.
    assert np.abs(np.asarray(images).astype(int) - np.asarray(eager_images)).max() <= 1
    jax.tree.map(np.testing.assert_array_equal, targets, eager)


def test_the_chain_compiles_once_and_equals_its_links_compiled_one_by_one():
    traces = 0

    def counted(key, images, targets):
        nonlocal traces
        traces += 1
        return compose(CHAIN)(key, images, targets)

    scene, chain, keys = make_scene(), jax.jit(counted), [jax.random.fold_in(jax.random.key(11), i) for i in range(3)]
    results = [chain(key, *scene) for key in keys]
    assert traces == 1
    assert len({np.asarray(images).tobytes() for images, _ in results}) == 3

    one_by_one = tuple(scene)
    for i, link in enumerate(CHAIN):
        one_by_one = jax.jit(link)(jax.random.fold_in(keys[0], i), *one_by_one)
    images, targets = results[0]
    assert np.mean(np.abs(np.asarray(images).astype(int) - np.asarray(one_by_one[0])) > 1) < 1e-3

    def rows(targets):  # in an order of their own: objects of equal area may change places
        valid = np.asarray(targets.valid)
        objects = np.concatenate([np.asarray(targets.classes)[valid][:, None], np.asarray(targets.boxes)[valid]], 1)
        return objects[np.lexsort(objects.round(1).T)]

    np.testing.assert_allclose(rows(targets), rows(one_by_one[1]), atol=1e-3)
