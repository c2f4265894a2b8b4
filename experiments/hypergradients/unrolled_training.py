"""A short training run written out, a differentiable function of the loss weights. For `experiments.hypergradients`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.shared.small_runs import CLASSES, Scale, lesson_detector
from yolojax.detector import Detector, prepare_images
from yolojax.models.backbones import DarknetTiny
from yolojax.models.heads import YOLOHead
from yolojax.models.layers import Style
from yolojax.models.necks import FPN
from yolojax.models.network import Network
from yolojax.structures import Hyper
from yolojax.zoo import flax_detector

WEIGHTS = ("lambda_coord", "lambda_obj", "lambda_noobj", "lambda_cls")
KINDS = ("usual", "smooth")


def detector_of(kind: str, scale: Scale) -> tuple[Detector, Hyper]:
    """The detector, and the hyper-parameters besides the four weights."""
    if kind == "usual":
        return lesson_detector(scale), Hyper()

    lesson = lesson_detector(scale, box_loss="mse")
    style = Style("silu", momentum=0.9, epsilon=1e-5)
    backbone = DarknetTiny(scale.widths, scale.depths, csp=False, sppf=False, levels=scale.levels, style=style)
    network = Network(backbone, FPN(scale.neck_width, style=style), YOLOHead(2, len(CLASSES), style=style))
    return flax_detector(lesson.spec, network, lesson.loss, lesson.decode), Hyper(ignore_iou=1.0)


def make_outer(kind: str, scale: Scale, steps: int) -> Any:
    """``(log weights, variables, learn, test) -> validation loss`` after so many steps, a pure function."""
    detector, base = detector_of(kind, scale)
    optimiser = optax.sgd(0.02, momentum=0.9)
    start = jnp.log(jnp.array([getattr(Hyper(), name) for name in WEIGHTS]))

    def loss_of(params: Any, state: Any, batch: Any, hyper: Hyper) -> tuple[jax.Array, Any]:
        pixels = prepare_images(batch.images, detector.spec.preprocess)
        variables = {**state, "params": params}
        outputs, new = detector.forward_train(variables, pixels, batch.targets, jax.random.key(0))
        return detector.loss(outputs, batch.targets, hyper).reduce()[0], new

    def outer(log_weights: jax.Array, variables: Any, learn: Any, test: Any) -> jax.Array:
        hyper = base._replace(**dict(zip(WEIGHTS, jnp.exp(log_weights), strict=True)))
        params, state = variables["params"], variables
        momentum = optimiser.init(params)
        for _ in range(steps):
            gradient, state = jax.grad(loss_of, has_aux=True)(params, state, learn, hyper)
            updates, momentum = optimiser.update(gradient, momentum)
            params = optax.apply_updates(params, updates)
        return loss_of(params, state, test, base)[0]

    return detector, outer, start
