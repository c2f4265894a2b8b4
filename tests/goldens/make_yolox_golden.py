"""Writes `yolox_torch.npz`: two small YOLOX with random weights and statistics, and what PyTorch computes from them.

Run from the root of a checkout with torch 2.14.1: ``python -m tests.goldens.make_yolox_golden``. The file holds, under
``plain`` (as trained, with normalisation) and ``depthwise`` (folded), the arrays by Megvii's names, and ``input``
(uint8, NHWC) and the outputs (raw box, probability of an object, of the classes).
"""

from pathlib import Path

import numpy as np
import torch

from experiments.benchmarks.inference_speed.torch_yolox import TorchYOLOX

CLASSES, WIDTH = 3, 2


def main() -> None:
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (2, 64, 96, 3)).astype(np.uint8)
    image = torch.from_numpy(pixels.astype(np.float32).transpose(0, 3, 1, 2).copy())
    record = {"input": pixels}
    for name, depthwise in (("plain", False), ("depthwise", True)):
        net = TorchYOLOX(CLASSES, width=WIDTH, n=2 if depthwise else 1, depthwise=depthwise, folded=depthwise).eval()
        state = net.state_dict()
        for key, value in state.items():
            if key.endswith("num_batches_tracked"):
                continue
            shape = tuple(value.shape)
            if key.endswith(("running_var", "bn.weight")):
                drawn = rng.uniform(0.5, 1.5, shape)
            else:
                scale = 1.0 / 128 if ".stem." in key and len(shape) == 4 else 1.0
                drawn = rng.standard_normal(shape) * scale / max(1, np.sqrt(np.prod(shape[1:])))
            state[key] = torch.from_numpy(np.asarray(drawn, np.float32))
        net.load_state_dict(state)
        with torch.no_grad():
            record[f"{name}_output"] = net(image).numpy()
        record |= {f"{name}/{key}": value.numpy() for key, value in state.items()}
    np.savez_compressed(Path(__file__).parent / "yolox_torch.npz", **record)


if __name__ == "__main__":
    main()
