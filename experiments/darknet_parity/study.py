"""Do detectors read from Darknet's files compute what OpenCV computes from the same files?

Question: Yolo-Fastest-1.1 and -xl (COCO, 320 x 320, published as cfg and weights) through `zoo.from_darknet` against
OpenCV 4.14's `readNetFromDarknet`: raw prediction maps on one photograph, detections on three, COCO AP on 128 images.

Method: the recorded outputs of OpenCV are read from a folder. Its batch normalisation adds 1e-6 to the variance, so
that is given here too; Darknet's own 1e-5 is measured beside it. Photographs are stretched to the input image as the
detector asks for it, by OpenCV's bilinear filter. Detections: score .25, class-wise suppression at .45. AP: every class
of every anchor above .001, suppression at .45, the best 100 an image, pycocotools.

Command:   python -m experiments.darknet_parity --data FOLDER
           (weights/yolo-fastest-1.1_coco, photos, peers and data/coco128_train in FOLDER)
Expected:  2 minutes on two cores; maps within 1e-3, the same detections, AP within .001.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import zoo
from yolojax.data import build_cache, open_dataset
from yolojax.data.images import read_image
from yolojax.data.input_images import make_input_image
from yolojax.detector import Detector, Variables, prepare_images
from yolojax.eval.coco import evaluate_coco
from yolojax.eval.files import detections_to_coco
from yolojax.geometry import batch_to_original
from yolojax.inference.evaluate import make_detect_batch
from yolojax.postprocess import postprocess

RESULTS = Path(__file__).parent
MODELS = ("yolo-fastest-1.1", "yolo-fastest-1.1-xl")
PHOTOS = ("dog.jpg", "horses.jpg", "person.jpg")


def load(root: Path, model: str, *, epsilon: float = 1e-6) -> tuple[Detector, Variables]:
    """One of the two published detectors, with COCO's own class names (the file ``coco.names`` has others)."""
    folder = root / "weights" / "yolo-fastest-1.1_coco"
    return zoo.from_darknet(folder / f"{model}.cfg", folder / f"{model}.weights", epsilon=epsilon)


def compare_photos(root: Path, model: str, *, epsilon: float = 1e-6) -> dict[str, float | int]:
    """Largest differences from OpenCV on the photographs: maps (of dog.jpg), scores, and box sides in their pixels.

    ``unmatched`` counts detections without a partner of the same class and nearly the same place on the other side.
    """
    detector, variables = load(root, model, epsilon=epsilon)
    recorded = np.load(root / "peers" / f"{model}_dog.npz")
    lists = json.loads((root / "peers" / "opencv_darknet_photos.json").read_text())["detections"][model]
    photos = [read_image(root / "photos" / name) for name in PHOTOS]
    input_images = np.stack(
        [make_input_image(photo, detector.spec.input_size, detector.spec.preprocess)[0] for photo in photos]
    )

    @jax.jit
    def run(variables: Variables, images: jax.Array) -> Any:
        outputs = detector.forward(variables, prepare_images(images, detector.spec.preprocess))
        return outputs, postprocess(detector.decode(outputs), 0.25, 0.45, max_detections=100, multi_label=True)

    outputs, found = jax.device_get(run(variables, jnp.asarray(input_images)))
    worst = {
        "pixels": int(np.abs(input_images[0].astype(int) - recorded["input_rgb_u8"]).max()),
        "map": 0.0,
        "score": 0.0,
        "box": 0.0,
        "unmatched": 0,
        "detections": 0,
    }
    heads = sorted((name for name in recorded if name.startswith("head")), key=lambda name: -recorded[name].shape[2])
    for ours, name in zip(outputs, heads, strict=True):
        theirs = recorded[name][0].transpose(1, 2, 0)
        worst["map"] = max(worst["map"], float(np.abs(ours[0].reshape(theirs.shape) - theirs).max()))
    for row, (photo, name) in enumerate(zip(photos, PHOTOS, strict=True)):
        keep = found.valid[row]
        boxes = found.boxes[row][keep] * (np.array([photo.shape[1], photo.shape[0]] * 2) / detector.spec.input_size[0])
        left = list(zip(boxes, found.scores[row][keep], found.classes[row][keep], strict=True))
        worst["detections"] += len(left)
        for theirs in lists[name]:
            x, y, w, h = theirs["xywh"]
            apart = [
                float(np.abs(box - [x, y, x + w, y + h]).max()) if theirs["cls"] == c else np.inf for box, _, c in left
            ]
            if not apart or min(apart) > 10:
                worst["unmatched"] += 1
                continue
            _, score, _ = left.pop(int(np.argmin(apart)))
            worst["box"] = max(worst["box"], min(apart))
            worst["score"] = max(worst["score"], abs(float(score) - theirs["score"]))
        worst["unmatched"] += len(left)
    return worst


def average_precision(root: Path, model: str, *, epsilon: float = 1e-6) -> dict[str, float | None]:
    """COCO AP and AP50 on the 128 images by the protocol of the recorded numbers, and the recorded ones.

    The recorded boxes were not clipped to the photograph; those of `yolojax val` are. Both are measured.
    """
    detector, variables = load(root, model, epsilon=epsilon)
    dataset = open_dataset(str(root / "data" / "coco128_train"), class_names=detector.spec.class_names)
    input_images = build_cache(dataset, detector.spec.input_size, detector.spec.preprocess)
    detect = make_detect_batch(detector, 100)
    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for start in range(0, len(dataset), 16):
        images, shown = input_images.load(np.minimum(np.arange(start, start + 16), len(dataset) - 1))
        found = jax.device_get(detect(variables, images, jnp.float32(0.001), jnp.float32(0.45)))
        for row in range(min(16, len(dataset) - start)):
            record, keep = dataset.records[shown[row]], found.valid[row]
            content, size = input_images.content[shown[row], None], input_images.sizes[shown[row], None]
            for clip, listed in rows.items():
                boxes = batch_to_original(found.boxes[row][None], content, size, clip=clip)[0][keep]
                scores, classes = found.scores[row][keep], found.classes[row][keep]
                listed += detections_to_coco(record.image_id, boxes, scores, classes, dataset.category_ids)
    recorded = json.loads((root / "peers" / "ap_train128.json").read_text())[f"{model}_train128"]["stats"]["train128"]
    raw, clipped = (evaluate_coco(dataset.to_coco(), rows[clip]) for clip in (False, True))
    return {
        "AP": raw.AP,
        "AP50": raw.AP50,
        "peer_AP": recorded[0],
        "peer_AP50": recorded[1],
        "clipped_AP": clipped.AP,
        "clipped_AP50": clipped.AP50,
    }


def report(results: dict[str, Any]) -> str:
    lines = [
        "# Darknet's files: parity with OpenCV",
        "",
        f"`python -m experiments.darknet_parity --data FOLDER`, {results['date']}, {results['cores']} processor cores, "
        f"jax {results['jax']}.",
        "",
        "Largest difference from OpenCV 4.14 on three photographs: raw maps (one photograph), scores, box sides in "
        "pixels of the photograph.",
        "",
        "| detector | epsilon | maps | scores | boxes | detections | without a partner |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, one in results["photos"].items():
        for epsilon, w in one.items():
            lines.append(
                f"| {model} | {epsilon} | {w['map']:.1e} | {w['score']:.1e} | {w['box']:.3f} | {w['detections']} | "
                f"{w['unmatched']} |"
            )
    lines += [
        "",
        "COCO on 128 images of train2017:",
        "",
        "| detector | AP | OpenCV | AP, clipped | AP50 | OpenCV | AP50, clipped |",
        "|---|---|---|---|---|",
    ]
    for model, one in results["coco"].items():
        numbers = ("AP", "peer_AP", "clipped_AP", "AP50", "peer_AP50", "clipped_AP50")
        lines.append(f"| {model} | " + " | ".join(f"{one[name]:.4f}" for name in numbers) + " |")
    lines += ["", "OpenCV's boxes were not clipped to the photograph; those of `yolojax val` are."]
    return "\n".join([*lines, ""])


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    photos = [by_epsilon["1e-06"] for by_epsilon in record["photos"].values()]
    maps, boxes = (max(found[name] for found in photos) for name in ("map", "box"))
    lost = sum(found["unmatched"] for found in photos)
    theirs = max(by_epsilon["1e-05"]["map"] for by_epsilon in record["photos"].values())
    coco = [f"{name} {found['AP']:.4f} (OpenCV {found['peer_AP']:.4f})" for name, found in record["coco"].items()]
    return (
        f"Raw maps within {maps:.1e} of OpenCV's with its variance offset of 1e-6 ({theirs:.1e} with Darknet's 1e-5), "
        f"boxes within {boxes:.3f} pixels, {lost} detections without a partner. AP on 128 images of COCO: "
        f"{', '.join(coco)}."
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights, photos, peers and data")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results go")
    args = parser.parse_args(argv)
    results = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "photos": {m: {str(e): compare_photos(args.data, m, epsilon=e) for e in (1e-6, 1e-5)} for m in MODELS},
        "coco": {m: average_precision(args.data, m) for m in MODELS},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "README.md").write_text(report(results))
    print(report(results))
