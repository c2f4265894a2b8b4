"""Distillation: a small detector learns from the labels and from the scores of a larger one that was trained before.

A loss is given outputs and targets, not images. What it needs of the images, here the outputs of the teacher for them
as they are after the random changes, `forward_train` passes on. Prediction uses `forward`, which stays as it was.
The teacher's arrays become constants of the compiled step.
Run: python docs/examples/distillation.py
Prints the AP50 of both, and the parts of the student's loss in the last epoch.
"""

import jax
import jax.numpy as jnp

import yolojax
from yolojax import zoo
from yolojax.config import OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.losses import binary_cross_entropy

SIZE, SHARED = (96, 96), {"depths": (0, 1, 1, 1), "merge": True}
LARGE = {"widths": (0, 16, 32, 64), "head_width": 32, **SHARED}
SMALL = {"widths": (0, 8, 16, 32), "head_width": 16, **SHARED}


def distilled(student, teacher, teacher_variables, weight=2.0):
    """The student's record, whose training has a part ``distil``: cross-entropy with the teacher's class scores."""

    def forward_train(variables, images, targets, key):
        outputs, new = student.forward_train(variables, images, targets, key)
        return (outputs, teacher.forward(teacher_variables, images)), new

    def loss(outputs, targets, hyper):
        own, taught = outputs
        terms = student.loss(own, targets, hyper)
        per_level = [
            jnp.sum(binary_cross_entropy(a.cls, jax.nn.sigmoid(b.cls)), axis=(1, 2, 3))
            for a, b in zip(own, taught, strict=True)
        ]
        cells = sum(level.cls.shape[1] * level.cls.shape[2] for level in own)
        sums = terms.sums | {"distil": weight * sum(per_level) / cells}  # of each image
        return terms._replace(sums=sums, normalisers=terms.normalisers | {"distil": jnp.ones(len(targets.valid))})

    return student._replace(forward_train=forward_train, loss=loss)


def main(out="runs/distillation", images=192, epochs=20):
    data = shapes_dataset(images, size=SIZE), shapes_dataset(32, size=SIZE, split="val")
    config = TrainConfig(
        epochs=epochs,
        optimiser=OptimiserConfig(learning_rate=4e-3, ema_decay=0.95),
        validation=ValidationConfig(samples=0),
    )
    large = zoo.build("compact", data[0].class_names, SIZE, **LARGE)
    teacher = yolojax.fit(config, f"{out}_teacher", data=data, detector=large)

    student = distilled(zoo.build("compact", data[0].class_names, SIZE, **SMALL), large, teacher.variables)
    rows = []
    run = yolojax.fit(config, out, data=data, detector=student, callbacks=[lambda event: rows.append(event.row)])
    print({name: round(value, 3) for name, value in rows[-1].items() if name.startswith("train/")})
    print(f"AP50 of the teacher {teacher.result.AP50:.3f}, of the student {run.result.AP50:.3f}")
    # A file holds no functions; the record of the small detector predicts without the teacher.
    print(yolojax.load(out, detector=student)(data[1].records[0].pixels(), confidence=0.05))
    return run, rows


if __name__ == "__main__":
    main()
