"""Writes tide.json: a generated case and what the authors' own program, tidecv 1.0.1, says about it.

Run in an environment of its own: pip install tidecv==1.0.1 && python tests/goldens/make_tide.py

The number of objects of each class is prime, so that no recall falls exactly on one of the 101 recall points, where
tidecv's grid (k / 100) and COCO's (linspace) differ in the last bit; there are no tied scores and no crowd regions,
which tidecv treats in ways of its own.
"""

import json
from pathlib import Path

import numpy as np
from tidecv import TIDE, Data


def boxes_of(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.concatenate([rng.uniform(0, 300, (n, 2)), np.exp(rng.uniform(2.5, 4.5, (n, 2)))], axis=1)


def main() -> None:
    rng = np.random.default_rng(7)
    truth = [
        {"image_id": int(rng.integers(1, 25)), "category_id": c + 1, "bbox": box.round(3).tolist()}
        for c, n in enumerate((53, 37, 29))
        for box in boxes_of(rng, n)
    ]
    found = []
    for a in truth:
        x, y, w, h = a["bbox"]
        for _ in range(rng.choice(4, p=[0.25, 0.4, 0.2, 0.15])):
            shift = rng.normal(0, rng.choice([0.05, 0.3]), 4)
            box = [x + shift[0] * w, y + shift[1] * h, w * np.exp(shift[2]), h * np.exp(shift[3])]
            category = a["category_id"] if rng.uniform() < 0.7 else int(rng.integers(1, 4))
            found.append({"image_id": a["image_id"], "category_id": category, "bbox": np.round(box, 3).tolist()})
    found += [
        {"image_id": int(rng.integers(1, 25)), "category_id": int(rng.integers(1, 4)), "bbox": box.round(3).tolist()}
        for box in boxes_of(rng, 30)
    ]
    for d, score in zip(found, rng.permutation(len(found)), strict=True):
        d["score"] = float((score + 1) / (len(found) + 1))

    objects, detections = Data("truth"), Data("found")
    for a in truth:
        objects.add_ground_truth(a["image_id"], a["category_id"], box=a["bbox"])
    for d in found:
        detections.add_detection(d["image_id"], d["category_id"], d["score"], box=d["bbox"])
    run = TIDE().evaluate(objects, detections, mode=TIDE.BOX)
    names = {"Cls": "classification", "Loc": "localisation", "Both": "both", "Dupe": "duplicate", "Bkg": "background"}
    names["Miss"] = "missed"
    special = {"FalsePos": "false_positives", "FalseNeg": "false_negatives"}
    golden = {
        "AP50": run.ap,
        "counts": {names[kind.short_name]: count for kind, count in run.count_errors().items()},
        "costs": {names[kind.short_name]: cost for kind, cost in run.fix_main_errors().items()}
        | {special[kind.short_name]: cost for kind, cost in run.fix_special_errors().items()},
    }
    case = {
        "truth": {
            "images": [{"id": k} for k in range(1, 25)],
            "categories": [{"id": c, "name": f"class{c}"} for c in (1, 2, 3)],
            "annotations": truth,
        },
        "found": found,
        "tidecv": golden,
    }
    Path(__file__).with_name("tide.json").write_text(json.dumps(case) + "\n")
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
