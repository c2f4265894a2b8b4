"""The IoU family against torchvision, published values and float64 transcriptions of the papers; formats by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolojax import boxes as B

GOLDEN = np.load(pathlib.Path(__file__).parent / "goldens" / "boxes_torchvision.npz")
METRICS = ("box_iou", "generalized_box_iou", "distance_box_iou", "complete_box_iou")
PAIRED = (*(f"paired_{m}" for m in METRICS), "paired_scylla_box_iou")
LAYOUTS = ("random", "touching", "nested", "identical", "negative", "large", "left_empty", "right_empty")

# Every kind of box that breaks a naive IoU: a point, a line, inverted, tiny, huge, far away, not square.
HARD = np.array(
    [
        [0, 0, 0, 0],
        [5, 5, 5, 5],
        [5, 5, 5, 9],
        [2, 5, 9, 5],
        [0, 0, 10, 10],
        [0, 0, 10, 4],
        [3, 1, 5, 8],
        [10, 0, 20, 10],
        [9, 9, 1, 1],
        [9, 1, 1, 9],
        [1e-20, 1e-20, 3e-20, 2e-20],
        [0, 0, 1e-30, 1e-30],
        [0, 0, 1e-37, 50],
        [-1e9, -1e9, 1e9, 1e9],
        [1e9, 1e9, 1e9, 1e9],
        [-1e9, 1, 1e9, 1],
        [1e9 - 64, 1e9 - 64, 1e9, 1e9],
        [-3e38, -3e38, 3e38, 3e38],
    ],
    np.float32,
)


# The papers, word for word, in float64, for one pair of ordered boxes that are not empty.


def iou64(a, b):
    iw = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    ih = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    inter = iw * ih
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def hull64(a, b):
    return max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])


def giou64(a, b):
    iou = iou64(a, b)
    inter_over_union = iou
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    union = (area_a + area_b) / (1 + inter_over_union)  # from I = iou * U and U = A + B - I
    c = np.prod(hull64(a, b))
    return iou - (c - union) / c


def diou64(a, b):
    cw, ch = hull64(a, b)
    rho2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    return iou64(a, b) - rho2 / (cw**2 + ch**2)


def ciou64(a, b):
    v = 4 / np.pi**2 * (np.arctan((b[2] - b[0]) / (b[3] - b[1])) - np.arctan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
    alpha = 0.0 if v == 0 else v / (1 - iou64(a, b) + v)
    return diou64(a, b) - alpha * v


def siou64(a, b, theta=4):
    cx, cy, gx, gy = (a[0] + a[2]) / 2, (a[1] + a[3]) / 2, (b[0] + b[2]) / 2, (b[1] + b[3]) / 2
    w, h, wg, hg = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    sigma = np.sqrt((gx - cx) ** 2 + (gy - cy) ** 2)
    x = 0.0 if sigma == 0 else (max(gy, cy) - min(gy, cy)) / sigma
    angle = 1 - 2 * np.sin(np.arcsin(x) - np.pi / 4) ** 2
    cw, ch = hull64(a, b)
    gamma = 2 - angle
    distance = sum(1 - np.exp(-gamma * rho) for rho in (((gx - cx) / cw) ** 2, ((gy - cy) / ch) ** 2))
    shape = sum((1 - np.exp(-omega)) ** theta for omega in (abs(w - wg) / max(w, wg), abs(h - hg) / max(h, hg)))
    return iou64(a, b) - (distance + shape) / 2


ORACLES = {
    "box_iou": iou64,
    "generalized_box_iou": giou64,
    "distance_box_iou": diou64,
    "complete_box_iou": ciou64,
    "scylla_box_iou": siou64,
}


@jax.jit
def all_metrics(a, b):
    return {metric: getattr(B, metric)(a, b) for metric in METRICS}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_torchvision(layout):
    a, b = jnp.asarray(GOLDEN[f"{layout}/a"]), jnp.asarray(GOLDEN[f"{layout}/b"])
    for metric, got in all_metrics(a, b).items():
        expected = GOLDEN[f"{layout}/{metric}"]
        assert got.shape == expected.shape == (len(a), len(b))
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6, err_msg=metric)


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_equals_pytorch(metric):
    a, b, w = (jnp.asarray(GOLDEN[f"gradient/{k}"]) for k in ("a", "b", "weights"))
    grad = jax.jit(jax.grad(lambda a, b: jnp.sum(getattr(B, metric)(a, b) * w), argnums=(0, 1)))(a, b)
    for g, side in zip(grad, "ab", strict=True):
        np.testing.assert_allclose(g, GOLDEN[f"gradient/{metric}/{side}"], rtol=1e-4, atol=2e-6)


# pytorch/vision test/test_ops.py at 00673be3960268a837860cd6a05373d9861221d3: numbers only.
INT = np.array([[0, 0, 100, 100], [0, 0, 50, 50], [200, 200, 300, 300], [0, 0, 25, 25]], np.float32)
FLOAT = np.array(
    [
        [285.3538, 185.5758, 1193.5110, 851.4551],
        [285.1472, 188.7374, 1192.4984, 851.0669],
        [279.2440, 197.9812, 1189.4746, 849.2019],
    ],
    np.float32,
)
PUBLISHED = {
    "box_iou": [[1.0, 0.25, 0.0], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0625, 0.25, 0.0]],
    "generalized_box_iou": [
        [1.0, 0.25, -0.7778],
        [0.25, 1.0, -0.8611],
        [-0.7778, -0.8611, 1.0],
        [0.0625, 0.25, -0.8819],
    ],
    "distance_box_iou": [
        [1.0, 0.1875, -0.4444],
        [0.1875, 1.0, -0.5625],
        [-0.4444, -0.5625, 1.0],
        [-0.0781, 0.1875, -0.6267],
    ],
}
# All boxes above are square, so CIoU equals DIoU there.
PUBLISHED["complete_box_iou"] = PUBLISHED["distance_box_iou"]


def test_published_matrix():
    for metric, got in all_metrics(jnp.asarray(INT), jnp.asarray(INT[:3])).items():
        np.testing.assert_allclose(got, PUBLISHED[metric], atol=1e-4, err_msg=metric)


def test_published_areas_and_large_overlaps():
    area = jax.jit(B.box_area)
    np.testing.assert_allclose(area(FLOAT), [604723.0806, 600965.4666, 592761.0085], rtol=1e-6)
    np.testing.assert_array_equal(area(np.float32([[0, 0, 100, 100], [0, 0, 0, 0], [0, 0, 1, 1]])), [10000, 0, 1])
    expected = [[1.0, 0.9933, 0.9673], [0.9933, 1.0, 0.9737], [0.9673, 0.9737, 1.0]]
    np.testing.assert_allclose(all_metrics(FLOAT, FLOAT)["box_iou"], expected, atol=1e-4)


def test_published_losses():
    box1, box2, box3, box4 = np.float32([[-1, -1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 2], [1, 1, 2, 2]])
    pairs = np.stack([[box1, box1, box2, box2, box1, box1], [box1, box2, box3, box4, box3, box4]])
    measures = (B.paired_generalized_box_iou, B.paired_distance_box_iou, B.paired_complete_box_iou)
    giou, diou, ciou = 1 - np.asarray(jax.jit(lambda a, b: jnp.stack([f(a, b) for f in measures]))(*pairs))
    np.testing.assert_allclose(giou[:4], [0.0, 0.75, 1.0, 1.5], atol=1e-4)
    for loss in (diou, ciou):
        np.testing.assert_allclose(loss[[0, 1, 4, 5]], [0.0, 0.8125, 1.1923, 1.25], atol=1e-4)


@pytest.mark.parametrize("name", PAIRED)
def test_paired_equals_the_paper(name):
    rng = np.random.default_rng(3)
    corners = np.sort(rng.uniform(0, 100, (2, 200, 2, 2)), axis=2).reshape(2, 200, 4).astype(np.float32)
    corners[1, :20] = corners[0, :20] + np.float32([3, 0, 3, 0])  # same shape, moved along one axis
    a, b = corners
    got = jax.jit(getattr(B, name))(jnp.asarray(a), jnp.asarray(b))
    oracle = ORACLES[name.removeprefix("paired_")]
    np.testing.assert_allclose(got, [oracle(x, y) for x, y in zip(*corners.astype(np.float64), strict=True)], atol=2e-6)


def test_paired_is_the_diagonal_of_the_matrix():
    a, b = jnp.asarray(HARD), jnp.asarray(HARD[::-1].copy())
    for metric, matrix in all_metrics(a, b).items():
        paired = jax.jit(getattr(B, f"paired_{metric}"))(a, b)
        np.testing.assert_allclose(paired, np.diagonal(matrix), rtol=0, atol=1e-6, err_msg=metric)


def test_scylla_theta():
    a, b = jnp.array([[0.0, 0, 10, 4]]), jnp.array([[1.0, 2, 7, 12]])
    for theta in (2, 3.5, 6):
        expected = siou64(np.asarray(a[0], np.float64), np.asarray(b[0], np.float64), theta)
        got = jax.jit(lambda a, b, theta=theta: B.paired_scylla_box_iou(a, b, theta=theta))(a, b)
        np.testing.assert_allclose(got, [expected], atol=1e-6)


def test_complete_differs_from_distance_on_shapes_that_differ():
    a, b = jnp.array([[0.0, 0, 10, 4]]), jnp.array([[0.0, 0, 4, 10]])
    found = all_metrics(a, b)
    assert float(found["complete_box_iou"][0, 0]) - float(found["distance_box_iou"][0, 0]) < -0.05


def test_alpha_carries_no_gradient():
    """The gradient is that of ``DIoU - alpha v`` with alpha held fixed, checked by finite differences in float64."""
    a, b = np.array([10.0, 12, 50, 31]), np.array([14.0, 9, 41, 60])

    def aspect(a):
        return 4 / np.pi**2 * (np.arctan((b[2] - b[0]) / (b[3] - b[1])) - np.arctan((a[2] - a[0]) / (a[3] - a[1]))) ** 2

    alpha = aspect(a) / (1 - iou64(a, b) + aspect(a))
    steps = np.eye(4) * 1e-5
    expected = [
        ((diou64(a + s, b) - alpha * aspect(a + s)) - (diou64(a - s, b) - alpha * aspect(a - s))) / 2e-5 for s in steps
    ]
    target = jnp.asarray(b, jnp.float32)
    got = jax.jit(jax.grad(lambda x: B.paired_complete_box_iou(x, target)))(jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", PAIRED)
def test_finite_with_finite_gradients_on_every_pair_of_hard_boxes(name):
    i, j = np.divmod(np.arange(len(HARD) ** 2), len(HARD))
    f = getattr(B, name)

    @jax.jit
    def values_and_gradients(a, b):
        return f(a, b), *jax.grad(lambda a, b: jnp.sum(f(a, b)), argnums=(0, 1))(a, b)

    value, da, db = values_and_gradients(jnp.asarray(HARD[i]), jnp.asarray(HARD[j]))
    assert np.isfinite(value).all()
    assert np.isfinite(da).all() and np.isfinite(db).all()
    assert (np.asarray(value) >= -2).all() and (np.asarray(value) <= 1 + 1e-6).all()


def test_empty_and_inverted_boxes_have_no_overlap():
    boxes, empty = jnp.asarray(HARD), np.array([0, 1, 2, 3, 8, 9])
    area, iou, crowd = jax.jit(lambda x: (B.box_area(x), B.box_iou(x, x), B.crowd_iou(x, x)))(boxes)
    assert not np.asarray(area)[empty].any()
    assert not np.asarray(iou)[empty].any()
    assert not np.asarray(crowd)[empty].any()


def test_a_nan_box_overlaps_nothing():
    boxes = HARD[4:7].copy()
    boxes[1, 2] = np.nan
    found = all_metrics(boxes, boxes)
    np.testing.assert_array_equal(found["box_iou"][1], [0, 0, 0])
    assert np.isfinite(found["complete_box_iou"]).all()


def test_far_from_the_origin_the_overlap_is_that_of_the_coordinates_given():
    a = np.float32(1e9) - np.float32([1024, 512, 256, 64])
    b = a - np.float32([320, 0, 192, 128])
    expected = iou64(a.astype(np.float64), b.astype(np.float64))
    assert expected > 0
    np.testing.assert_allclose(jax.jit(B.paired_box_iou)(a, b), expected, rtol=1e-6)


def test_bfloat16_in_float32_out():
    a = jnp.array([[0, 0, 10, 4], [3, 1, 5, 8]], jnp.bfloat16)
    every = jax.jit(lambda a: {**all_metrics(a, a), "crowd": B.crowd_iou(a, a), "siou": B.paired_scylla_box_iou(a, a)})
    expected = every(a.astype(jnp.float32))
    for name, got in every(a).items():
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, expected[name], err_msg=name)


def test_crowd_iou_divides_by_the_detection():
    detections = jnp.array([[0.0, 0, 10, 10], [5, 5, 15, 25], [100, 100, 110, 110]])
    crowd = jnp.array([[0.0, 0, 1000, 10]])
    np.testing.assert_allclose(jax.jit(B.crowd_iou)(detections, crowd), [[1.0], [0.25], [0.0]])


XYWH = np.array([[0, 0, 100, 100], [0, 0, 0, 0], [10, 15, 20, 20], [23, 35, 70, 60]], np.float32)
XYXY = np.array([[0, 0, 100, 100], [0, 0, 0, 0], [10, 15, 30, 35], [23, 35, 93, 95]], np.float32)
CXCYWH = np.array([[50, 50, 100, 100], [0, 0, 0, 0], [20, 25, 20, 20], [58, 65, 70, 60]], np.float32)


@pytest.mark.parametrize(
    ("convert", "source", "expected"),
    [
        (B.xyxy_to_xywh, XYXY, XYWH),
        (B.xyxy_to_cxcywh, XYXY, CXCYWH),
        (B.xywh_to_xyxy, XYWH, XYXY),
        (B.xywh_to_cxcywh, XYWH, CXCYWH),
        (B.cxcywh_to_xyxy, CXCYWH, XYXY),
        (B.cxcywh_to_xywh, CXCYWH, XYWH),
    ],
)
def test_published_conversions(convert, source, expected):
    np.testing.assert_array_equal(jax.jit(convert)(source), expected)
    assert jax.eval_shape(convert, jnp.asarray(source, jnp.bfloat16)).dtype == jnp.float32


def test_normalise_takes_height_first():
    boxes = jnp.array([[32.0, 60, 64, 120]])
    np.testing.assert_allclose(B.normalise_boxes(boxes, (240, 320)), [[0.1, 0.25, 0.2, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(B.denormalise_boxes(B.normalise_boxes(boxes, (240, 320)), (240, 320)), boxes, rtol=1e-6)


def test_clip_scale_and_small():
    boxes = jnp.array([[-5.0, -1, 30, 50], [10, 10, 12, 30], [50, 60, 70, 80], [1, 1, 2, 1]])
    clipped = B.clip_boxes(boxes, (40, 20))
    np.testing.assert_array_equal(clipped, [[0, 0, 20, 40], [10, 10, 12, 30], [20, 40, 20, 40], [1, 1, 2, 1]])
    np.testing.assert_array_equal(B.remove_small(clipped, 2.0), [True, True, False, False])
    np.testing.assert_array_equal(B.remove_small(clipped, 2.5), [True, False, False, False])
    np.testing.assert_array_equal(B.scale_boxes(boxes, 2.0), np.asarray(boxes) * 2)
    np.testing.assert_array_equal(B.scale_boxes(boxes, (2.0, 0.5)), np.asarray(boxes) * [0.5, 2, 0.5, 2])


def test_no_matrix_product():
    """A dot at default precision would round boxes to bfloat16 on an accelerator."""
    a = jnp.zeros((3, 4))
    for name in (*METRICS, *PAIRED, "crowd_iou"):
        text = str(jax.make_jaxpr(getattr(B, name))(a, a))
        assert "dot_general" not in text
