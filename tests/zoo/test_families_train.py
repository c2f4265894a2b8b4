"""The smallest scale of each family learns *shapes* from nothing, within a stated time; another family is one line."""

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from yolojax import zoo
from yolojax.config import AugmentConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.training.fit import fit

# Figures have no upright and any colour: flips are true to them, and colours need no help.
AUGMENT = AugmentConfig(flip_vertical=0.5, scale_min=0.8, scale_max=1.25, hue=0.0, saturation=0.0, value=0.0)

TWO_STAGES = {
    "depth": 18,
    "width": 16,
    "channels": 32,
    "hidden": 64,
    "anchor_sizes": [12.0, 24.0, 40.0, 64.0, 96.0],
    "proposals": 64,
    "training_proposals": 128,
    "first_sample": 64,
    "second_sample": 48,
}


@dataclass(frozen=True)
class Row:
    """What is trained, on what and how long.

    Attributes:
      options: of the family; the scale is the smallest by default.
      images: arguments of `shapes_dataset`.
      count: of the training images.
      epochs, learning_rate: of the run.
      hyper: hyper-parameters of the loss.
    """

    options: dict[str, Any] = field(default_factory=dict)
    images: dict[str, Any] = field(default_factory=lambda: {"size": (96, 96)})
    count: int = 500
    epochs: int = 80
    learning_rate: float = 2e-3
    hyper: dict[str, float] = field(default_factory=dict)


FAMILIES = {
    "yolov10": Row(),
    "yolov10-many": Row({"head": "one_to_many"}),
    "yolo26": Row(),
    "yolo26-many": Row({"head": "one_to_many"}),
    "yolov5": Row(epochs=120),
    "yolov5u": Row(),
    "yolov8": Row(),
    "yolov9": Row(),
    "yolov9-auxiliary": Row({"auxiliary": True}),
    "yolo11": Row(),
    "yolo12": Row(),
    "yolonas": Row(epochs=40),
    "yolox-nano": Row(epochs=160),
    "fasterrcnn": Row(TWO_STAGES),
    # With the published weights of the losses its classes are learnt long after its boxes.
    "rtdetr": Row(
        {"queries": 30, "denoising": 16, "backbone_rate": 1.0},
        {"size": (64, 64), "figures": (0.35, 0.7), "objects": 3},
        epochs=32,
        learning_rate=6e-4,
        hyper={"lambda_cls": 3.0},
    ),
    # A cell of YOLOv1 has 64 pixels and learns one object. Its last layer reads the whole map at once, and learns
    # little of an image that it sees again.
    "yolov1-tiny": Row(
        {"width": 0.5},
        {"size": (128, 128), "figures": (0.35, 0.7), "objects": 1},
        count=4000,
        epochs=10,
        learning_rate=1e-3,
        hyper={"lambda_cls": 5.0},
    ),
}
"""Names in the zoo, with what comes after a hyphen as a remark."""

MINUTES = 60
"""The time that one core may take."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_learns_figures_that_it_has_not_seen(family, tmp_path):
    """Measured on 100 images that it was not trained on."""
    name = family if family in zoo.ARCHITECTURES else family.partition("-")[0]
    row = FAMILIES[family]
    config = TrainConfig(
        model=ModelConfig(name, row.images["size"][0], options=row.options),
        augment=AUGMENT,
        optimiser=OptimiserConfig(learning_rate=row.learning_rate),
        hyper=row.hyper,
        validation=ValidationConfig(samples=0),
        epochs=row.epochs,
        batch_size=16,
        validate_every=0,
        checkpoint_every=0,
    )
    data = shapes_dataset(row.count, **row.images), shapes_dataset(100, split="val", **row.images)
    started = time.monotonic()
    run = fit(config, tmp_path / "run", data=data)
    minutes = (time.monotonic() - started) / 60
    print(f"{family}: AP50 {run.result.AP50:.3f}, AP {run.result.AP:.3f}, {minutes:.1f} minutes, {run.seconds}")
    assert run.result.AP50 >= 0.8 and minutes < MINUTES
