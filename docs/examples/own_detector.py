"""A detector of your own as plain JAX functions, without Flax: trained by `fit`, measured, loaded again and used.

Decay, average, checkpoints and resuming work as for the zoo, whatever the parameters are called.
Run: python docs/examples/own_detector.py
Prints how many arrays weight decay moves, the AP50 after a short training, and what one image shows.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp

import yolojax
from yolojax.coding import cell_centres, decode_distributions, flatten_levels, levels_of
from yolojax.config import OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.detector import Detector, DetectorSpec
from yolojax.losses import yolov8_loss
from yolojax.structures import Candidates

BINS, STRIDES, WIDTHS = 8, (16,), (3, 16, 32, 64, 96)


def own_detector(class_names, size):
    """Four convolutions of stride 2 and one linear layer; one prediction in each cell of 16 x 16 pixels."""

    def init(key):
        keys = iter(jax.random.split(key, 5))
        he = jax.nn.initializers.he_normal()
        trunk = [{"w": he(next(keys), (3, 3, a, b)), "b": jnp.zeros(b)} for a, b in pairwise(WIDTHS)]
        offsets = jnp.zeros(4 * BINS + len(class_names)).at[4 * BINS :].set(-4.0)  # few cells hold an object
        return {"params": {"trunk": trunk, "last": (0.01 * he(next(keys), (WIDTHS[-1], len(offsets))), offsets)}}

    def forward(variables, images):
        x = images - 0.5
        for layer in variables["params"]["trunk"]:
            x = jax.lax.conv_general_dilated(x, layer["w"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.silu(x + layer["b"][None, None, None])
        weight, offsets = variables["params"]["last"]
        x = x @ weight + offsets[None, None, None]
        return (x[..., : 4 * BINS],), (x[..., 4 * BINS :],)

    def loss(outputs, targets, hyper):
        return yolov8_loss(*outputs, levels_of(outputs[0], STRIDES), targets, hyper)

    def decode(outputs):
        points, strides = cell_centres(levels_of(outputs[0], STRIDES))
        boxes = decode_distributions(flatten_levels(outputs[0]), points, strides)
        return Candidates(boxes, jax.nn.sigmoid(flatten_levels(outputs[1])))

    spec = DetectorSpec("own", class_names, size, STRIDES)
    return Detector(spec, init, forward, lambda v, images, *_: (forward(v, images), {}), loss, decode)


def main(out="runs/own_detector", images=256, epochs=30):
    data = shapes_dataset(images, size=(96, 96)), shapes_dataset(32, size=(96, 96), split="val")
    detector = own_detector(data[0].class_names, (96, 96))
    optimiser, validation = OptimiserConfig(weight_decay=0.05, ema_decay=0.95), ValidationConfig(samples=0)
    config = TrainConfig(epochs=epochs, optimiser=optimiser, validation=validation)
    run = yolojax.fit(config, out, data=data, detector=detector)
    decayed = jax.tree.leaves(detector.decay_mask(run.variables["params"]))
    print(f"weight decay moves {sum(decayed)} of {len(decayed)} arrays; AP50 {run.result.AP50:.3f}")
    print(yolojax.load(out, detector=detector)(data[1].records[0].pixels(), confidence=0.1))


if __name__ == "__main__":
    main()
