"""Data sets: readers, the generated set *shapes*, and feeding. Boxes are in original pixels until `feed`."""

from yolojax.data.cache import (
    DeviceCache,
    DiskCache,
    Room,
    build_disk_cache,
    choose_storage,
    default_cache_folder,
    measure_room,
    to_devices,
)
from yolojax.data.dataset import Dataset, ImageRecord
from yolojax.data.feed import (
    ImageCache,
    InputImages,
    build_cache,
    evaluation_batches,
    load_input_image,
    make_input_image,
    pad_targets,
    padded_objects,
    training_batches,
)
from yolojax.data.opening import list_splits, open_dataset
from yolojax.data.sampling import (
    Sampler,
    class_balanced_weights,
    repeat_factor_weights,
    sample_indices,
    uniform_sampler,
    weighted_sampler,
)
from yolojax.data.shapes import shapes_dataset
from yolojax.data.stream import ImageStream, prefetch, stream_images
from yolojax.data.summary import Finding, Summary
from yolojax.data.writing import write_coco, write_voc, write_yolo

__all__ = [
    "Dataset",
    "DeviceCache",
    "DiskCache",
    "Finding",
    "ImageCache",
    "ImageRecord",
    "ImageStream",
    "InputImages",
    "Room",
    "Sampler",
    "Summary",
    "build_cache",
    "build_disk_cache",
    "choose_storage",
    "class_balanced_weights",
    "default_cache_folder",
    "evaluation_batches",
    "list_splits",
    "load_input_image",
    "make_input_image",
    "measure_room",
    "open_dataset",
    "pad_targets",
    "padded_objects",
    "prefetch",
    "repeat_factor_weights",
    "sample_indices",
    "shapes_dataset",
    "stream_images",
    "to_devices",
    "training_batches",
    "uniform_sampler",
    "weighted_sampler",
    "write_coco",
    "write_voc",
    "write_yolo",
]
