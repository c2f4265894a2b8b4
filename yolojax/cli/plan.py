"""``yolojax plan``: whether a run fits a TPU slice or a GPU, and what limits it, before the machine is rented."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from yolojax.config import AugmentConfig, DataConfig, ModelConfig, Remat, TrainConfig, ValidationConfig, check
from yolojax.errors import ConfigError

if TYPE_CHECKING:
    from yolojax.planning.targets import Target

MOST_CLASSES, MOST_OBJECTS = 10_000, 10_000
"""What is larger is a typing error."""


@dataclass(frozen=True)
class Plan:
    """Compile a run for a TPU slice or a GPU that is not here, and tell whether it fits and what limits it.

    The programs of a run are compiled by the target's own compiler, which takes minutes; nothing is run, and every
    figure is the compiler's estimate. "yolojax train ... --plan TARGET" plans exactly that run.

    Attributes:
      data: a data set, as train takes it, whose classes, shape and number of objects hold; none is needed.
      target: what to compile for, such as v5e:4x4 or h100:8; list shows all.
      model: the kind of detector, as train takes it, such as yolov8l.
      option: further settings of the kind of detector, as NAME=VALUE, e.g. scale=l.
      size: longest side of the images as the detector sees them, in pixels; a multiple of 32.
      batch_size: images per step, over all chips.
      accumulate: parts in which a batch is computed, one after another; the same step in less memory.
      remat: what the backward pass computes again instead of keeping it; activations keeps what convolutions give,
        segments what passes between segments of the network.
      compute: number format of the network's computation.
      classes: number of classes, where there is no data set.
      objects: most objects of an image, where there is no data set.
      val_batch_size: images of an evaluation's and of a prediction's call, over all chips.
      programs: what to compile.
      no_largest: leave out the largest batch that fits, which compiles the training step once more.
      json: print JSON and nothing else.
      augment: Random changes of the training images.
    """

    data: Annotated[Positional[str | None], arg(metavar="[DATA]", help_behavior_hint="")] = None
    target: Annotated[str | None, arg(metavar="TARGET|list", help_behavior_hint="(required)")] = None
    model: Annotated[str, arg(metavar="NAME|RUN|FILE")] = "yolov8"
    option: Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")] = ()
    size: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 640, or that of a run or file)")] = (
        None
    )
    batch_size: int = 16
    accumulate: int = 1
    remat: Remat = "none"
    compute: Literal["float32", "bfloat16"] = "bfloat16"
    classes: int = 80
    objects: int = 128
    val_batch_size: int = 16
    programs: tuple[Literal["train", "evaluate", "predict"], ...] = ("train", "evaluate", "predict")
    no_largest: bool = False
    json: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def run(self) -> int:
        """Compiles and prints; the exit code is 0 whether it fits or not."""
        from yolojax.planning.targets import target_table

        if self.target is None:
            raise ConfigError("which target? give one, as in: yolojax plan --target v5e:2x2 (--target list shows all)")
        if self.target == "list":
            print(target_table())
            return 0
        for name, value, most in (("classes", self.classes, MOST_CLASSES), ("objects", self.objects, MOST_OBJECTS)):
            if not 1 <= value <= most:
                raise ConfigError(f"--{name} {value}: give a number from 1 to {most:,}")
        target = ready_target(self.target)
        config = check(self.config())
        return plan_and_print(
            config,
            target,
            with_data=self.data is not None,
            classes=self.classes,
            objects=self.objects,
            programs=self.programs,
            largest=not self.no_largest,
            as_json=self.json,
        )

    def config(self) -> TrainConfig:
        """Returns the run that is planned; raises `ConfigError` for an option that is no NAME=VALUE."""
        from yolojax.cli.model import choose_model
        from yolojax.cli.train import option_values

        model = choose_model(self.model, option_values("option", self.option))
        return TrainConfig(
            data=DataConfig(path=self.data or "shapes"),
            model=ModelConfig(name=model.name, size=self.size or model.size or 640, options=model.options),
            augment=self.augment,
            validation=ValidationConfig(batch_size=self.val_batch_size),
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            remat=self.remat,
            compute=self.compute,
        )


def ready_target(text: str) -> Target:
    """Reads a target, and sees to it that its compiler is there; to be called before JAX initialises a device.

    Raises `ConfigError` for a target that does not exist or whose compiler is missing, before anything takes long.
    """
    from yolojax.planning.compilers import compile_on_processor, missing_compiler
    from yolojax.planning.targets import parse_target

    target = parse_target(text)
    if missing := missing_compiler(target):
        raise ConfigError(missing)
    compile_on_processor()
    return target


def plan_and_print(
    config: TrainConfig,
    target: Target,
    *,
    with_data: bool,
    classes: int = 80,
    objects: int = 128,
    programs: tuple[Literal["train", "evaluate", "predict"], ...] = ("train", "evaluate", "predict"),
    largest: bool = True,
    as_json: bool = False,
) -> int:
    """Plans a run, and prints it as text or JSON."""
    from yolojax.cli.progress import make_reporter
    from yolojax.planning.plan import make_plan
    from yolojax.planning.text import as_dict, as_text
    from yolojax.training.data import open_data

    reporter = make_reporter()
    data = open_data(config.data, config.seed, None, reporter).train if with_data else None
    plan = make_plan(
        config, target, reporter, data=data, classes=classes, objects=objects, programs=programs, largest=largest
    )
    print(json.dumps(as_dict(plan), indent=1) if as_json else as_text(plan))
    return 0
