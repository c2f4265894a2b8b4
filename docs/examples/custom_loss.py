"""A loss of your own in `fit`, and a detector of the zoo with another assigner, box loss and class loss.

Run: python docs/examples/custom_loss.py
Prints the last epoch's parts of the loss, the part `calm` among them, and the AP50 after a very short training.
"""

import jax
import jax.numpy as jnp

import yolojax
from yolojax import zoo
from yolojax.config import OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.losses import binary_cross_entropy

OPTIONS = {"widths": (0, 16, 32, 64), "depths": (0, 1, 1, 1), "head_width": 32, "merge": True}


def poly_loss(logits, targets, epsilon=1.0):
    """Poly-1 (arXiv 2204.12511): binary cross-entropy plus epsilon (1 - p_t), element-wise."""
    p = jax.nn.sigmoid(logits)
    return binary_cross_entropy(logits, targets) + epsilon * (p * (1 - targets) + (1 - p) * targets)


def with_calm_logits(loss, weight=0.01):
    """Adds a part to a detector's loss: the mean squared class logit of each image."""

    def calm_loss(outputs, targets, hyper):
        terms = loss(outputs, targets, hyper)
        squares = sum(jnp.mean(level.cls**2, axis=(1, 2, 3)) for level in outputs)
        sums = terms.sums | {"calm": weight * squares}
        normalisers = terms.normalisers | {"calm": jnp.ones_like(squares)}  # the batch's mean, not its sum
        return terms._replace(sums=sums, normalisers=normalisers)

    return calm_loss


def main(out="runs/custom_loss", images=128, epochs=20):
    data = shapes_dataset(images, size=(96, 96)), shapes_dataset(32, size=(96, 96), split="val")
    parts = {"assign": "simota", "box_loss": "giou", "class_loss": poly_loss}
    detector = zoo.build("compact", data[0].class_names, (96, 96), **OPTIONS, **parts)
    detector = detector._replace(loss=with_calm_logits(detector.loss))
    config = TrainConfig(
        epochs=epochs,
        optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95),
        validation=ValidationConfig(samples=0),
    )

    rows = []
    run = yolojax.fit(config, out, data=data, detector=detector, callbacks=[lambda event: rows.append(event.row)])
    print({name: round(value, 3) for name, value in rows[-1].items() if name.startswith("train/")})
    print(f"AP50 {run.result.AP50:.3f}")
    # A file holds no functions, so loading asks for those that the description names.
    predictor = yolojax.load(out, parts={"class_loss": poly_loss, "loss": detector.loss})
    print(predictor(data[1].records[0].pixels(), confidence=0.05))


if __name__ == "__main__":
    main()
