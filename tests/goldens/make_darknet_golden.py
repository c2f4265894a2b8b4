"""Writes darknet_opencv.npz: what OpenCV computes for the networks of tests/darknet_cases.py.

Run from the root of a checkout, with numpy, jaxtyping and opencv-python-headless==4.14.0.94
(OpenCV 5 reads no Darknet files):

    python tests/goldens/make_darknet_golden.py

For each network: ``NAME/head0`` and so on, the output of the convolution before each prediction layer (in the order of
the cfg, ``[channels, h, w]``; before its activation where that is logistic), ``NAME/rows0``, the prediction layer's
own rows ``(cx, cy, w, h, objectness, class scores)``, relative to the input image, scores at most .2 (v2: .001) set to
0, and ``NAME/sha256`` of the weight file. BatchNorm there is sqrt(var + 1e-6). ``resized/HxW``: `random_image` of
`RESIZED_FROM`, seed 9, in 0..255, by ``cv2.resize``.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.darknet_cases import NARROW, RESIZED_FROM, RESIZED_TO, random_image, random_weights  # noqa: E402
from yolojax.weights.darknet import Header, parse_cfg, stored_arrays, write_weights  # noqa: E402


def main() -> None:
    out: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        cfg_file, weights_file = Path(folder) / "net.cfg", Path(folder) / "net.weights"
        for name, text in NARROW.items():
            cfg = parse_cfg(text, name)
            cfg_file.write_text(text)
            write_weights(weights_file, cfg, random_weights(stored_arrays(cfg), 1), Header(seen=64))
            net = cv2.dnn.readNetFromDarknet(str(cfg_file), str(weights_file))
            image = random_image((cfg.height, cfg.width), 7)
            net.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
            detections = ["detection_out"] if name == "yolov2" else [f"yolo_{i}" for i in cfg.detections]
            found = net.forward([f"conv_{i - 1}" for i in cfg.detections] + detections)
            for k in range(len(detections)):
                out[f"{name}/head{k}"] = found[k][0].copy()
                out[f"{name}/rows{k}"] = found[len(detections) + k].copy()
            digest = hashlib.sha256(weights_file.read_bytes()).digest()
            out[f"{name}/sha256"] = np.frombuffer(digest, np.uint8)
    photo = (random_image(RESIZED_FROM, 9) * 255).round().astype(np.uint8)
    for h, w in RESIZED_TO:
        out[f"resized/{h}x{w}"] = cv2.resize(photo, (w, h), interpolation=cv2.INTER_LINEAR)
    np.savez_compressed(HERE / "darknet_opencv.npz", **out)


if __name__ == "__main__":
    main()
