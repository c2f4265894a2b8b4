"""The public names of `yolojax.data`; `yolojax/data/__init__.py` reads them here and imports each on first use."""

from .cache import (
    DeviceCache as DeviceCache,
    DiskCache as DiskCache,
    build_disk_cache as build_disk_cache,
    to_devices as to_devices,
)
from .dataset import Dataset as Dataset, ImageRecord as ImageRecord
from .feed import device_batches as device_batches, local_rows as local_rows, onto_devices as onto_devices
from .input_images import (
    ImageCache as ImageCache,
    InputImages as InputImages,
    box_sizes_on_input as box_sizes_on_input,
    build_cache as build_cache,
    choose_input_size as choose_input_size,
    load_input_image as load_input_image,
    make_input_image as make_input_image,
    pad_targets as pad_targets,
    padded_objects as padded_objects,
)
from .opening import list_splits as list_splits, open_dataset as open_dataset
from .paths import split_named as split_named
from .sampling import (
    Sampler as Sampler,
    class_balanced_weights as class_balanced_weights,
    make_sampler as make_sampler,
    repeat_factor_weights as repeat_factor_weights,
    sample_indices as sample_indices,
    uniform_sampler as uniform_sampler,
    weighted_sampler as weighted_sampler,
)
from .shapes import shapes_dataset as shapes_dataset
from .splits import open_splits as open_splits, take_fraction as take_fraction, validation_split as validation_split
from .storage import (
    Capacity as Capacity,
    Storage as Storage,
    choose_storage as choose_storage,
    default_cache_folder as default_cache_folder,
    free_memory as free_memory,
    measure_capacity as measure_capacity,
    open_input_images as open_input_images,
)
from .stream import ImageStream as ImageStream, prefetch as prefetch, stream_images as stream_images
from .summary import Finding as Finding, Summary as Summary
from .writing import lost_in as lost_in, write_coco as write_coco, write_voc as write_voc, write_yolo as write_yolo
