"""``yolojax train`` and ``yolojax demo``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from yolojax.cli.folders import choose_folder
from yolojax.cli.model import DEFAULT, ModelChoice, choose_model
from yolojax.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    Remat,
    TrainConfig,
    ValidationConfig,
    check,
    demo_config,
)
from yolojax.errors import ConfigError

_DEFAULT = TrainConfig()


@dataclass(frozen=True)
class Train:
    """Train a detector on a data set.

    Attributes:
      data: a folder or file in Pascal VOC, COCO or YOLO layout (recognised by itself), or "shapes" for generated
        images.
      out: the run directory: settings, log, curves, pictures of what was trained on and of what was found, checkpoints,
        and in best/ the detector for predict and val.
      resume: go on with the unfinished run in this directory, with the settings it was started with.
      train_split: part of the data set to train on.
      val_split: part of the data set to measure the detector on.
      images: the folder of the images, where they do not lie at their format's usual place.
      skip_bad: leave out training images that cannot be used, and name them, instead of stopping at the first.
      max_objects: most objects that an image can have; more are left out and counted.
      sampling: how often images are drawn: uniform, all alike; class-balanced, such that all classes come equally
        often; repeat-factor, more often the more a rare class is on them.
      repeat_threshold: for repeat-factor: share of the images below which a class is rare.
      cache: where decoded images are kept: device memory, memory, disk, or nowhere (stream); auto takes the first with
        room.
      cache_folder: for a cache on disk.
      fraction: share of the training images to use, for quick trials.
      model: the kind of detector: an architecture (yolojax models lists them), with its scale or not, such as yolov8s;
        or a run or weight file, whose architecture is taken, and from whose weights training starts.
      size: longest side of the images as the detector sees them, in pixels; a multiple of 32. Larger finds smaller
        objects and takes longer.
      multi_scale: train at that many sizes around --size, 3 to 5, each compiled once.
      multi_scale_range: how much smaller and larger than --size they get, as a share.
      square: give the detector a square input even where all training images have one other shape.
      option: further settings of the kind of detector, as NAME=VALUE, e.g. shared_head=true "widths=[16,32,64,128]".
      hyper: weights of the parts of the loss, as NAME=VALUE, e.g. lambda_cls=1.
      final_hyper: other weights for the last --final-share of the run, as NAME=VALUE. YOLOX's own recipe is
        "--final-hyper lambda_l1=1 --final-share .05 --augment.mosaic 1 --augment.close-mosaic .05".
      final_share: share of the run, at its end, in which --final-hyper holds.
      init: what to start from: a run directory, a released detector, a .safetensors file, or a published file such
        as best.pt; parameters that fit are taken, the others named.
      freeze: parts of the detector that stay as they are, their BatchNorm statistics included; backbone, neck, head, or
        a path below them.
      epochs: how often every training image is seen.
      minutes: time for training and measuring; the run is shortened to what still fits as it goes on.
      batch_size: images per step, over all devices, or auto for what fits the memory.
      accumulate: parts in which a batch is computed, one after another; the same step in less memory.
      remat: what the backward pass computes again instead of keeping it: the same step in less memory of an
        accelerator, and in more time. activations keeps what convolutions give, segments what passes between segments
        of the network: .53 and .27 of the memory of YOLOv8s on an H100, by its compiler.
      seed: of everything random; the same seed gives the same run.
      compute: number format of the network's computation; bfloat16 is faster on a GPU or TPU.
      validate_every: epochs between measurements on the validation images; 0 measures only at the end.
      checkpoint_every: epochs between checkpoints to resume from; 0 saves only at the end.
      select: which parameters best/ holds at the end: the final ones, or those that measured best.
      select_by: the number of the report that says what is best, e.g. AP50, recall or F1.
      patience: epochs without a better measurement after which training stops; 0 never stops early.
      validate_raw: also measure the parameters themselves, beside their running average; best_raw/ holds the best.
      log: also log to these: tensorboard (into the run directory), wandb, mlflow; each needs the extra of its name.
      plan: do not train; compile the run for this TPU slice or GPU, such as v5e:4x4 or h100:8, and tell whether it
        fits and what limits it, as "yolojax plan" does (its --target list shows all).
      distributed: join the other processes of a job, as the scheduler (SLURM, Kubernetes, a TPU pod) names them.
      augment: Random changes of the training images.
      optimiser: How the parameters move.
      validation: How the detector is measured.
    """

    data: Annotated[Positional[str | None], arg(metavar="[DATA]", help_behavior_hint="")] = None
    out: Annotated[
        Path | None,
        arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/train, runs/train2, ...)"),
    ] = None
    resume: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    train_split: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: train, or all of it where there are no parts)")
    ] = None
    val_split: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: val, or none where there is none)")
    ] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    skip_bad: bool = False
    max_objects: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint="(default: as many as the fullest image has)")
    ] = None
    fraction: float = _DEFAULT.data.fraction
    sampling: Literal["uniform", "class-balanced", "repeat-factor"] = _DEFAULT.data.sampling
    repeat_threshold: float = _DEFAULT.data.repeat_threshold
    cache: Literal["auto", "device", "memory", "disk", "stream"] = _DEFAULT.data.cache
    cache_folder: Annotated[
        str | None, arg(metavar="FOLDER", help_behavior_hint="(default: yolojax in the user's cache folder)")
    ] = None
    model: Annotated[
        str | None, arg(metavar="NAME|RUN|FILE", help_behavior_hint=f"(default: that of --init, else {DEFAULT})")
    ] = None
    size: Annotated[
        int | None, arg(metavar="INT", help_behavior_hint=f"(default: {_DEFAULT.model.size}, or that of a run or file)")
    ] = None
    multi_scale: int = _DEFAULT.model.multi_scale
    multi_scale_range: float = _DEFAULT.model.multi_scale_range
    square: bool = not _DEFAULT.model.rectangular
    option: Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")] = ()
    hyper: Annotated[
        tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="(default: those of the kind of detector)")
    ] = ()
    final_hyper: Annotated[tuple[str, ...], arg(metavar="[NAME=VALUE ...]", help_behavior_hint="")] = ()
    final_share: float = _DEFAULT.final_share
    init: Annotated[
        str | None, arg(metavar="PATH", help_behavior_hint="(default: that of --model, else random parameters)")
    ] = None
    freeze: Annotated[tuple[str, ...], arg(metavar="[PART ...]", help_behavior_hint="")] = ()
    epochs: int = _DEFAULT.epochs
    minutes: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="(default: as long as it takes)")] = None
    batch_size: Annotated[int | Literal["auto"], arg(metavar="INT|auto")] = _DEFAULT.batch_size
    accumulate: int = _DEFAULT.accumulate
    remat: Remat = _DEFAULT.remat
    seed: int = _DEFAULT.seed
    compute: Literal["float32", "bfloat16"] = _DEFAULT.compute
    validate_every: int = _DEFAULT.validate_every
    checkpoint_every: int = _DEFAULT.checkpoint_every
    select: Literal["best", "last"] = _DEFAULT.select
    select_by: str = _DEFAULT.select_by
    patience: int = _DEFAULT.patience
    validate_raw: bool = _DEFAULT.validate_raw
    log: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow"], ...], arg(metavar="[NAME ...]", help_behavior_hint="")
    ] = ()
    plan: Annotated[str | None, arg(metavar="TARGET", help_behavior_hint="")] = None
    distributed: bool = False
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def config(self) -> TrainConfig:
        """Returns the settings as `fit` takes them.

        Raises:
          ConfigError: a text that is no NAME=VALUE, or a model that is not there.
          CheckpointError: a run or weight file given as the model that cannot be read.
        """
        return self._with(choose_model(self.model, option_values("option", self.option), self.init))

    def _with(self, model: ModelChoice) -> TrainConfig:
        """The settings for a model that is known already."""
        return TrainConfig(
            data=DataConfig(
                path=self.data or _DEFAULT.data.path,
                train_split=self.train_split,
                val_split=self.val_split,
                images=None if self.images is None else str(self.images),
                skip_bad=self.skip_bad,
                max_objects=self.max_objects,
                fraction=self.fraction,
                sampling=self.sampling,
                repeat_threshold=self.repeat_threshold,
                cache=self.cache,
                cache_folder=self.cache_folder,
            ),
            model=ModelConfig(
                name=model.name,
                size=next(size for size in (self.size, model.size, _DEFAULT.model.size) if size is not None),
                rectangular=not self.square,
                multi_scale=self.multi_scale,
                multi_scale_range=self.multi_scale_range,
                options=model.options,
            ),
            init=model.weights if self.init is None else self.init,
            hyper=_numbers("hyper", self.hyper),
            final_hyper=_numbers("final-hyper", self.final_hyper),
            **{
                name: getattr(self, name)
                for name in (
                    *("augment", "optimiser", "validation", "epochs", "batch_size", "seed", "compute"),
                    *("minutes", "accumulate", "remat", "validate_every", "checkpoint_every", "select", "select_by"),
                    *("patience", "validate_raw", "final_share"),
                )
            },
            freeze=tuple(part.rstrip("/") for part in self.freeze),
        )

    def run(self) -> int:
        """Trains, then prints the final measurement and where the run is; with ``plan`` only plans."""
        if self.plan is not None:
            return self._plan(self.plan)
        if self.resume is not None:
            config = check(self._resumed(self.resume))
            _prepare(config, self.distributed)
            return _fit(config, self.resume, resume=True, log=self.log)
        if self.data is None:
            raise ConfigError("which data? give a data set, as in: yolojax train path/to/data (or try: yolojax demo)")
        from yolojax.sharding.processes import in_a_job

        if self.out is None and in_a_job(self.distributed):
            raise ConfigError("several processes write one run: give them the same --out")
        out = choose_folder(self.out, Path("runs/train"))
        # Of a run or file as the model jax asks for its devices, which are to be chosen, and shared, before that.
        _prepare(check(self._with(ModelChoice(DEFAULT))), self.distributed)
        return _fit(check(self.config()), out, log=self.log)

    def _plan(self, text: str) -> int:
        from yolojax.cli.plan import plan_and_print, ready_target

        if self.resume is not None or self.data is None:
            raise ConfigError("--plan is for a run that begins, and needs its data; give a data set, without --resume")
        target = ready_target(text)
        return plan_and_print(check(self.config()), target, with_data=True)

    def _resumed(self, run: Path) -> TrainConfig:
        from yolojax.training.run_directory import read_config

        config = read_config(run)
        fresh = Train(data=self.data, resume=self.resume, distributed=self.distributed, log=self.log)
        changed = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(fresh, f.name)]
        if self.data is not None and self.data != config.data.path:
            changed.insert(0, "data")
        if changed:
            raise ConfigError(
                f"--resume goes on with the settings of {run}; leave out {', '.join(map(_option_name, changed))}"
            )
        return config


@dataclass(frozen=True)
class Demo:
    """Train, measure and draw a small detector on generated images, in a few minutes on two processor cores.

    Attributes:
      out: the run directory.
      seed: of everything random.
    """

    out: Annotated[
        Path | None, arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/demo, runs/demo2, ...)")
    ] = None
    seed: int = 0

    def run(self) -> int:
        """Trains, then prints the final measurement and where the run is."""
        config, out = demo_config(self.seed), choose_folder(self.out, Path("runs/demo"))
        _prepare(config)
        return _fit(config, out)


def _prepare(config: TrainConfig, distributed: bool = False) -> None:
    """Settles, for a checked configuration, what has to be before jax is asked for its devices or compiles anything."""
    from yolojax.compilation_cache import keep_programs
    from yolojax.data.index import keep_index
    from yolojax.processor.memory import prepare_processor
    from yolojax.sharding.processes import join

    keep_programs()
    keep_index()
    prepare_processor(config.batch_size, config.accumulate)
    join(distributed)


def _fit(config: TrainConfig, out: Path, *, resume: bool = False, log: Sequence[str] = ()) -> int:
    from yolojax.cli.progress import make_reporter
    from yolojax.eval.table import format_result
    from yolojax.sharding.processes import is_first, noticing_lost_processes
    from yolojax.training.checkpoint import complete_checkpoints
    from yolojax.training.fit import fit
    from yolojax.training.loggers import LOGGERS

    loggers = [LOGGERS[name]() for name in dict.fromkeys(log)]
    advice = f"go on with all processes and --resume {out}"
    try:
        with noticing_lost_processes(advice):
            run = fit(config, out, resume=resume, callbacks=loggers, reporter=make_reporter())
    except KeyboardInterrupt as stop:
        if complete_checkpoints(out / "checkpoints"):
            raise type(stop)(f"go on with: yolojax train --resume {out}") from None
        raise
    if not is_first():
        return 0
    if run.result is not None:
        print(format_result(run.result))
        print()
    print(f"{run.folder}: settings, log, pictures and the detector; to use it:")
    print(f"  yolojax predict PHOTO --model {run.folder}")
    return 0


def _option_name(field_name: str) -> str:
    return "DATA" if field_name == "data" else f"--{field_name.replace('_', '-')}"


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--{option} {text}: give NAME=VALUE")
        pairs[name] = value
    return pairs


def option_values(option: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns values by name: JSON where the text is JSON, else a number, else the text."""
    values: dict[str, Any] = {}
    for name, text in _pairs(option, texts).items():
        for read in (json.loads, float, str):
            try:
                values[name] = read(text)
                break
            except (ValueError, RecursionError):  # no JSON, or brackets within thousands of brackets
                continue
    return values


def _numbers(option: str, texts: tuple[str, ...]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, text in _pairs(option, texts).items():
        try:
            numbers[name] = float(text)
        except ValueError:
            raise ConfigError(f"--{option} {name}={text}: give a number") from None
    return numbers
