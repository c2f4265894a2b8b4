"""AP on the device is pycocotools' AP, whatever the padding, and compiles once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolojax.eval.accumulate import RECALL_POINTS, _recall_points_within, average_precision
from yolojax.eval.coco import METRICS, evaluate_coco
from yolojax.eval.inputs import read_detections, read_ground_truth
from yolojax.eval.matching import ANY_AREA
from yolojax.eval.padded import PaddedDetections, PaddedTruth
from yolojax.eval.weighted import coco_numbers

AREAS = ((0.0, 1e10), (0.0, 1024.0), (1024.0, 9216.0), (9216.0, 1e10))
IMAGES, M, K = 4, 14, 40


def padded(truth: dict, found: list[dict], dtype, images: int = IMAGES) -> tuple[PaddedTruth, PaddedDetections]:
    """Fixed-size columns with garbage (NaN, class 0) in the padding, which nothing may read."""
    classes = {c["id"]: k for k, c in enumerate(truth["categories"])}
    place = {r["id"]: k for k, r in enumerate(truth["images"])}

    def fill(records: list[dict], n: int) -> dict[str, np.ndarray]:
        columns = {
            "boxes": np.full((images, n, 4), np.nan),
            "scores": np.full((images, n), np.nan),
            "areas": np.full((images, n), np.nan),
            "classes": np.zeros((images, n), np.int32),
            "crowd": np.zeros((images, n), bool),
            "valid": np.zeros((images, n), bool),
        }
        used = [0] * images
        for record in records:
            i = place[record["image_id"]]
            k, used[i] = used[i], used[i] + 1
            x, y, w, h = record["bbox"]
            columns["boxes"][i, k] = x, y, x + w, y + h
            columns["classes"][i, k] = classes[record["category_id"]]
            columns["scores"][i, k], columns["areas"][i, k] = record.get("score", 0), record.get("area", 0)
            columns["crowd"][i, k], columns["valid"][i, k] = record.get("iscrowd", 0), True
        return columns

    def arrays(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> list[jax.Array]:
        return [jnp.asarray(v if v.dtype.kind != "f" else v.astype(dtype)) for v in (columns[n] for n in names)]

    objects, rows = fill(truth["annotations"], M), fill(found, K)
    return PaddedTruth(*arrays(objects, PaddedTruth._fields)), PaddedDetections(*arrays(rows, PaddedDetections._fields))


traces: list[None] = []


@partial(jax.jit, static_argnames="classes")
def compiled(truth, detections, cap, area_range, classes: int):
    traces.append(None)
    return average_precision(truth, detections, classes=classes, cap=cap, area_range=area_range)


def evaluate(truth: PaddedTruth, found: PaddedDetections, *, classes: int, cap: int = 100, area_range=ANY_AREA):
    return compiled(truth, found, cap, area_range, classes)


def integers(truth: dict, found: list[dict]) -> tuple[dict, list[dict]]:
    """Whole pixels, so that x + w - x is w to the last bit; the annotations' areas stay as they are."""
    truth = {**truth, "annotations": [{**a, "bbox": np.round(a["bbox"]).tolist()} for a in truth["annotations"]]}
    return truth, [{**d, "bbox": np.round(d["bbox"]).tolist()} for d in found]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_equals_pycocotools_in_float64(make_case, pycocotools_run, seed: int, ties: bool) -> None:
    truth, found = integers(*make_case(seed, images=IMAGES, objects=4, crowd=0.2, ties=ties))
    if not found:
        return
    peer = pycocotools_run(truth, found).eval
    with jax.enable_x64(True):
        columns = padded(truth, found, np.float64)
        for a, area_range in enumerate(AREAS):
            got = evaluate(*columns, classes=3, area_range=area_range)
            expected = np.where(peer["precision"] < 0, np.nan, peer["precision"]).mean(axis=1)[:, :, a, -1]
            recall = np.where(peer["recall"] < 0, np.nan, peer["recall"])[:, :, a, -1]
            np.testing.assert_allclose(got.precision, expected, rtol=0, atol=1e-9)
            np.testing.assert_allclose(got.recall, recall, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cap", [1, 3])
def test_caps_count_per_image_and_class(make_case, pycocotools_run, cap: int) -> None:
    truth, found = integers(*make_case(3, images=IMAGES, objects=4))
    peer = pycocotools_run(truth, found, maxDets=[cap, 10, 100]).eval["recall"][:, :, 0, 0]
    with jax.enable_x64(True):
        got = evaluate(*padded(truth, found, np.float64), classes=3, cap=cap)
        np.testing.assert_allclose(got.recall, peer, rtol=0, atol=1e-9)


def test_twelve_numbers_in_float32(make_case) -> None:
    """The way from columns (padded, compacted, all areas and caps at once) gives pycocotools' twelve numbers."""
    for seed in (11, 12):
        truth, found = make_case(seed, images=IMAGES, objects=4, crowd=0.2, ties=seed == 12)
        result = evaluate_coco(truth, found)
        columns = read_ground_truth(truth)
        got = coco_numbers(columns, read_detections(found, columns))
        assert set(got) == set(METRICS)
        for name in METRICS:
            expected = getattr(result, name)
            assert np.isnan(got[name]) if expected is None else got[name] == pytest.approx(expected, abs=1e-6), name


def test_vmaps_over_data_sets_in_float32(make_case, pycocotools_run, strict_dtypes) -> None:
    cases = [integers(*make_case(seed, images=IMAGES, objects=4)) for seed in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(padded(*case, np.float32) for case in cases))
    got = jax.jit(jax.vmap(partial(average_precision, classes=3)))(*stacked)
    assert got.precision.dtype == jnp.float32
    mean = jnp.nanmean(got.precision, axis=(1, 2))
    np.testing.assert_allclose(mean, [pycocotools_run(*case).stats[0] for case in cases], rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["coco", "eleven_points"])
def test_recall_points_are_reached_as_in_float64(interpolation) -> None:
    """For every number of objects up to 400, and of true positives among them."""
    grid = RECALL_POINTS[interpolation]
    n, hits = np.meshgrid(np.arange(1, 401), np.arange(401), indexing="ij")
    reached = np.searchsorted(grid, (hits / n).ravel(), side="right").reshape(n.shape)
    expected = np.where(hits > 0, reached, 0)
    got = _recall_points_within(jnp.asarray(hits, jnp.int32), jnp.asarray(n, jnp.int32), grid)
    np.testing.assert_array_equal(np.asarray(got)[hits <= n], expected[hits <= n])
