"""Writes `yolov9_multimedia.npz`: names of MultimediaTechLab's YOLOv9 (MIT), and what it computes from drawn weights.

Run from the root of a checkout, with torch 2.13, einops and omegaconf, and a checkout of
https://github.com/MultimediaTechLab/YOLO (c4cb5f6) at PATH: ``python -m tests.goldens.make_yolov9_golden PATH``.
For each of the scales t, m and c the file holds names and shapes (JSON), and the class and box logits of the main and
of the auxiliary head at every place, computed in float64. The weights are those of `drawn`, so that none are stored.
"""

import json
import logging
import sys
import types
import zlib
from pathlib import Path

import numpy as np

CLASSES, SIZE = 40, (32, 64)
PIXELS = np.random.default_rng(5).integers(0, 256, (*SIZE, 3)).astype(np.uint8)


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor of this name: variances and gains about 1, kernels that keep the spread of what passes."""
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    if "anc2vec" in name:
        return np.arange(shape[1], dtype=np.float32).reshape(shape)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith(("running_var", "bn.weight")):
        return rng.uniform(0.7, 1.3, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.2, shape).astype(np.float32)
    return rng.normal(0, 1.4 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)


def main() -> None:
    import torch
    from omegaconf import OmegaConf

    root = Path(sys.argv[1])
    # The package's own first file and its logger import the trainer's libraries, which the network does not need.
    for name in ("yolo", "yolo.utils", "yolo.model", "yolo.config", "yolo.tools"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(root / name.replace(".", "/"))]
    sys.modules["yolo.utils.logger"] = types.SimpleNamespace(logger=logging.getLogger("yolo"))
    sys.modules["yolo.tools.dataset_preparation"] = types.SimpleNamespace(prepare_weight=None)
    from yolo.model.yolo import YOLO

    record = {}
    image = torch.from_numpy(PIXELS.astype(np.float64).transpose(2, 0, 1)[None] / 255)
    for scale in ("t", "m", "c"):
        config = OmegaConf.load(root / f"yolo/config/model/v9-{scale}.yaml")
        OmegaConf.set_struct(config, False)
        config.anchor.setdefault("strides", None)
        net = YOLO(config, class_num=CLASSES).eval()
        shapes = {name: tuple(value.shape) for name, value in net.model.state_dict().items()}
        record[f"{scale}/tensors"] = json.dumps(shapes)
        net.model.load_state_dict({k: torch.from_numpy(drawn(k, shape)) for k, shape in shapes.items()})
        with torch.no_grad():
            out = net.double()(image)
        for head in ("Main", "AUX"):
            for level, (classes, boxes, _) in enumerate(out[head]):
                # Boxes are [1, bins, sides, h, w]; here the bins of a side lie side by side.
                sides = boxes[0].permute(2, 3, 1, 0).flatten(2)
                record[f"{scale}/{head}/{level}/box"] = sides.numpy().astype(np.float32)
                record[f"{scale}/{head}/{level}/cls"] = classes[0].permute(1, 2, 0).numpy().astype(np.float32)
    np.savez_compressed(Path(__file__).parent / "yolov9_multimedia.npz", **record)


if __name__ == "__main__":
    main()
