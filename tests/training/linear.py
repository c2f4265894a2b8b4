"""A detector of one convolution and one matrix that learns where the objects' middle lies: it compiles in a second."""

import jax
import jax.numpy as jnp
from jax import lax

from yolojax.detector import Detector, DetectorSpec
from yolojax.structures import Candidates, LossTerms


def linear_detector(class_names: tuple[str, ...], input_size: tuple[int, int]) -> Detector:
    """Parts of its loss: ``middle``, weighed by ``lambda_coord``, and ``count``, weighed by ``lambda_cls``."""
    spec = DetectorSpec("linear", class_names, input_size, (32,))

    def init(key):
        first, second = jax.random.split(key)
        kernel = 0.1 * jax.random.normal(first, (8, 8, 3, 4))
        return {
            "params": {
                "backbone": {"kernel": kernel, "bias": jnp.zeros(4)},
                "head": {"kernel": 0.1 * jax.random.normal(second, (4, 3)), "bias": jnp.zeros(3)},
            },
            "batch_stats": {"backbone": {"mean": jnp.zeros(4)}},
        }

    def features(variables, images):
        p = variables["params"]
        maps = lax.conv_general_dilated(
            images, p["backbone"]["kernel"], (8, 8), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        pooled = jnp.mean(jnp.tanh(maps + p["backbone"]["bias"][None, None, None]), axis=(1, 2))
        return pooled, pooled @ p["head"]["kernel"] + p["head"]["bias"][None]

    def forward(variables, images):
        return features(variables, images)[1]

    def forward_train(variables, images, targets, key):
        pooled, out = features(variables, images)
        noise = 0.01 * jax.random.normal(key, out.shape)
        mean = 0.9 * variables["batch_stats"]["backbone"]["mean"] + 0.1 * pooled.mean(0)
        return out + noise, {"batch_stats": {"backbone": {"mean": mean}}}

    def loss(outputs, targets, hyper):
        valid = targets.valid[..., None]
        centres = (targets.boxes[..., :2] + targets.boxes[..., 2:]) / 2 / input_size[0]
        number = targets.valid.sum(1)
        middle = jnp.where(valid, centres, 0.0).sum(1) / jnp.maximum(number, 1)[:, None]
        one = jnp.ones(number.shape)
        return LossTerms(
            {
                "middle": hyper.lambda_coord * jnp.sum((outputs[:, :2] - middle) ** 2, -1),
                "count": hyper.lambda_cls * (outputs[:, 2] - number) ** 2,
            },
            {"middle": one, "count": one},
            {"objects": number.astype(jnp.float32)},
        )

    def decode(outputs):
        centre = jax.nn.sigmoid(outputs[:, None, :2]) * input_size[0]
        boxes = jnp.concatenate([centre - 8, centre + 8], -1)
        return Candidates(boxes, jnp.full((*boxes.shape[:2], len(class_names)), 0.5))

    return Detector(spec, init, forward, forward_train, loss, decode)
