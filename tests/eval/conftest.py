"""Generated data sets and plain pycocotools, for the evaluation's tests."""

import contextlib
import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Case = tuple[dict[str, Any], list[dict[str, Any]]]


def generate(
    seed: int = 0, images: int = 6, classes: int = 3, objects: int = 5, crowd: float = 0.1, ties: bool = False
) -> Case:
    """A COCO data set and detections of mixed quality: jittered, doubled, of another class, and of nothing."""
    rng = np.random.default_rng(seed)
    category_ids = [3 * k + 2 for k in range(classes)]
    image_ids = [10 + 7 * k for k in range(images)]
    annotations, found = [], []

    def score() -> float:
        return float(np.round(rng.uniform(), 1)) if ties else float(rng.uniform())

    for image in image_ids:
        for _ in range(rng.poisson(objects)):
            x, y = rng.uniform(0, 300, 2)
            w, h = np.exp(rng.uniform(2, 5, 2))
            category, is_crowd = int(rng.choice(category_ids)), int(rng.uniform() < crowd)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(0.7 * w * h),
                    "iscrowd": is_crowd,
                }
            )
            for _ in range(rng.integers(0, 4)):
                jitter = rng.normal(0, 0.12, 4)
                found.append(
                    {
                        "image_id": image,
                        "category_id": category if rng.uniform() < 0.8 else int(rng.choice(category_ids)),
                        "bbox": [
                            float(x + jitter[0] * w),
                            float(y + jitter[1] * h),
                            float(w * np.exp(jitter[2])),
                            float(h * np.exp(jitter[3])),
                        ],
                        "score": score(),
                    }
                )
        for _ in range(rng.poisson(2)):
            box = [*rng.uniform(0, 300, 2).tolist(), *np.exp(rng.uniform(2, 5, 2)).tolist()]
            found.append(
                {"image_id": image, "category_id": int(rng.choice(category_ids)), "bbox": box, "score": score()}
            )
    truth = {
        "images": [{"id": i, "file_name": f"{i:05d}.jpg", "width": 400, "height": 400} for i in image_ids],
        "categories": [{"id": c, "name": f"class{c}"} for c in category_ids],
        "annotations": annotations,
    }
    return truth, found


def run_pycocotools(truth: dict[str, Any], found: list[dict[str, Any]], **params: Any) -> Any:
    """The evaluator after evaluate, accumulate and (where it can) summarize, used as its documentation says."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = copy.deepcopy(truth)
        objects.createIndex()
        evaluator = COCOeval(objects, objects.loadRes(copy.deepcopy(found)), "bbox")
        for name, value in params.items():
            setattr(evaluator.params, name, value)
        evaluator.evaluate()
        evaluator.accumulate()
        if len(evaluator.params.maxDets) == 3:
            evaluator.summarize()
    return evaluator


@pytest.fixture(scope="session")
def make_case() -> Callable[..., Case]:
    return generate


@pytest.fixture(scope="session")
def pycocotools_run() -> Callable[..., Any]:
    return run_pycocotools
