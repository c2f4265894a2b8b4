"""What the studies of small training runs share: their data sets and scale, and how they call `fit` and `sweep`.

The images are generated ones of 96 x 96 pixels with two classes, round figures and angular ones (a hundred such images
do not teach six), or the photos of a data set. The network is the lesson's, with some 10^5 parameters, so that a run
takes seconds on two idle cores. Images to learn from, to choose by and to be measured on come from separate streams of
*shapes*.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import jax
import numpy as np

from yolojax import zoo
from yolojax.anchors import deal_to_levels, kmeans_anchors
from yolojax.config import AugmentConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import Dataset, ImageCache, box_sizes_on_input, build_cache, open_dataset
from yolojax.data.shapes import CLASS_NAMES, MIN_VISIBLE, MOST_OBJECTS, shapes_dataset
from yolojax.detector import Detector, Variables
from yolojax.geometry import Preprocess
from yolojax.inference.evaluate import DetectBatch, Evaluation, evaluate_images, make_detect_batch
from yolojax.progress import Quiet
from yolojax.structures import Batch, Hyper, Targets, hyper_as_arrays
from yolojax.training.callbacks import Callback
from yolojax.training.fit import fit
from yolojax.training.sweep import Trial, sweep

BOX_LOSSES = ("mse", "iou", "giou", "diou", "ciou", "siou")
NO_CHANGE = AugmentConfig(0.0, 0.0, 1.0, 1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0)
FLIPS_AND_SCALES = AugmentConfig(flip_vertical=0.5, scale_min=0.8, scale_max=1.25, hue=0.0, saturation=0.0, value=0.0)
CLASSES, ROUND = ("round", "angular"), ("ellipse", "ring")


@dataclass(frozen=True)
class Scale:
    """How large the runs of a study are."""

    side: int = 96
    train: int = 100
    test: int = 200
    epochs: int = 60
    batch: int = 10
    seeds: int = 5
    learning_rate: float = 8e-3
    widths: tuple[int, ...] = (0, 16, 32, 48, 64)
    depths: tuple[int, ...] = (0, 1, 1, 0, 0)
    neck_width: int = 48
    levels: int = 3
    augment: bool = True
    objects: int = MOST_OBJECTS
    visible: float = MIN_VISIBLE
    folder: str = ""  # of a data set that takes the place of the generated images

    @property
    def steps(self) -> int:
        return self.epochs * self.train // self.batch

    def facts(self) -> dict[str, Any]:
        """What a record should say about it."""
        return {key: getattr(self, key) for key in ("side", "train", "test", "epochs", "batch", "seeds")}


BCCD = Scale(160, 205, 72, 30)
"""The blood cells of BCCD: all images of its parts."""

QUICK = Scale(32, 8, 8, 2, 4, 2, widths=(0, 8, 0, 8, 8), depths=(0,) * 5, neck_width=8, levels=1, augment=False)


def scale_of(args: argparse.Namespace) -> Scale:
    return QUICK if args.quick else Scale()


def scales_of(args: argparse.Namespace) -> dict[str, Scale]:
    """The generated images and, where ``--bccd`` says where they are, the photos."""
    photos = {"BCCD": replace(BCCD, folder=args.bccd)} if args.bccd and not args.quick else {}
    return {"shapes": scale_of(args), **photos}


def by_data(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs on each data set."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        found.setdefault(run["data"], []).append(run)
    return found


def add_bccd(parser: argparse.ArgumentParser) -> None:
    """The option ``--bccd``."""
    parser.add_argument("--bccd", metavar="FOLDER", help="the data set BCCD, as `yolojax train` takes it")


@lru_cache
def images(
    count: int, side: int, split: str = "train", objects: int = MOST_OBJECTS, visible: float = MIN_VISIBLE
) -> ImageCache:
    """The first images of a stream of *shapes* in two classes, on an input image of their own size."""
    dataset = shapes_dataset(count, size=(side, side), split=split, objects=objects, visible=visible)
    group = np.array([name not in ROUND for name in CLASS_NAMES], np.int32)
    records = tuple(replace(r, classes=group[r.classes]) for r in dataset.records)
    return build_cache(
        replace(dataset, class_names=CLASSES, category_ids=(1, 2), records=records), (side, side), Preprocess()
    )


@cache
def part(scale: Scale, split: str = "train", count: int | None = None) -> ImageCache:
    """A part of the data: its first ``count`` generated images, as many as the scale says by default; or all of the
    data set's."""
    if scale.folder:
        return build_cache(open_dataset(scale.folder, split), (scale.side, scale.side), Preprocess())
    count = count or (scale.train if split == "train" else scale.test)
    return images(count, scale.side, split, scale.objects, scale.visible)


@cache
def lesson_detector(scale: Scale, per_level: int = 2, box_loss: str = "ciou") -> Detector:
    """The lesson's detector with anchors from the training images."""
    learn = part(scale)
    sizes = box_sizes_on_input(learn.dataset, (scale.side, scale.side))
    return zoo.build(
        "lesson",
        learn.dataset.class_names,
        (scale.side, scale.side),
        anchors=np.round(deal_to_levels(kmeans_anchors(sizes, per_level * scale.levels), scale.levels), 1).tolist(),
        widths=scale.widths,
        depths=scale.depths,
        neck_width=scale.neck_width,
        momentum=0.9,
        box_loss=box_loss,
    )


def config_of(scale: Scale, seed: int, images: int, *, epochs: int | None = None, **hyper: float) -> TrainConfig:
    """The configuration of a run on so many images, without measurements and with one checkpoint, at its end.

    The run takes as many steps as ``epochs`` (the scale's by default) over ``scale.train`` images, whatever the number
    of images is, rounded to whole epochs of theirs.
    """
    steps = (scale.epochs if epochs is None else epochs) * scale.train // scale.batch
    return TrainConfig(
        augment=FLIPS_AND_SCALES if scale.augment else NO_CHANGE,
        optimiser=OptimiserConfig(learning_rate=scale.learning_rate),
        hyper=hyper,
        epochs=max(1, round(steps / max(1, round(images / scale.batch)))),
        batch_size=scale.batch,
        seed=seed,
        validate_every=0,
        checkpoint_every=0,
    )


def train(
    detector: Detector,
    data: Dataset,
    scale: Scale,
    seed: int,
    *,
    epochs: int | None = None,
    callbacks: Sequence[Callback] = (),
    **hyper: float,
) -> Variables:
    """Trains by `yolojax.training.fit.fit` into a temporary folder and returns the averaged variables.

    The records of November 2026 were made with the same step called directly: the order of images was the same, and
    the initial parameters and the augmentation came from other random numbers of the same laws. Their runs on BCCD took
    615 steps; rounded to whole epochs, they take 620 on the training photos and 608 on those of the other two parts.

    Args:
      detector: what is trained, with its own loss.
      data: the images to learn from.
      scale: the size of the run; see `config_of`.
      seed: of initial parameters, order and augmentation.
      epochs: see `config_of`.
      callbacks: as `fit` takes them.
      hyper: values of `yolojax.structures.Hyper`, by name.
    """
    config = config_of(scale, seed, len(data), epochs=epochs, **hyper)
    with tempfile.TemporaryDirectory() as folder:
        return fit(config, f"{folder}/run", data=data, detector=detector, callbacks=callbacks).variables


def train_trials(
    detector: Detector, data: Dataset, scale: Scale, trials: Sequence[Trial], *, epochs: int | None = None
) -> list[Variables]:
    """Trains a detector once for every trial, by `yolojax.training.sweep.sweep`, and returns the averaged variables.

    A trial is the run that `train` makes with its seed and hyper-parameters; one program, compiled once, makes all of
    them. What `train` says of the records of November 2026 holds here too. Raises `FloatingPointError` for a trial
    whose loss is not finite.
    """
    if not trials:
        return []
    config = config_of(scale, 0, len(data), epochs=epochs)
    found = sweep(config, trials, measure=False, data=data, detector=detector)
    for trial, losses in zip(found.trials, found.losses, strict=True):
        if not np.isfinite(losses).all():
            raise FloatingPointError(f"{trial}: the loss is not finite")
    return list(found.variables)


_programs: dict[Any, DetectBatch] = {}


def evaluate(detector: Detector, variables: Variables, input_images: ImageCache) -> Evaluation:
    """COCO's numbers of pycocotools, confidence .001, NMS .7.

    Detectors that differ in their loss alone share one compiled program.
    """
    validation = ValidationConfig(max_detections=100, batch_size=min(50, len(input_images)))
    key = (detector.forward, detector.decode)
    if key not in _programs:
        _programs[key] = make_detect_batch(detector, validation.max_detections)
    return evaluate_images(_programs[key], detector, variables, input_images, validation, Quiet())


def hyper_of(detector: Detector) -> Hyper:
    """The hyper-parameters of the detector's loss as arrays."""
    return hyper_as_arrays(Hyper()._replace(**detector.spec.hyper))


def take(pixels: jax.Array, targets: Targets, indices: jax.Array) -> Batch:
    """The batch of these images."""
    return Batch(pixels[indices], jax.tree.map(lambda a: a[indices], targets))


def ap_by_iou(evaluation: Evaluation) -> list[float]:
    """AP at IoU .50, .55, ..., .95."""
    return np.nanmean(evaluation.result.curves.precision, axis=(1, 2)).tolist()
