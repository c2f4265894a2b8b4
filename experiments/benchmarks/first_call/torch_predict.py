"""What somebody writes in PyTorch to see the boxes of one photo: YOLOX-Nano, eager, from the interpreter's start.

python -m experiments.benchmarks.first_call.torch_predict WEIGHTS_FOLDER PHOTO
"""

# pyright: reportMissingImports=false

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.benchmarks.inference_speed.study import NANO, SIDES, torch_detections, torch_network


def main() -> None:
    import torch

    weights, photo = Path(sys.argv[1]), Image.open(sys.argv[2]).convert("RGB")
    side = SIDES[NANO]
    scale = side / max(photo.size)
    small = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (side, side), (114, 114, 114))
    square.paste(small)
    pixels = np.asarray(square)[..., ::-1].astype(np.float32).transpose(2, 0, 1)[None]
    network = torch_network(NANO, weights, Path())
    boxes, scores, classes = torch_detections(NANO, network(torch.from_numpy(pixels.copy())))[0]
    for box, score, label in zip(boxes / scale, scores, classes, strict=True):
        print(int(label), round(float(score), 3), [round(float(x), 1) for x in box])


main()
