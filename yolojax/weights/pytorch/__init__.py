"""PyTorch's ``.pt`` and ``.pth`` files, read without PyTorch and without executing anything that they say.

Such a file is a pickle, a program whose opcodes may import any module and call any function. `read_pytorch` interprets
the opcodes itself and builds inert records, so that the classes of a pickled network are never needed. Memory is
bounded by the file's size: tensors are views of the mapped file, and everything else is charged to an allowance.
"""

from yolojax.weights.pytorch._reader import read_pytorch

__all__ = ["read_pytorch"]
