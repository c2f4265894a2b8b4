"""The loss and the gradient of each image, and the loss of each label: how to find labels that are wrong.

Run: python docs/examples/per_example_gradients.py
Gives a wrong class to every object of two images, trains on right labels, and prints the images by falling gradient.
"""

import dataclasses
from functools import partial

import jax
import numpy as np

import yolojax
from yolojax import zoo
from yolojax.config import OptimiserConfig, TrainConfig
from yolojax.data import build_cache, shapes_dataset
from yolojax.detector import prepare_images
from yolojax.structures import Hyper
from yolojax.training.per_example import per_example_gradient_norm, per_example_loss, per_object_loss

SIZE, OPTIONS = (96, 96), {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


def main(out="runs/per_example", images=256, epochs=30):
    data = shapes_dataset(images, size=SIZE)
    detector = zoo.build("compact", data.class_names, SIZE, **OPTIONS)
    config = TrainConfig(epochs=epochs, optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95))
    variables = yolojax.fit(config, out, data=data, detector=detector).variables

    seen = data.take(range(8))
    wrong = [i for i, record in enumerate(seen.records) if len(record.boxes)][:2]
    records = [
        dataclasses.replace(r, classes=(r.classes + 1) % len(data.class_names)) if i in wrong else r
        for i, r in enumerate(seen.records)
    ]
    cache = build_cache(dataclasses.replace(seen, records=tuple(records)), SIZE, detector.spec.preprocess)
    hyper = Hyper(**detector.spec.hyper)
    losses = jax.jit(partial(per_example_loss, detector))(variables, cache.images, cache.targets, hyper)
    gradient = jax.jit(partial(per_example_gradient_norm, detector, parts=("head",)))
    norms = gradient(variables, cache.images, cache.targets, hyper)

    @jax.jit
    def of_each_object(variables, images, targets):
        outputs = detector.forward(variables, prepare_images(images, detector.spec.preprocess))
        return per_object_loss(detector, outputs, targets, hyper)

    objects = np.asarray(of_each_object(variables, cache.images, cache.targets))
    for i in np.argsort(-np.asarray(norms)):
        rows = objects[i][cache.targets.valid[i]].round(1).tolist()
        note = "wrong labels" if i in wrong else ""
        print(f"image {i}: gradient {norms[i]:7.2f}, loss {losses[i]:6.2f}, objects {rows} {note}")
    return wrong, np.asarray(norms)


if __name__ == "__main__":
    main()
