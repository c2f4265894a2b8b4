"""The labels that detectors which were not trained on them find most doubtful. Used by `experiments.label_suspects`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.small_runs import Scale, evaluate, hyper_of, lesson_detector, part, train_trials
from yolojax.boxes import box_iou
from yolojax.data import Dataset, ImageCache
from yolojax.detector import prepare_images
from yolojax.draw import Objects, caption, contact_sheet, draw_boxes
from yolojax.training.per_example import per_object_loss
from yolojax.training.sweep import Trial

FOLDS = (("train",), ("val", "test"))  # detectors that are trained on one judge the labels of the other
SEEN = 0.25  # score from which a detection says what the detector sees
Record = dict[str, Any]


def find_suspects(scale: Scale, count: int) -> tuple[list[Record], list[float]]:
    """The ``count`` labels of all parts with the highest `per_object_loss`, mean of ``scale.seeds`` detectors that were
    not trained on them; each with what the first of those sees there, boxes in pixels of the image. And the losses of
    all labels."""
    detector = lesson_detector(scale)
    hyper = hyper_of(detector)

    @jax.jit
    def score(variables: Any, pixels: Any, targets: Any) -> Any:
        outputs = detector.forward(variables, prepare_images(pixels, detector.spec.preprocess))
        return per_object_loss(detector, outputs, targets, hyper)

    found: list[Record] = []
    everything: list[float] = []
    for learn, judged in (FOLDS, FOLDS[::-1]):
        members = train_trials(detector, joined(scale, learn), scale, [Trial(seed) for seed in range(scale.seeds)])
        for split in judged:
            input_images = part(scale, split)
            targets = jax.tree.map(jnp.asarray, input_images.targets)
            losses = np.mean([score(v, jnp.asarray(input_images.images), targets) for v in members], axis=0)
            seen = evaluate(detector, members[0], input_images).detections
            everything += losses[input_images.targets.valid].round(2).tolist()
            for image, row in np.argwhere(input_images.targets.valid):
                found.append({"split": split, "image": int(image), "row": int(row), "loss": float(losses[image, row])})
            worst = sorted(found, key=lambda label: -label["loss"])[:count]
            found = [label if "file" in label else {**label, **_details(label, input_images, seen)} for label in worst]
    return found, everything


def joined(scale: Scale, splits: tuple[str, ...]) -> Dataset:
    """The images of several parts, numbered anew."""
    datasets = [part(scale, split).dataset for split in splits]
    records = [record for dataset in datasets for record in dataset.records]
    numbered = tuple(replace(record, image_id=number) for number, record in enumerate(records, 1))
    return replace(datasets[0], records=numbered)


def _details(label: Record, input_images: ImageCache, seen: list[Record]) -> Record:
    """Names and pixels of the original for a label, and the detection that overlaps it most."""
    dataset, image = input_images.dataset, label["image"]
    record, names = dataset.records[image], dict(zip(dataset.category_ids, dataset.class_names, strict=True))
    left, top, right, bottom = input_images.content[image]
    factor = (record.size[1] / (right - left), record.size[0] / (bottom - top))
    box = (input_images.targets.boxes[image, label["row"]] - np.array([left, top, left, top])) * np.array(factor * 2)
    own = [s for s in seen if s["image_id"] == input_images.image_ids[image] and s["score"] >= SEEN]
    sees: Record = {"class": None, "iou": 0.0, "score": 0.0}
    if own:
        boxes = np.array([s["bbox"] for s in own], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        ious = np.asarray(box_iou(jnp.asarray(box[None], jnp.float32), jnp.asarray(boxes)))[0]
        best = int(ious.argmax())
        name = names[own[best]["category_id"]]
        sees = {"class": name, "iou": round(float(ious[best]), 2), "score": round(own[best]["score"], 2)}
    return {
        "file": Path(record.file_name).name,
        "label": dataset.class_names[int(input_images.targets.classes[image, label["row"]])],
        "box": [round(float(x)) for x in box],
        "sees": sees if sees["iou"] > 0 else {"class": None, "iou": 0.0, "score": 0.0},
    }


def draw_suspects(scale: Scale, suspects: list[Record], around: float = 2.0, side: int = 160, columns: int = 10) -> Any:
    """A sheet with a cut-out around each label, ``around`` times as large as its box: the label alone is drawn."""
    tiles = []
    for number, label in enumerate(suspects, 1):
        pixels = part(scale, label["split"]).dataset.records[label["image"]].pixels()
        x1, y1, x2, y2 = label["box"]
        half = max(x2 - x1, y2 - y1, 16) * around / 2
        cx, cy, (h, w) = (x1 + x2) / 2, (y1 + y2) / 2, pixels.shape[:2]
        left, top = (round(min(max(c - half, 0), max(most - 2 * half, 0))) for c, most in ((cx, w), (cy, h)))
        cut = pixels[top : top + round(2 * half), left : left + round(2 * half)]
        rows, across = (np.arange(side) * n // side for n in cut.shape[:2])
        scales = np.array([side / cut.shape[1], side / cut.shape[0]] * 2)
        box = ((np.array(label["box"]) - [left, top, left, top]) * scales).astype(np.float32)
        names = part(scale, label["split"]).dataset.class_names
        objects = Objects(box[None], np.array([names.index(label["label"])]))
        tile = draw_boxes(np.ascontiguousarray(cut[rows][:, across]), objects, names)
        tiles.append(caption(tile, f"{number}. {label['loss']:.1f} {label['file']}"))
    return contact_sheet(tiles, columns)
