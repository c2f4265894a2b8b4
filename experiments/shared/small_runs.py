"""Small training runs for the studies: one compiled step serves every seed, every `Hyper` and every choice of a study.

Generated images of 96 x 96 pixels with two classes, round figures and angular ones (a hundred such images do not teach
six), or the photos of a data set; and a network of the lesson's kind with some 10^5 parameters, so that a run takes
seconds on two idle cores. Step,
augmentation, optimiser and evaluation are the library's own; what `fit` adds is the run directory. Images to learn
from, to choose by and to be measured on come from separate streams of *shapes*.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import zoo
from yolojax.anchors import deal_to_levels, kmeans_anchors
from yolojax.coding import levels_of
from yolojax.config import AugmentConfig, OptimiserConfig, ValidationConfig
from yolojax.data import box_sizes_on_input, open_dataset
from yolojax.data.input_images import ImageCache, build_cache
from yolojax.data.sampling import sample_indices
from yolojax.data.shapes import CLASS_NAMES, MIN_VISIBLE, MOST_OBJECTS, shapes_dataset
from yolojax.detector import Detector, Variables
from yolojax.geometry import Preprocess
from yolojax.inference.evaluate import Evaluation, evaluate_images, make_detect_batch
from yolojax.losses import on_decoded_boxes, squared_offset_loss, yolov3_loss
from yolojax.progress import Quiet
from yolojax.structures import Batch, Hyper, LossTerms, Targets, hyper_as_arrays
from yolojax.training.augmentation import make_augmentations
from yolojax.training.state import make_state
from yolojax.training.step import make_train_step
from yolojax.zoo.parts import BOX_LOSSES as DECODED_BOX_LOSSES

BOX_PARTS = {
    "mse": squared_offset_loss,
    **{name: on_decoded_boxes(DECODED_BOX_LOSSES[name]) for name in ("iou", "giou", "diou", "ciou", "siou")},
}
BOX_LOSSES = tuple(BOX_PARTS)
NO_CHANGE = AugmentConfig(0.0, 0.0, 1.0, 1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0)
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
def lesson_detector(scale: Scale, per_level: int = 2) -> Detector:
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
    )


def any_box_loss(detector: Detector, choice: jax.Array) -> Detector:
    """The same detector with the box loss ``BOX_LOSSES[choice]``, a traced number: one program for all of them."""
    sizes = jnp.asarray(detector.spec.options["anchors"], jnp.float32)

    def part(*args: jax.Array) -> jax.Array:
        return jax.lax.switch(choice, list(BOX_PARTS.values()), *args)

    def loss(outputs: Any, targets: Targets, hyper: Hyper) -> LossTerms:
        return yolov3_loss(outputs, levels_of(outputs, detector.spec.strides), sizes, targets, hyper, box_loss=part)

    return detector._replace(loss=loss)


class Trainer:
    """Trains one architecture again and again; what differs between runs is traced.

    ``variant(detector, choice)`` makes the detector whose loss is used from the number ``choice`` of a run.
    """

    def __init__(
        self,
        detector: Detector,
        scale: Scale,
        variant: Callable[[Detector, jax.Array], Detector] = lambda detector, choice: detector,
    ) -> None:
        self.detector, self.scale = detector, scale
        optimiser = OptimiserConfig(learning_rate=scale.learning_rate)
        shape = AugmentConfig(flip_vertical=0.5, scale_min=0.8, scale_max=1.25, hue=0.0, saturation=0.0, value=0.0)
        augmentation, _ = make_augmentations(shape if scale.augment else NO_CHANGE)
        values = {"learning_rate": optimiser.learning_rate, "weight_decay": optimiser.weight_decay}
        self.hyper = Hyper()._replace(**{**detector.spec.hyper, **values})
        self._init = jax.jit(lambda key, steps: make_state(detector, optimiser, steps, key), static_argnums=1)

        def step(state, pixels, targets, indices, hyper, key, choice):
            batch = take(pixels, targets, indices)
            one = make_train_step(variant(detector, choice), optimiser, augmentation, key)
            return one(state, batch, hyper)

        self._step = jax.jit(step, donate_argnums=0)
        self.positives = 0.0  # an image, in the last step of the last run
        self._detect = make_detect_batch(detector, 100)

    def train(
        self,
        seed: int,
        input_images: ImageCache,
        *,
        targets: Targets | None = None,
        subset: Sequence[int] | None = None,
        choice: int = 0,
        epochs: int | None = None,
        **hyper: float,
    ) -> Variables:
        """One run: the averaged variables. ``targets`` replaces the input images' own, ``subset`` picks images."""
        steps = self.scale.steps if epochs is None else epochs * self.scale.train // self.scale.batch
        chosen = np.arange(len(input_images)) if subset is None else np.asarray(subset)
        pixels, targets = jnp.asarray(input_images.images), jax.tree.map(jnp.asarray, targets or input_images.targets)
        state, key = self._init(jax.random.key(seed), steps), jax.random.key(1_000_000 + seed)
        traced = hyper_as_arrays(self.hyper._replace(**hyper))
        report = None
        for step in range(steps):
            indices = chosen[sample_indices(seed, step, self.scale.batch, len(chosen))]
            state, report = self._step(state, pixels, targets, indices, traced, key, jnp.int32(choice))
        assert report is not None
        if not bool(report.finite):
            raise FloatingPointError(f"seed {seed}, choice {choice}, {hyper}: the loss is not finite")
        self.positives = float(report.counts["positives"]) / self.scale.batch
        return state.ema

    def evaluate(self, variables: Variables, input_images: ImageCache) -> Evaluation:
        """COCO's numbers of pycocotools, confidence .001, NMS .7."""
        validation = ValidationConfig(max_detections=100, batch_size=min(50, len(input_images)))
        return evaluate_images(self._detect, self.detector, variables, input_images, validation, Quiet())


@cache
def lesson_trainer(scale: Scale) -> Trainer:
    """The trainer of `lesson_detector` with any box loss by its number; CIoU's is ``CIOU``."""
    return Trainer(lesson_detector(scale), scale, any_box_loss)


CIOU = BOX_LOSSES.index("ciou")


def take(pixels: jax.Array, targets: Targets, indices: jax.Array) -> Batch:
    """The batch of these images."""
    return Batch(pixels[indices], jax.tree.map(lambda a: a[indices], targets))


def ap_by_iou(evaluation: Evaluation) -> list[float]:
    """AP at IoU .50, .55, ..., .95."""
    return np.nanmean(evaluation.result.curves.precision, axis=(1, 2)).tolist()
