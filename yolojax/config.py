"""Frozen configuration of a training run: everything that is static, with presets as plain functions.

What may change without recompiling is `yolojax.structures.Hyper`; what is here decides shapes and programs.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from yolojax.errors import ConfigError
from yolojax.settings import build, shown


@dataclass(frozen=True)
class DataConfig:
    """Which images.

    Attributes:
      path: a data set (VOC, COCO or YOLO layout, recognised by itself) or ``shapes`` for generated images.
      train_split: the split to train on; None takes the data set's own training split.
      val_split: the split to validate on during training and at the end; None takes the data set's own.
      images: the folder of the images, where they do not lie at their format's usual place.
      skip_bad: leave out unreadable training images, counted and named, instead of stopping.
      max_objects: most objects an image is padded to; None takes what the data needs.
      sampling: ``uniform`` draws every image equally often; ``class-balanced`` draws so that every class appears
        equally often; ``repeat-factor`` draws images with rare classes more often.
      repeat_threshold: share of the images below which a class is rare, for repeat-factor.
      cache: where decoded images are kept: in device memory, memory, on disk, or nowhere (stream); auto takes the first
        with room.
      cache_folder: for a cache on disk; None is the user's cache folder.
      fraction: share of the training images that is used, drawn by the run's seed; for quick trials.
    """

    path: str | Path = "shapes"
    train_split: str | None = None
    val_split: str | None = None
    images: str | Path | None = None
    skip_bad: bool = False
    max_objects: int | None = None
    sampling: Literal["uniform", "class-balanced", "repeat-factor"] = "uniform"
    repeat_threshold: float = 0.001
    cache: Literal["auto", "device", "memory", "disk", "stream"] = "auto"
    cache_folder: str | Path | None = None
    fraction: float = 1.0


@dataclass(frozen=True)
class ModelConfig:
    """Which detector.

    Attributes:
      name: an architecture of `yolojax.zoo`.
      size: longest side of the input image in pixels, a multiple of the largest stride.
      rectangular: shorten the input image to the aspect ratio that the training images share, where they share one.
      multi_scale: train at that many sizes of the input image around ``size`` (3 to 5, one program each); 1 trains at
        ``size`` alone.
      multi_scale_range: how much smaller and larger than ``size`` they get, as a share.
      options: further arguments of the architecture's builder.
    """

    name: str = "compact"
    size: int = 320
    rectangular: bool = True
    multi_scale: int = 1
    multi_scale_range: float = 0.25
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images, inside the compiled step. Zero (or 1 for scales) turns one off.

    Attributes:
      flip_horizontal: probability that an image is mirrored left to right.
      flip_vertical: probability that it is mirrored top to bottom; for images that have no upright
        direction (microscopy, aerial).
      scale_min: smallest random magnification.
      scale_max: largest random magnification.
      translate: largest shift, as a share of the input image.
      rotate: largest rotation in degrees.
      shear: largest shear angle in degrees, below 45.
      perspective: largest tilt: how much closer or farther a border of the input image comes, as a share, below .5.
      hue: largest change of the hue, as a share of the colour circle.
      saturation: largest relative change of saturation.
      value: largest relative change of brightness.
      cutout: probability that parts of an image are hidden by grey rectangles.
      mosaic: probability that an image becomes a mosaic of four.
      mosaic9: probability that it becomes a mosaic of nine instead; give one of the two.
      mixup: probability that it is then blended with another image of the batch.
      close_mosaic: share of the run, at its end, that trains without mosaics and mixup.
    """

    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    scale_min: float = 0.6
    scale_max: float = 1.4
    translate: float = 0.1
    rotate: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    hue: float = 0.015
    saturation: float = 0.5
    value: float = 0.3
    cutout: float = 0.0
    mosaic: float = 0.0
    mosaic9: float = 0.0
    mixup: float = 0.0
    close_mosaic: float = 0.2


@dataclass(frozen=True)
class OptimiserConfig:
    """How parameters move.

    Attributes:
      name: adamw, sgd with Nesterov momentum, or another of optax's.
      learning_rate: step size at the top of the schedule.
      final_fraction: share of the top learning rate at the end of the schedule.
      schedule: how the learning rate falls after the warm-up; constant does not.
      warmup_steps: steps over which the learning rate rises at the start, at most a tenth of the run.
      momentum: of sgd and rmsprop.
      b1: decay of the first moment, of the others.
      b2: decay of the second moment, of those that have one.
      weight_decay: how strongly kernels (not biases and scales) are drawn towards zero.
      decay: decoupled moves a kernel by learning rate times weight_decay times itself, as in AdamW; coupled, for sgd
        only, adds the decay to the gradient before the momentum, as Darknet, YOLOX and PyTorch do. Numbers of their
        recipes, such as 5e-4, mean coupled; with a momentum m that is about as strong as decoupled 5e-4 / (1 - m).
      clip_norm: largest norm of the whole gradient; a larger one is scaled down.
      ema_decay: memory of the running average of the parameters, which is what is measured and released; 0 turns
        averaging off.
    """

    name: Literal["adamw", "sgd", "nadamw", "radam", "adabelief", "lion", "lamb", "rmsprop"] = "adamw"
    learning_rate: float = 2e-3
    final_fraction: float = 0.02
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 100
    momentum: float = 0.9
    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.05
    decay: Literal["decoupled", "coupled"] = "decoupled"
    clip_norm: float = 10.0
    ema_decay: float = 0.998


Remat = Literal["none", "activations", "segments"]
"""Which activations are computed again in the backward pass (see `yolojax.training.remat`)."""

SuppressionName = Literal["nms", "soft-linear", "soft-gaussian", "diou", "matrix", "fast", "wbf", "none"]
"""The kinds of suppression that `yolojax.nms.named_suppression` makes."""


@dataclass(frozen=True)
class ValidationConfig:
    """How a detector is measured (COCO protocol).

    Attributes:
      confidence: detections with a lower score are not counted; the detector's own, .001 as a rule, where none is
        given.
      iou: overlap above which nms removes the box of lower score; the detector's own, .7 as a rule, where none is
        given. Other kinds of suppression do not read it.
      max_detections: most detections kept for an image; the detector's own, 300 as a rule, where none is given.
      suppress: kind of suppression; what the detector names, nms as a rule, where none is given.
      suppress_parameter: of soft-linear, the IoU from which it lowers scores (.3); of soft-gaussian and matrix,
        sigma (.5); of diou and fast, the overlap above which they suppress (.5); of wbf, the IoU above which it
        averages boxes (.55). nms and none have no parameter.
      batch_size: images per forward pass.
      samples: bootstrap resamples for the intervals of the report; 0 for none.
    """

    confidence: float | None = None
    iou: float | None = None
    max_detections: int | None = None
    suppress: SuppressionName | None = None
    suppress_parameter: float | None = None
    batch_size: int = 16
    samples: int = 1000


SELECTABLE = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    *("precision", "recall", "F1"),
)
"""Numbers of the report by which parameters can be chosen; F1 is the best one over all confidences, at IoU .5."""


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run; ``config.json`` of a run directory holds this, and what was given beside it.

    Attributes:
      data: which images.
      model: which detector.
      augment: random changes of the training images.
      optimiser: how parameters move.
      validation: how the detector is measured.
      hyper: overrides of the traced hyper-parameters, by name (``lambda_coord`` and so on).
      final_hyper: further overrides that hold in the last ``final_share`` of the run. YOLOX's own recipe trains its
        last 15 of 300 epochs with an L1 loss and without mosaic: ``lambda_l1`` 1, and ``augment.mosaic`` 1 with
        ``augment.close_mosaic`` .05.
      final_share: share of the run, at its end, in which ``final_hyper`` holds.
      epochs: passes over the training images.
      minutes: time for training and its measurements, compilation included. After every epoch, and within long ones,
        the run is shortened to what still fits, and the learning rate falls accordingly. None: as long as it takes.
      batch_size: images per optimiser step, over all devices; auto takes what fits the device's memory.
      accumulate: parts of a batch that are computed one after another, in the memory of one.
      remat: what the backward pass computes again instead of keeping it; the step is the same. ``activations`` keeps
        what convolutions and matrix products give, ``segments`` what passes between segments of the network, for about
        a third more work: .53 and .27 of the memory of YOLOv8s on an H100, by its compiler.
      seed: of initialisation, order and augmentation.
      compute: floating-point type of the network; parameters and statistics stay float32.
      validate_every: epochs between validations; 0 validates only at the end.
      checkpoint_every: epochs between checkpoints; 0 saves only at the end.
      select: ``best`` releases the best validated EMA parameters, ``last`` the final ones.
      select_by: the number of the report that says which is best.
      patience: epochs without a better measurement after which training stops; 0 never stops early.
      validate_raw: also measure the parameters themselves, beside their average; the best of them go to ``best_raw/``.
      init: what to start from: a run, a released detector, a ``.safetensors`` file; matching parameters are taken, the
        rest is named.
      freeze: parts that stay as they are, BatchNorm statistics included: ``backbone``, ``neck``, ``head``, or a path
        below them.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    hyper: dict[str, float] = field(default_factory=dict)
    final_hyper: dict[str, float] = field(default_factory=dict)
    final_share: float = 0.05
    epochs: int = 60
    minutes: float | None = None
    batch_size: int | Literal["auto"] = 16
    accumulate: int = 1
    remat: Remat = "none"
    seed: int = 0
    compute: Literal["float32", "bfloat16"] = "float32"
    validate_every: int = 10
    checkpoint_every: int = 10
    select: Literal["best", "last"] = "last"
    select_by: str = "AP"
    patience: int = 0
    validate_raw: bool = False
    init: str | Path | None = None
    freeze: tuple[str, ...] = ()


MOST_DETECTIONS = 100_000
"""Most detections of an image; memory for all of them is always allocated."""


MOST: dict[str, int] = {
    "epochs": 1_000_000,
    "minutes": 10_000_000,
    "batch_size": 65_536,
    "accumulate": 65_536,
    "validate_every": 1_000_000,
    "checkpoint_every": 1_000_000,
    "patience": 1_000_000,
    "data.max_objects": MOST_DETECTIONS,
    "model.size": 16_384,
    "augment.scale_min": 100,
    "augment.scale_max": 100,
    "optimiser.learning_rate": 1000,
    "optimiser.warmup_steps": 1_000_000_000,
    "optimiser.weight_decay": 1000,
    "optimiser.clip_norm": 1_000_000_000,
    "validation.batch_size": 65_536,
    "validation.samples": 1_000_000,
}
"""The largest value of each number that is not bounded by its meaning, far beyond what makes sense: what is larger is
a typing error, and would end in a shape or a loop that no machine holds."""


def demo_config(seed: int = 0) -> TrainConfig:
    """The preset of ``yolojax demo``: generated images, a small detector, a few minutes on two processor cores."""
    return TrainConfig(
        data=DataConfig(path="shapes"),
        model=ModelConfig(
            name="compact",
            size=160,
            # No layer works at half resolution, where channels are few and a processor is slow; figures of 24 to 80
            # pixels need no stride of 32.
            options={
                "widths": [0, 32, 64, 128],
                "depths": [0, 1, 1, 1],
                "head_width": 64,
                "csp": False,
                "merge": True,
            },
        ),
        # Figures have no upright and any colour: flips are true to them, and colours need no help.
        augment=AugmentConfig(flip_vertical=0.5, scale_min=0.8, scale_max=1.25, hue=0.0, saturation=0.0, value=0.0),
        epochs=20,
        batch_size=8,
        validate_every=0,
        seed=seed,
    )


def check(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with plain values: paths as texts, whole numbers as floats where floats are meant.

    Raises `ConfigError` naming the first setting of a wrong type or out of range.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigError(
            f"{type(config).__name__} is no configuration; give a TrainConfig, or from_dict(...) of values"
        )
    config = build(TrainConfig, dataclasses.asdict(config))

    def need(ok: bool, name: str, value: object, rule: str) -> None:
        if not ok:
            raise ConfigError(f"{name} = {shown(value)}: {rule}")

    a, o, v = config.augment, config.optimiser, config.validation
    for name in ("epochs", "accumulate"):
        need(getattr(config, name) >= 1, name, getattr(config, name), "give at least 1")
    if config.batch_size != "auto":
        need(config.batch_size >= 1, "batch_size", config.batch_size, "give at least 1, or auto")
        split = config.batch_size % config.accumulate == 0
        need(split, "accumulate", config.accumulate, f"give a divisor of batch_size = {config.batch_size}")
    need(config.minutes is None or config.minutes > 0, "minutes", config.minutes, "give a positive number")
    known = ", ".join(SELECTABLE)
    need(config.select_by in SELECTABLE, "select_by", config.select_by, f"give one of {known}")
    stoppable = config.patience == 0 or config.validate_every > 0
    need(stoppable, "patience", config.patience, "give validate_every as well, or nothing is measured meanwhile")
    for name in ("validate_every", "checkpoint_every", "seed", "patience"):
        need(getattr(config, name) >= 0, name, getattr(config, name), "give 0 or more")
    need(config.seed < 2**63, "seed", config.seed, "give less than 2^63")
    need(config.model.size >= 32, "model.size", config.model.size, "give at least 32 pixels")
    m = config.model
    need(m.multi_scale in (1, 3, 4, 5), "model.multi_scale", m.multi_scale, "give 1, or 3 to 5")
    need(0 < m.multi_scale_range < 1, "model.multi_scale_range", m.multi_scale_range, "give a share between 0 and 1")
    shares = ("flip_horizontal", "flip_vertical", "hue", "saturation", "value", "translate")
    for name in (*shares, "cutout", "mosaic", "mosaic9", "mixup", "close_mosaic"):
        need(0 <= getattr(a, name) <= 1, f"augment.{name}", getattr(a, name), "give a number from 0 to 1")
    need(not (a.mosaic and a.mosaic9), "augment.mosaic9", a.mosaic9, "give either mosaic or mosaic9")
    need(0 <= a.rotate <= 180, "augment.rotate", a.rotate, "give degrees from 0 to 180")
    need(0 <= a.shear < 45, "augment.shear", a.shear, "give degrees from 0 to below 45")
    need(0 <= a.perspective < 0.5, "augment.perspective", a.perspective, "give a share from 0 to below .5")
    need(0 < a.scale_min <= a.scale_max, "augment.scale_min", a.scale_min, "give 0 < scale_min <= scale_max")
    need(o.learning_rate > 0, "optimiser.learning_rate", o.learning_rate, "give a positive number")
    need(0 <= o.final_fraction <= 1, "optimiser.final_fraction", o.final_fraction, "give a number from 0 to 1")
    need(0 <= o.ema_decay < 1, "optimiser.ema_decay", o.ema_decay, "give a number from 0 to below 1")
    need(0 <= o.momentum < 1, "optimiser.momentum", o.momentum, "give a number from 0 to below 1")
    need(0 <= o.b1 < 1, "optimiser.b1", o.b1, "give a number from 0 to below 1")
    need(0 < o.b2 < 1, "optimiser.b2", o.b2, "give a number between 0 and 1")
    # An option that the optimiser does not read would be ignored in silence.
    unread = {"sgd": ("b1", "b2"), "rmsprop": ("b1",)}.get(o.name, ("momentum",))
    for name, value in changed_settings(o, unread):
        raise ConfigError(f"optimiser.{name} = {shown(value)}: {o.name} does not use it")
    need(o.decay == "decoupled" or o.name == "sgd", "optimiser.decay", o.decay, "only sgd has coupled decay")
    used = bool(config.final_hyper) or config.final_share == TrainConfig.final_share
    need(used, "final_share", config.final_share, "give final_hyper as well")
    for setting in ("hyper", "final_hyper"):
        for name, value in getattr(config, setting).items():
            if name == "learning_rate":
                need(value > 0, f"{setting}.{name}", value, "give a positive number")
            else:
                need(value >= 0, f"{setting}.{name}", value, "give 0 or more")
    need(0 < config.final_share <= 1, "final_share", config.final_share, "give a share above 0, at most 1")
    need(o.weight_decay >= 0, "optimiser.weight_decay", o.weight_decay, "give 0 or more")
    need(o.warmup_steps >= 0, "optimiser.warmup_steps", o.warmup_steps, "give 0 or more")
    need(o.clip_norm > 0, "optimiser.clip_norm", o.clip_norm, "give a positive number")
    if v.confidence is not None:
        need(0 <= v.confidence < 1, "validation.confidence", v.confidence, "give a number from 0 to below 1")
    if v.iou is not None:
        need(0 < v.iou <= 1, "validation.iou", v.iou, "give a number above 0, at most 1")
        greedy = v.suppress in (None, "nms")
        need(greedy, "validation.iou", v.iou, f"{v.suppress} does not read it; give validation.suppress_parameter")
    if v.max_detections is not None:
        some = 1 <= v.max_detections <= MOST_DETECTIONS
        need(some, "validation.max_detections", v.max_detections, f"give 1 to {MOST_DETECTIONS}")
    if v.suppress_parameter is not None:
        kind, parameter = v.suppress, v.suppress_parameter
        need(0 < parameter <= 100, "validation.suppress_parameter", parameter, "give a number above 0, at most 100")
        has = kind not in (None, "nms", "none")
        need(has, "validation.suppress_parameter", parameter, f"{kind or 'nms'} has no parameter; leave it out")
    need(v.batch_size >= 1, "validation.batch_size", v.batch_size, "give at least 1")
    need(v.samples == 0 or v.samples >= 2, "validation.samples", v.samples, "give at least 2, or 0 for no intervals")
    d = config.data
    need(0 < d.repeat_threshold <= 1, "data.repeat_threshold", d.repeat_threshold, "give a share above 0, at most 1")
    need(0 < config.data.fraction <= 1, "data.fraction", config.data.fraction, "give a number above 0, at most 1")
    if config.data.max_objects is not None:
        need(config.data.max_objects >= 1, "data.max_objects", config.data.max_objects, "give at least 1")
    for name, most in MOST.items():
        value = operator.attrgetter(name)(config)
        need(not isinstance(value, int | float) or value <= most, name, value, f"give at most {most:,}")
    try:
        json.dumps(config.model.options)
    except TypeError as error:
        raise ConfigError(
            f"model.options: {error}; a function of your own goes to zoo.build, and its record to fit as detector="
        ) from error
    return config


def changed_settings(settings: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Those of the named settings that differ from their defaults, with their values."""
    default = type(settings)()
    return ((name, getattr(settings, name)) for name in names if getattr(settings, name) != getattr(default, name))


def to_json(config: TrainConfig) -> str:
    """The configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"


def from_dict(values: Any) -> TrainConfig:
    """A configuration from nested plain values; raises `ConfigError` naming an unknown setting or a wrong type."""
    return check(build(TrainConfig, values))
