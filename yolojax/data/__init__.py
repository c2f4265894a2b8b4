"""Data sets: readers, the generated set *shapes*, input images, sampling and feeding.

Boxes of a `Dataset` are in original pixels, boxes of `InputImages` and of batches in input pixels.

The public names stand in ``__init__.pyi`` and are imported on first use: what only finds and reads files need not wait
for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
