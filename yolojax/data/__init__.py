"""Data sets: readers, the generated set *shapes*, input images, sampling and feeding.

Boxes of a `Dataset` are in original pixels, boxes of `InputImages` and of batches in input pixels.

The names below are imported on first use: what only finds and reads files need not wait for JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolojax.data.cache import DeviceCache, DiskCache, build_disk_cache, to_devices
    from yolojax.data.dataset import Dataset, ImageRecord
    from yolojax.data.feed import device_batches, local_rows, onto_devices
    from yolojax.data.input_images import (
        ImageCache,
        InputImages,
        box_sizes_on_input,
        build_cache,
        choose_input_size,
        load_input_image,
        make_input_image,
        pad_targets,
        padded_objects,
    )
    from yolojax.data.opening import list_splits, open_dataset
    from yolojax.data.paths import split_named
    from yolojax.data.sampling import (
        Sampler,
        class_balanced_weights,
        make_sampler,
        repeat_factor_weights,
        sample_indices,
        uniform_sampler,
        weighted_sampler,
    )
    from yolojax.data.shapes import shapes_dataset
    from yolojax.data.splits import open_splits, take_fraction, validation_split
    from yolojax.data.storage import (
        Capacity,
        Storage,
        choose_storage,
        default_cache_folder,
        free_memory,
        measure_capacity,
        open_input_images,
    )
    from yolojax.data.stream import ImageStream, prefetch, stream_images
    from yolojax.data.summary import Finding, Summary
    from yolojax.data.writing import lost_in, write_coco, write_voc, write_yolo

__all__ = [
    "Capacity",
    "Dataset",
    "DeviceCache",
    "DiskCache",
    "Finding",
    "ImageCache",
    "ImageRecord",
    "ImageStream",
    "InputImages",
    "Sampler",
    "Storage",
    "Summary",
    "box_sizes_on_input",
    "build_cache",
    "build_disk_cache",
    "choose_input_size",
    "choose_storage",
    "class_balanced_weights",
    "default_cache_folder",
    "device_batches",
    "free_memory",
    "list_splits",
    "load_input_image",
    "local_rows",
    "lost_in",
    "make_input_image",
    "make_sampler",
    "measure_capacity",
    "onto_devices",
    "open_dataset",
    "open_input_images",
    "open_splits",
    "pad_targets",
    "padded_objects",
    "prefetch",
    "repeat_factor_weights",
    "sample_indices",
    "shapes_dataset",
    "split_named",
    "stream_images",
    "take_fraction",
    "to_devices",
    "uniform_sampler",
    "validation_split",
    "weighted_sampler",
    "write_coco",
    "write_voc",
    "write_yolo",
]

_MODULES = {
    "cache": ("DeviceCache", "DiskCache", "build_disk_cache", "to_devices"),
    "dataset": ("Dataset", "ImageRecord"),
    "feed": ("device_batches", "local_rows", "onto_devices"),
    "input_images": (
        "ImageCache",
        "InputImages",
        "box_sizes_on_input",
        "build_cache",
        "choose_input_size",
        "load_input_image",
        "make_input_image",
        "pad_targets",
        "padded_objects",
    ),
    "opening": ("list_splits", "open_dataset"),
    "paths": ("split_named",),
    "sampling": (
        "Sampler",
        "class_balanced_weights",
        "make_sampler",
        "repeat_factor_weights",
        "sample_indices",
        "uniform_sampler",
        "weighted_sampler",
    ),
    "shapes": ("shapes_dataset",),
    "splits": ("open_splits", "take_fraction", "validation_split"),
    "storage": (
        "Capacity",
        "Storage",
        "choose_storage",
        "default_cache_folder",
        "free_memory",
        "measure_capacity",
        "open_input_images",
    ),
    "stream": ("ImageStream", "prefetch", "stream_images"),
    "summary": ("Finding", "Summary"),
    "writing": ("lost_in", "write_coco", "write_voc", "write_yolo"),
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return globals().setdefault(name, getattr(import_module(f"{__name__}.{module}"), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
