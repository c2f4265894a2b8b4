"""The smallest scale of each family learns *shapes* from nothing, within a stated time; another family is one line."""

import time

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

FAMILIES = {
    "yolov10": {},
    "yolov10-many": {"head": "one_to_many"},
    "yolo26": {},
    "yolo26-many": {"head": "one_to_many"},
    "yolov5": {},
    "yolov5u": {},
    "yolov8": {},
    "yolov9": {},
    "yolov9-auxiliary": {"auxiliary": True},
    "yolo11": {},
    "yolo12": {},
    "yolonas": {},
    "fasterrcnn": TWO_STAGES,
    "retinanet": {key: TWO_STAGES[key] for key in ("depth", "width", "channels", "anchor_sizes")},
    "yolov1-tiny": {"width": 0.5},
}
"""Names in the zoo, with what comes after a hyphen as a remark, and options; the scale is the smallest by default."""

IMAGES = {"yolov1-tiny": {"size": (192, 192), "objects": 1}}
"""Other images than those of 96 x 96 pixels: a cell of YOLOv1 has 64 pixels and learns one object."""

EPOCHS, MINUTES = {"yolonas": 40, "yolov5": 120}, 60
"""Epochs where they are not 80, and the time that one core may take."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_learns_figures_that_it_has_not_seen(family, tmp_path):
    """500 images to train on, 100 others to measure on."""
    name = family if family in zoo.ARCHITECTURES else family.partition("-")[0]
    images = {"size": (96, 96), **IMAGES.get(family, {})}
    config = TrainConfig(
        model=ModelConfig(name, images["size"][0], options=FAMILIES[family]),
        augment=AUGMENT,
        optimiser=OptimiserConfig(learning_rate=2e-3),
        validation=ValidationConfig(samples=0),
        epochs=EPOCHS.get(family, 80),
        batch_size=16,
        validate_every=0,
        checkpoint_every=0,
    )
    data = shapes_dataset(500, **images), shapes_dataset(100, split="val", **images)
    started = time.monotonic()
    run = fit(config, tmp_path / "run", data=data)
    minutes = (time.monotonic() - started) / 60
    print(f"{family}: AP50 {run.result.AP50:.3f}, AP {run.result.AP:.3f}, {minutes:.1f} minutes, {run.seconds}")
    assert run.result.AP50 >= 0.8 and minutes < MINUTES
