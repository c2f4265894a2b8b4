"""Golden PyTorch files and what PyTorch reads from them. Run: python tests/goldens/make_pytorch_golden.py

Written with torch 2.13.0 on a CPU, from random numbers: a state dict of many types and layouts in the zip form and in
the older form, and a pickled ``Sequential`` in half precision. ``pytorch_expected.npz`` has the numbers as raw bytes,
because NumPy's format has no bfloat16.
"""

import collections
import json
import pathlib

import numpy as np
import torch

folder = pathlib.Path(__file__).parent
torch.manual_seed(20261128)

base = torch.randn(4, 6)
state = collections.OrderedDict(
    float32=torch.randn(2, 3, 3, 3),
    float16=torch.randn(5).half(),
    bfloat16=torch.randn(3, 2).bfloat16(),
    float64=torch.randn(2, 2, dtype=torch.float64),
    int64=torch.tensor(12345678901),
    int32=torch.arange(4, dtype=torch.int32),
    int16=torch.arange(-2, 2, dtype=torch.int16),
    int8=torch.arange(-3, 3, dtype=torch.int8),
    uint8=torch.arange(250, 256, dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    complex64=torch.randn(2, dtype=torch.complex64),
    empty=torch.zeros(0, 3),
    base=base,
    transposed=base.t(),
    part=base[1:3, 2:5],
    column=base[:, 4],
    expanded=torch.randn(3, 1).expand(3, 4),
    channels_last=torch.randn(1, 2, 3, 2).contiguous(memory_format=torch.channels_last),
    parameter=torch.nn.Parameter(torch.randn(3)),
)
checkpoint = {
    "model": state,
    "epoch": 7,
    "date": "2026-11-28",
    "train_args": {"imgsz": 320, "lr0": 0.01, "names": ["a", "b"]},
}
torch.save(checkpoint, folder / "pytorch_zip.pt")
torch.save(checkpoint, folder / "pytorch_legacy.pt", _use_new_zipfile_serialization=False)

network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, (3, 1), stride=2, bias=False), torch.nn.BatchNorm2d(4, eps=1e-3), torch.nn.SiLU()
)
network(torch.randn(2, 3, 8, 8))
network.names = {0: "cat", 1: "dog"}
network.stride = torch.tensor([8.0, 16.0])
torch.save({"model": None, "ema": network.half(), "version": "1.2"}, folder / "pytorch_module.pt")

expected, kinds = {}, {}
for name, tensors in (("state", state), ("module", network.state_dict())):
    for key, value in tensors.items():
        value = value.detach().contiguous()
        kinds[f"{name}/{key}"] = [str(value.dtype).removeprefix("torch."), list(value.shape)]
        raw = value.view(torch.uint8) if value.dim() else value[None].view(torch.uint8)
        expected[f"{name}/{key}"] = raw.reshape(-1).numpy()
np.savez(folder / "pytorch_expected.npz", kinds=json.dumps(kinds), **expected)
