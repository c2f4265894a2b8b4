"""Data sets: readers, the generated set *shapes*, and feeding. Boxes are in original pixels until `feed`."""

from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.feed import (
    CanvasCache,
    Canvases,
    build_cache,
    evaluation_batches,
    load_canvas,
    pad_targets,
    padded_objects,
    place_on_canvas,
    sample_indices,
    training_batches,
)
from yolojax.data.opening import list_splits, open_dataset
from yolojax.data.shapes import shapes_dataset
from yolojax.data.stream import CanvasStream, prefetch, stream_canvases
from yolojax.data.summary import Finding, Summary
from yolojax.data.writing import write_coco, write_voc, write_yolo

__all__ = [
    "CanvasCache",
    "CanvasStream",
    "Canvases",
    "Dataset",
    "Finding",
    "ImageRecord",
    "Summary",
    "build_cache",
    "evaluation_batches",
    "list_splits",
    "load_canvas",
    "open_dataset",
    "pad_targets",
    "padded_objects",
    "place_on_canvas",
    "prefetch",
    "sample_indices",
    "shapes_dataset",
    "stream_canvases",
    "training_batches",
    "write_coco",
    "write_voc",
    "write_yolo",
]
