"""Moved to `yolojax.data.feed`."""

from yolojax.data.feed import device_batches, local_rows, onto_devices

__all__ = ["device_batches", "local_rows", "onto_devices"]
