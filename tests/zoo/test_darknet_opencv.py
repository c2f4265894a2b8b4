"""Networks read from Darknet files, and the same from the zoo's own parts, against OpenCV's reading of the files."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.darknet_cases import NARROW, random_image, random_weights
from yolojax import zoo
from yolojax.models.darknet_parts import by_stride
from yolojax.weights.darknet import Header, parse_cfg, stored_arrays, write_weights

GOLDEN = Path(__file__).parent.parent / "goldens" / "darknet_opencv.npz"
PARTS = {
    "yolov2": {"width": 1 / 64},
    "yolov3": {"width": 1 / 32, "depths": (1, 2, 1, 1, 1)},
    "yolov3-tiny": {"width": 1 / 16},
    "yolov4": {"width": 1 / 32, "depths": (1, 2, 1, 1, 1)},
    "yolov4-tiny": {"width": 1 / 8},
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def files(tmp_path_factory, golden):
    """The files that OpenCV read, cfg and weights, by the name of the network."""
    folder, paths = tmp_path_factory.mktemp("darknet"), {}
    for name, text in NARROW.items():
        cfg, weights = folder / f"{name}.cfg", folder / f"{name}.weights"
        cfg.write_text(text)
        network = parse_cfg(text, name)
        write_weights(weights, network, random_weights(stored_arrays(network), 1), Header(seen=64))
        assert hashlib.sha256(weights.read_bytes()).digest() == golden[f"{name}/sha256"].tobytes()
        paths[name] = (cfg, weights)
    return paths


def compare_heads(name, outputs, golden, cfg):
    order = [cfg.detections.index(number) for number in by_stride(cfg)]  # ours come finest first
    assert len(outputs) == len(order)
    for ours, k in zip(outputs, order, strict=True):
        theirs = golden[f"{name}/head{k}"].transpose(1, 2, 0)
        assert theirs.std() > 0.1
        np.testing.assert_allclose(np.asarray(ours[0]).reshape(theirs.shape), theirs, rtol=1e-4, atol=1e-4)
    return order


@pytest.mark.parametrize("name", sorted(NARROW))
def test_a_network_from_its_files_equals_opencvs(name, files, golden):
    """Raw heads within 1e-4, boxes within .01 pixel, and every score that OpenCV does not set to 0 within 1e-4."""
    cfg_file, weights = files[name]
    cfg = parse_cfg(NARROW[name])
    detector, variables = zoo.from_darknet(cfg_file, weights, epsilon=1e-6)
    image = jnp.asarray(random_image((cfg.height, cfg.width), 7))[None]

    @jax.jit
    def run(variables, image):
        outputs = detector.forward(variables, image)
        return outputs, detector.decode(outputs)

    outputs, candidates = run(variables, image)
    order = compare_heads(name, outputs, golden, cfg)
    rows = np.concatenate([golden[f"{name}/rows{k}"] for k in order])
    centre, half = rows[:, :2], rows[:, 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half], 1) * ([cfg.width, cfg.height] * 2)
    np.testing.assert_allclose(candidates.boxes[0], boxes, rtol=1e-4, atol=0.01)
    kept = rows[:, 5:] > 0
    assert kept.any()
    np.testing.assert_allclose(np.asarray(candidates.scores[0])[kept], rows[:, 5:][kept], atol=1e-4)


@pytest.mark.parametrize("name", sorted(PARTS))
def test_a_network_of_our_own_parts_equals_opencvs(name, files, golden):
    cfg = parse_cfg(NARROW[name])
    class_names = tuple(f"class{i}" for i in range(cfg.classes))
    built = zoo.build(name, class_names, (cfg.height, cfg.width), **PARTS[name])
    detector = zoo.from_description(json.loads(json.dumps(zoo.describe(built))))
    variables = zoo.load_darknet(detector, files[name][1])
    # OpenCV adds 1e-6 to the variance, the zoo's networks 1e-5.
    variables["batch_stats"] = jax.tree_util.tree_map_with_path(
        lambda path, x: x - jnp.float32(9e-6) if path[-1].key == "var" else x, variables["batch_stats"]
    )
    image = jnp.asarray(random_image((cfg.height, cfg.width), 7))[None]
    compare_heads(name, jax.jit(detector.forward)(variables, image), golden, cfg)
