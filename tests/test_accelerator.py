"""A GPU or TPU computes what a processor computes: augmentation, loss, gradient and detections.

Without an accelerator only the lowering for one is checked. Products are computed in full float32 here: by default a
GPU rounds the factors of a float32 product to TF32, which has 10 bits.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

from yolojax import zoo
from yolojax.augment import compose
from yolojax.config import AugmentConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.detect import detect
from yolojax.detector import prepare_images
from yolojax.geometry import Preprocess
from yolojax.structures import Hyper
from yolojax.training.augmentation import make_augmentations
from yolojax.training.gradient import accumulated_gradient

pytestmark = pytest.mark.any_platform

SMALL = {"widths": (8, 8, 16), "depths": (0, 1, 0), "head_width": 16, "reg_max": 4}
CPU = jax.devices("cpu")[0]
DEVICES = {d.platform: d for d in jax.devices() if d.platform != "cpu"} or {"cpu": None}


@pytest.fixture(params=list(DEVICES.values()), ids=list(DEVICES))
def accelerator(request):
    if request.param is None:
        pytest.skip("no accelerator here")
    return request.param


@pytest.fixture(scope="module")
def program():
    """Two functions of arrays, what a training step computes before it moves anything and what a prediction does; and
    their arguments on the host."""
    size = (64, 64)
    data = shapes_dataset(4, size=size)
    detector = zoo.build("compact", data.class_names, size, **SMALL)
    mixing, augmentation = make_augmentations(replace(AugmentConfig(), mosaic=1.0, rotate=10.0))
    augment = compose([mixing, augmentation])
    hyper = Hyper()._replace(**detector.spec.hyper)
    batch = build_cache(data, size, Preprocess()).batch(np.arange(4))
    with jax.default_device(CPU):
        variables = jax.device_get(jax.jit(detector.init)(jax.random.key(0)))

    def train(variables, images, targets):
        key = jax.random.key(1)
        images, targets = augment(key, images, targets)
        prepared = prepare_images(images, detector.spec.preprocess)
        found = accumulated_gradient(2)(detector, variables, prepared, targets, key, hyper)
        return {"images": images, "boxes": targets.boxes, "gradient": found.parameters, "loss": found.parts} | {
            "counts": found.terms.counts
        }

    def predict(variables, images):
        return detect(detector, variables, images, 0.001, 0.7, max_detections=50)

    return train, predict, (variables, batch.images, batch.targets)


def on(device, f, *arguments):
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        return jax.device_get(jax.jit(f)(*jax.device_put(arguments, device)))


def close(got, want, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-6, np.abs(b).max(initial=0.0)))


def test_an_accelerator_computes_what_a_processor_computes(accelerator, program):
    train, predict, (variables, images, targets) = program
    got, want = (on(device, train, variables, images, targets) for device in (accelerator, CPU))
    apart = np.abs(got["images"].astype(int) - want["images"].astype(int))
    # A coordinate rounded otherwise moves a few values by one step of 255.
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01
    close(got["boxes"], want["boxes"], 1e-5)
    close(got["counts"], want["counts"], 0)
    close(got["loss"], want["loss"], 1e-3)
    close(got["gradient"], want["gradient"], 1e-2)
    got, want = (on(device, predict, variables, images) for device in (accelerator, CPU))
    np.testing.assert_array_equal(got.valid.sum(1), want.valid.sum(1))
    close(got.scores, want.scores, 1e-4)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_training_and_prediction_lower_for_an_accelerator_that_is_not_here(program, platform):
    """Nothing in them is for processors alone; on a GPU no library call of a processor is left."""
    train, predict, (variables, images, targets) = program
    for f, arguments in ((train, (variables, images, targets)), (predict, (variables, images))):
        text = jax.jit(f).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.convolution" in text
