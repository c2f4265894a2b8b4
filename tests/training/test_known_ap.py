"""A whole run that has to learn: it must reach the average precision that this library is known to reach."""

import pytest

from yolojax.config import AugmentConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.training.fit import fit

FLIPS = AugmentConfig(
    flip_vertical=0.5, scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0
)


@pytest.mark.slow
def test_a_detector_learns_sixteen_images(tmp_path):
    """200 steps on 16 generated images of 64 x 64 pixels gave AP .786 and AP50 .918 on the same images.

    The bounds leave room for other rounding on other machines.
    """
    images = shapes_dataset(16, size=(64, 64))
    options = {"widths": (8, 16, 32), "depths": (0, 1, 1), "head_width": 32, "reg_max": 8}
    config = TrainConfig(
        model=ModelConfig("compact", 64, options=options),
        augment=FLIPS,
        optimiser=OptimiserConfig(learning_rate=1e-2, ema_decay=0.9, warmup_steps=20),
        validation=ValidationConfig(samples=0),
        epochs=200,
        batch_size=16,
        validate_every=0,
        checkpoint_every=0,
    )
    result = fit(config, tmp_path / "run", data=(images, images)).result
    assert abs(result.AP - 0.786) < 0.08 and result.AP50 > 0.85
