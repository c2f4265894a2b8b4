"""RT-DETR, RT-DETRv2, D-FINE and DEIMv2: published sizes, files there and back, the contract, and permissive peers."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import yolojax
from yolojax import zoo
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.inference.evaluate import evaluate
from yolojax.inference.loading import load_detector
from yolojax.models import queries
from yolojax.structures import Hyper, Targets
from yolojax.weights.detr import CONSTANTS, author_tensors, plain_tensors
from yolojax.weights.foreign import read_weight_file
from yolojax.zoo.deimv2 import deimv2_weights
from yolojax.zoo.queries import plain_name_in

NAMES, SIZE = ("cat", "dog", "owl"), (64, 64)
COCO = tuple(map(str, range(80)))
SMALL = {"deimv2": {"scale": "atto", "queries": 12, "denoising": 4}}

PARTS = {f"{kind}{part}" for kind in ("", "denoise_") for part in ("cls", "l1", "giou")}
"""Of the loss of DEIMv2's three smallest scales."""

TABLES = {
    "rtdetr": ("rtdetr_r18", "r18"),
    "rtdetrv2": ("rtdetrv2_r18", "r18"),
    "dfine": ("dfine_n", "n"),
    "deimv2": ("deimv2_n", "n"),
}
"""Tables of tensors that a permissive peer (libreyolo, MIT) keeps, and their scales."""


@pytest.fixture(scope="module")
def built():
    detector = zoo.build("deimv2", NAMES, SIZE, **SMALL["deimv2"])
    return detector, detector.init(jax.random.key(0))


def targets(batch: int = 2) -> Targets:
    boxes = jnp.broadcast_to(jnp.array([[8.0, 8, 40, 30], [20, 10, 60, 60], [0, 0, 1, 1]]), (batch, 3, 4))
    flags = jnp.broadcast_to(jnp.array([True, True, False]), (batch, 3))
    classes = jnp.broadcast_to(jnp.array([0, 2, 0], jnp.int32), (batch, 3))
    return Targets(boxes, classes, flags, jnp.zeros((batch, 3), bool), jnp.zeros(batch, jnp.int32))


def test_contract_of_forward_loss_and_decode(built):
    """Shapes alone: nothing is compiled."""
    detector, variables = built
    images = jnp.zeros((2, *SIZE, 3))
    candidates = jax.eval_shape(lambda v, x: detector.decode(detector.forward(v, x)), variables, images)
    assert candidates.boxes.shape == (2, 12, 4) and candidates.scores.shape == (2, 12, 3)

    def terms_of(variables, images):
        outputs, state = detector.forward_train(variables, images, targets(), jax.random.key(2))
        return detector.loss(outputs, targets(), Hyper()._replace(**detector.spec.hyper)), state

    terms, state = jax.eval_shape(terms_of, variables, images)
    assert set(terms.sums) == set(terms.normalisers) == PARTS
    assert all(value.shape == (2,) for value in terms.sums.values())
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


@pytest.mark.slow  # a step of training compiles for most of a minute
def test_values_of_forward_loss_and_decode(built):
    """The loss has a finite gradient everywhere, of every parameter that the three small scales train."""
    detector, variables = built
    images = jax.random.uniform(jax.random.key(1), (2, *SIZE, 3))
    hyper = Hyper()._replace(**detector.spec.hyper)

    @jax.jit
    def everything(variables, images):
        def total(params):
            outputs, state = detector.forward_train(
                {**variables, "params": params}, images, targets(), jax.random.key(2)
            )
            terms = detector.loss(outputs, targets(), hyper)
            return terms.reduce()[0], (terms, state)

        gradient, (terms, state) = jax.grad(total, has_aux=True)(variables["params"])
        return detector.decode(detector.forward(variables, images)), terms, state, gradient

    candidates, terms, state, gradient = everything(variables, images)
    assert candidates.boxes.shape == (2, 12, 4) and candidates.scores.shape == (2, 12, 3)
    assert float(candidates.scores.min()) >= 0 and float(candidates.scores.max()) <= 1
    assert set(terms.sums) == set(terms.normalisers) == PARTS
    assert all(value.shape == (2,) and bool(jnp.isfinite(value).all()) for value in terms.sums.values())
    assert terms.normalisers["denoise_cls"].tolist() == [4, 4]
    assert jax.tree.structure(state["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(gradient))
    assert all(float(jnp.abs(gradient["head"][f"classes{i}"]["kernel"]).max()) > 0 for i in range(3))
    assert float(jnp.abs(gradient["head"]["denoising"]).max()) > 0


@pytest.mark.slow  # three networks are traced; `test_a_file_goes_there_and_back` asks the same of the smallest
@pytest.mark.parametrize("family", ["rtdetr", "rtdetrv2", "dfine"])
def test_a_description_in_json_builds_the_same_detector(family):
    options = {"points": (4, 2, 1)} if family == "rtdetrv2" else {}
    detector = zoo.build(family, NAMES, SIZE, stored_anchors=SIZE, **options)
    again = zoo.from_description(json.loads(json.dumps(zoo.describe(detector))))
    assert again.spec == detector.spec and not zoo.custom_parts(detector)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deimv2", {"scale": "s"}, "DINOv3 backbone is not built here; give atto, femto, pico, n"),
        ("deimv2", {"scale": "q"}, "no scale 'q'; it has atto"),
        ("dfine", {"scale": "xx"}, "no scale 'xx'; it has n, s, m, l, x"),
        ("rtdetr", {"scale": "r152"}, "no scale 'r152'; it has r18"),
        ("rtdetr", {"queries": 0}, "queries = 0: give a whole number of at least 1"),
        ("dfine", {"queries": 10**9}, "queries = 1000000000: give a whole number of at most 65,536"),
        ("rtdetr", {"denoising": -1}, "denoising = -1"),
        ("deimv2", {"stored_anchors": [64]}, r"stored_anchors = \[64\]: give height and width, multiples of 32"),
        ("dfine", {"stored_anchors": (64, 65)}, r"stored_anchors = \[64, 65\]"),
        ("rtdetrv2", {"points": (4, 0, 4)}, "give a positive number for each of 3 levels"),
    ],
)
def test_what_cannot_be_built_is_named(name, options, message):
    with pytest.raises(ConfigError, match=message):
        zoo.build(name, NAMES, SIZE, **options)


def shapes_of(table):
    return {
        name: np.broadcast_to(np.float32(0.5), tuple(entry[0] if isinstance(entry[0], list) else entry))
        for name, entry in table.items()
    }


@pytest.mark.parametrize(
    "family", ["deimv2", *(pytest.param(one, marks=pytest.mark.slow) for one in TABLES if one != "deimv2")]
)
def test_names_and_shapes_are_those_of_the_peers_table(family, test_data):
    table, scale = TABLES[family]
    tensors = shapes_of(
        json.loads((test_data / "refs" / "d_facts" / "tables80" / f"libreyolo_{table}.json").read_text())
    )
    detector = zoo.build(family, COCO, (640, 640), scale=scale)
    variables = variable_shapes(detector)
    plain = {n: a.shape for n, a in plain_tensors(tensors).items() if not re.fullmatch(CONSTANTS, n)}
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        name = "/".join(key.key for key in path)
        order = (
            (3, 2, 0, 1)
            if leaf.ndim == 4
            else (1, 0)
            if leaf.ndim == 2 and name.endswith("kernel")
            else range(leaf.ndim)
        )
        found[plain_name_in(variables, name)] = tuple(leaf.shape[i] for i in order)
    assert found == plain
    theirs = author_tensors(plain_tensors(tensors), family)
    kept = {name for name in tensors if not re.fullmatch(CONSTANTS, name)}
    # This peer keeps RT-DETRv2's projections under the names of the first version.
    assert family == "rtdetrv2" or kept == {name for name in theirs if not re.fullmatch(CONSTANTS, name)}


# The published tables state millions, or tenths of them; exact numbers were counted in a permissive peer's tables, and
# those of L and X in networks of Ultralytics', which have no row for denoising queries that do not exist.
PUBLISHED = [
    ("rtdetr", "r18", 20_184_464),
    ("rtdetr", "r34", 31e6),
    ("rtdetr", "r50m", 36e6),
    ("rtdetr", "r50", 42_944_620),  # of transformers with its frozen normalisation; the table says 42 million
    ("rtdetr", "r101", 76e6),
    ("rtdetr", "l", 32_970_476 + 256),
    ("rtdetr", "x", 67_467_852 + 256),
    ("dfine", "n", 3_782_691),
    ("dfine", "s", 10e6),
    ("dfine", "m", 19e6),
    ("dfine", "l", 31e6),
    ("dfine", "x", 62e6),
    ("deimv2", "atto", 508_983),
    ("deimv2", "femto", 1.0e6),
    ("deimv2", "pico", 1.5e6),
    ("deimv2", "n", 3_600_419),
]


@pytest.mark.slow  # sixteen networks are traced
@pytest.mark.parametrize(("name", "scale", "published"), PUBLISHED)
def test_has_the_published_size(name, scale, published):
    detector = zoo.build(name, COCO, (640, 640), scale=scale)
    count = zoo.parameter_count(variable_shapes(detector))
    exact = published % 1e5 != 0
    assert count == published if exact else abs(count - published) <= (0.75e6 if published >= 4e6 else 0.075e6)


def test_a_file_goes_there_and_back(built, tmp_path):
    """With three classes of its own; the folder is one of Hugging Face's, whose configuration names them.

    Places that make no query have infinite boxes in the authors' files.
    """
    detector = zoo.build("deimv2", NAMES, SIZE, stored_anchors=(96, 96))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), variable_shapes(detector))
    variables["constants"]["head"]["selection"]["anchors"][0, 7] = queries.OUTSIDE
    tensors = zoo.to_state_dict(detector, variables)
    assert tensors["decoder.anchors"].shape == (1, 36 + 9, 4)
    assert np.isinf(tensors["decoder.anchors"][0]).all(-1).nonzero()[0].tolist() == [7]
    save_file(tensors, tmp_path / "model.safetensors")
    assert zoo.identity(read_weight_file(tmp_path / "model.safetensors")) == "DEIMv2-Atto"
    with pytest.raises(ConfigError, match="has 3 classes, and none are given"):
        load_detector(tmp_path)
    config = {
        "id2label": dict(enumerate(NAMES)),
        "DEIMTransformer": {"num_queries": 50, "eval_spatial_size": [352, 352]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    fewer, _ = zoo.from_pytorch(tmp_path / "model.safetensors", options={"queries": 7})
    assert fewer.spec.options["queries"] == 7  # in the place of what the configuration states
    with pytest.raises(ConfigError, match="options: DEIMv2 from a file has no option stored_anchors; it has"):
        zoo.from_pytorch(tmp_path / "model.safetensors", options={"stored_anchors": (64, 64)})
    again, found = load_detector(tmp_path)
    assert again.spec.class_names == NAMES and again.spec.input_size == (96, 96)
    assert again.spec.options["queries"] == 50 and again.spec.options["scale"] == "atto"
    assert zoo.from_description(json.loads(json.dumps(zoo.describe(again)))).spec == again.spec
    assert not zoo.custom_parts(again)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert again.spec.suppression == "none" and again.spec.postprocess.validation.confidence == 0
    save_file({k: v for k, v in tensors.items() if k != "decoder.anchors"}, tmp_path / "model.safetensors")
    assert deimv2_weights(read_weight_file(tmp_path / "model.safetensors")).size == (352, 352)
    file = read_weight_file(tmp_path / "model.safetensors")
    own = deimv2_weights(replace(file, metadata={"names": ["own", "words", "first"]}))
    assert own.class_names == ("own", "words", "first") and own.defaults == {"queries": 50}
    other = deimv2_weights(replace(file, path=tmp_path / "other.pt"))  # which no configuration of the hub describes
    assert other.class_names is None and not other.defaults and other.size is None


def test_damaged_files_are_named(built, tmp_path):
    tensors = zoo.to_state_dict(*built)
    path = tmp_path / "model.safetensors"
    load = partial(zoo.from_pytorch, path, class_names=NAMES)
    save_file({k: v for k, v in tensors.items() if k != "encoder.bi_fusion.cv.conv.weight"}, path)
    with pytest.raises(CheckpointError, match=r"encoder\.bi_fusion\.cv\.conv\.weight is missing"):
        load()
    save_file({k: v for k, v in tensors.items() if not k.startswith("backbone.")}, path)
    with pytest.raises(CheckpointError, match=r"no HGNetv2 .*DINOv3"):
        load()
    save_file(tensors, path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="is no JSON object"):
        load()


def test_the_real_deimv2_atto_computes_what_its_peer_does(test_data):
    """Its published weights (Apache-2.0) on one photograph: raw output within 1e-3, measured 6.2e-5.

    The file holds the boxes that places start from, and the peer computes with those; see `yolojax.zoo.queries`.
    """
    peer = np.load(test_data / "refs" / "a2_deimv2_atto" / "dog_raw.npz")
    path = test_data / "weights" / "deimv2-atto"
    detector, variables = load_detector(path)
    assert detector.spec.input_size == (320, 320) and detector.spec.options["queries"] == 100
    stored = read_weight_file(path / "model.safetensors").tensors
    boxes, usable = queries.place_boxes([(20, 20), (10, 10)])
    np.testing.assert_allclose(boxes, stored["decoder.anchors"][0], rtol=0, atol=2e-4)
    np.testing.assert_array_equal(usable, stored["decoder.valid_mask"][0, :, 0])
    np.testing.assert_array_equal(variables["constants"]["head"]["selection"]["anchors"], stored["decoder.anchors"])
    image = jnp.asarray(peer["input_uint8"][None] / np.float32(255))
    found = jax.jit(lambda v, x: detector.forward(detector.fold(v), x).queries)(variables, image)
    for name, theirs in (("logits", peer["pred_logits"]), ("boxes", peer["pred_boxes"])):
        np.testing.assert_allclose(getattr(found, name)[:, -1], theirs, rtol=0, atol=1e-3)


def test_stored_anchors_are_taken_at_their_own_size_alone():
    shapes = ((4, 6), (2, 3))
    selection = queries.QuerySelection(2, 5, stored=shapes)
    memory = jax.random.normal(jax.random.key(0), (1, 30, 4))
    variables = selection.init(jax.random.key(1), memory, shapes)
    exact, _ = queries.place_boxes(shapes)
    np.testing.assert_array_equal(variables["constants"]["anchors"][0], exact)
    moved = {**variables, "constants": {"anchors": variables["constants"]["anchors"] + 0.5}}
    apart = selection.apply(moved, memory, shapes).references - selection.apply(variables, memory, shapes).references
    np.testing.assert_allclose(apart, 0.5, atol=1e-5)
    turned = ((6, 4), (3, 2))  # as many places
    same = selection.apply(moved, memory, turned).references - selection.apply(variables, memory, turned).references
    np.testing.assert_array_equal(same, 0)


@pytest.mark.slow  # the network compiles again at the predictor's own batch size
def test_the_real_deimv2_atto_finds_the_dog(test_data):
    predictor = yolojax.load(test_data / "weights" / "deimv2-atto")
    result = predictor(test_data / "photos" / "dog.jpg")
    assert set(result.names) >= {"dog", "car", "bicycle"} and len(result.names) <= 6


@pytest.mark.slow  # 128 photographs
def test_the_real_deimv2_atto_has_its_peers_average_precision(test_data):
    """The best 300 pairs of query and class; AP .31523 on these photographs, as by the peer (libreyolo, MIT)."""
    peer = json.loads((test_data / "refs" / "a2_deimv2_atto" / "ap_train128.json").read_text())
    data = test_data / "data" / "coco128_train" / "instances_train2017.json"
    found = evaluate(test_data / "weights" / "deimv2-atto", data)
    theirs = peer["top300"]["train128"]
    assert pytest.approx(theirs["AP"], abs=0.005) == found.result.AP
    assert pytest.approx(theirs["AP50"], abs=0.005) == found.result.AP50


@pytest.mark.slow  # two networks at 640 pixels
@pytest.mark.filterwarnings("ignore:.*make_weights|unclosed file:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the reference's script leaves files open
@pytest.mark.parametrize(("folder", "name", "scale"), [("c_rtdetr_r18", "rtdetr", "r18"), ("c_dfine_n", "dfine", "n")])
def test_transformers_computes_the_same(folder, name, scale, test_data, tmp_path):
    """transformers (Apache-2.0) with random weights, from a folder of its own form."""
    refs = test_data / "refs"
    spec = importlib.util.spec_from_file_location("make_weights", refs / "scripts" / "make_weights.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    shutil.copytree(refs / folder, tmp_path / folder)
    make.write(str(tmp_path / folder))
    detector, variables = load_detector(tmp_path / folder)
    assert (detector.spec.name, detector.spec.options["scale"]) == (name, scale)
    peer = np.load(tmp_path / folder / "output.npz")
    image = jnp.asarray(peer["input_uint8"][None] / np.float32(255))
    found = jax.jit(detector.forward)(variables, image)
    ours = np.concatenate([found.queries.logits[0, -1], found.queries.boxes[0, -1]], axis=-1)
    theirs = np.concatenate([peer["logits"], peer["pred_boxes"]], axis=-1)
    # Places whose scores differ by 2e-5 may be selected in another order, and queries do not know their numbers.
    row = np.array([np.abs(theirs - one).max(axis=-1).argmin() for one in ours])
    assert sorted(row) == list(range(len(theirs))) and np.sum(row != np.arange(len(row))) <= 4
    np.testing.assert_allclose(ours, theirs[row], rtol=0, atol=1e-3)
