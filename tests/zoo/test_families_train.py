"""Every published family learns: its smallest scale, trained on generated images, finds them in others."""

import pytest

from yolojax.config import AugmentConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.training.fit import fit

SIZE = (96, 96)

# Architecture, and options of the model.
RUNS = [
    pytest.param("yolov10", {}, id="yolov10n"),
    pytest.param("yolov10", {"head": "one_to_many"}, id="yolov10n, one-to-many"),
    pytest.param("yolo26", {}, id="yolo26n"),
    pytest.param("yolo26", {"head": "one_to_many"}, id="yolo26n, one-to-many"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), RUNS)
def test_learns_shapes(name, options, tmp_path):
    """640 steps on 256 generated images of 96 x 96 pixels, measured on 64 others."""
    config = TrainConfig(
        model=ModelConfig(name, SIZE[0], options=options),
        augment=AugmentConfig(flip_vertical=0.5, hue=0.0, saturation=0.0, value=0.0),
        optimiser=OptimiserConfig(learning_rate=2e-3, ema_decay=0.99, warmup_steps=50),
        validation=ValidationConfig(samples=0),
        epochs=40,
        batch_size=16,
        validate_every=0,
        checkpoint_every=0,
    )
    data = shapes_dataset(256, size=SIZE), shapes_dataset(64, size=SIZE, split="val")
    assert fit(config, tmp_path / "run", data=data).result.AP50 >= 0.8
