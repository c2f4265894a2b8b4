"""A detector of your own as a Flax module with `flax.linen.BatchNorm`, made a record by `zoo.flax_detector`.

The record keeps what the module's initialisers draw; running statistics, freezing and checkpoints need no more code.
Run: python docs/examples/own_flax_detector.py
Prints which collections were trained, how far the running mean moved, and the AP50 after a short training.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

import yolojax
from yolojax import zoo
from yolojax.coding import cell_centres, decode_distributions, flatten_levels, levels_of
from yolojax.config import OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.detector import DetectorSpec
from yolojax.losses import yolov8_loss
from yolojax.structures import Candidates

BINS, STRIDES = 8, (16,)


class Net(nn.Module):
    """Four normalised convolutions of stride 2 and a 1x1 convolution; one prediction in each 16 x 16 pixels."""

    classes: int

    @nn.compact
    def __call__(self, images, train=False):
        x = images
        for width in (16, 32, 64, 96):
            x = nn.Conv(width, (3, 3), strides=2, use_bias=False)(x)
            x = nn.silu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Conv(4 * BINS + self.classes, (1, 1), kernel_init=nn.initializers.zeros, name="last")(x)
        return (x[..., : 4 * BINS],), (x[..., 4 * BINS :],)


def loss(outputs, targets, hyper):
    return yolov8_loss(*outputs, levels_of(outputs[0], STRIDES), targets, hyper)


def decode(outputs):
    points, strides = cell_centres(levels_of(outputs[0], STRIDES))
    boxes = decode_distributions(flatten_levels(outputs[0]), points, strides)
    return Candidates(boxes, jax.nn.sigmoid(flatten_levels(outputs[1])))


def main(out="runs/own_flax_detector", images=256, epochs=30):
    data = shapes_dataset(images, size=(96, 96)), shapes_dataset(32, size=(96, 96), split="val")
    spec = DetectorSpec("own-flax", data[0].class_names, (96, 96), STRIDES)
    detector = zoo.flax_detector(spec, Net(len(spec.class_names)), loss, decode)
    optimiser, validation = OptimiserConfig(weight_decay=0.05, ema_decay=0.95), ValidationConfig(samples=0)
    config = TrainConfig(epochs=epochs, optimiser=optimiser, validation=validation)
    run = yolojax.fit(config, out, data=data, detector=detector)
    moved = jnp.abs(run.variables["batch_stats"]["BatchNorm_0"]["mean"]).max()
    print(f"{sorted(run.variables)}; the first running mean moved to {moved:.3f}; AP50 {run.result.AP50:.3f}")


if __name__ == "__main__":
    main()
