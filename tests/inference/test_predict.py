"""Prediction: boxes in pixels of the photo, whatever its size and whichever photos it is batched with."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import yolojax
from yolojax import zoo
from yolojax.detect import only_classes
from yolojax.detector import Detector, DetectorSpec, variable_shapes
from yolojax.errors import CheckpointError, ConfigError, DataError
from yolojax.geometry import Preprocess
from yolojax.inference.predict import Predictor, Result, load_detector
from yolojax.postprocess import postprocess
from yolojax.structures import Candidates
from yolojax.weights.released import load_description, load_weights, save_released

INPUT_SIZE = (64, 96)
CLASSES = ("cell", "platelet", "other")


def red_finder(preprocess: Preprocess) -> Detector:
    """A detector that is right by construction: one box around whatever is red, scored by how red it is."""
    spec = DetectorSpec("red finder", ("red",), INPUT_SIZE, (32,), preprocess)

    def forward(variables, images):
        rgb = images[..., ::-1] if preprocess.channels == "bgr" else images
        return [rgb * (preprocess.scale / 255)]

    def decode(outputs):
        image = outputs[0]
        red = (image[..., 0] > 0.6) & (image[..., 1] < 0.4)

        def extent(any_red):  # first and last position that is red, [B] each
            places = jnp.arange(any_red.shape[1])[None]
            n = any_red.shape[1]
            return jnp.where(any_red, places, n).min(1), jnp.where(any_red, places + 1, 0).max(1)

        (x1, x2), (y1, y2) = extent(red.any(1)), extent(red.any(2))
        box = jnp.stack([x1, y1, x2, y2], -1).astype(jnp.float32)
        strength = jnp.where(red, image[..., 0], 0.0).max((1, 2))
        return Candidates(box[:, None], strength[:, None, None])

    detector = Detector(spec, lambda key: {}, forward, None, None, decode, lambda variables: variables)  # pyright: ignore[reportArgumentType]
    return detector


def photo(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A grey photo with a red rectangle."""
    image = np.full((height, width, 3), 90, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = (230, 20, 30)
    return image


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(align="topleft", channels="bgr", scale=1.0),
        Preprocess(resize="stretch"),
    ],
)
def test_boxes_come_back_in_pixels_of_the_photo(preprocess):
    predictor = Predictor(red_finder(preprocess), {})
    cases = [
        ((64, 96), (10, 20, 40, 50)),
        ((128, 192), (20, 8, 100, 90)),
        ((300, 100), (30, 100, 90, 260)),
        ((33, 500), (100, 5, 460, 30)),
        ((20, 30), (0, 0, 30, 20)),
        ((1000, 90), (0, 300, 90, 1000)),
    ]
    for (height, width), box in cases:
        result = predictor(photo(height, width, box))
        assert result.size == (height, width) and result.names == ["red"] and result.truncated == 0
        # To one input image pixel: that is what the input image can tell, in pixels of the photo.
        pixel = np.array([max(height / INPUT_SIZE[0], width / INPUT_SIZE[1])] * 4)
        if preprocess.resize == "stretch":
            pixel = np.array([width / INPUT_SIZE[1], height / INPUT_SIZE[0]] * 2)
        assert (np.abs(result.boxes[0] - box) <= pixel + 1e-3).all(), ((height, width), result.boxes)
        assert (result.boxes[0] >= 0).all() and result.boxes[0, 2] <= width and result.boxes[0, 3] <= height


def test_a_photo_lying_on_its_side_is_found_upright(tmp_path):
    upright = photo(120, 60, (10, 20, 40, 110))
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored pixels are to be turned by 90 degrees, clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "side.png", exif=exif)
    result = Predictor(red_finder(Preprocess()), {})(tmp_path / "side.png")
    assert result.size == (120, 60)
    np.testing.assert_allclose(result.boxes[0], (10, 20, 40, 110), atol=2.0)


def test_nothing_found_is_an_empty_result():
    result = Predictor(red_finder(Preprocess()), {})(np.zeros((50, 40, 3), np.uint8))
    assert result.boxes.shape == (0, 4) and result.scores.shape == result.classes.shape == (0,)
    assert result.as_dict() == {"height": 50, "width": 40, "detections": [], "truncated": 0}


def small_detector() -> Detector:
    """Of two levels, and as few layers as there can be."""
    small = {"widths": (8, 8, 8, 16), "depths": (0, 0, 0, 0), "neck_depth": 0, "head_width": 16, "reg_max": 8}
    return zoo.build("compact", CLASSES, INPUT_SIZE, **small)


@pytest.fixture(scope="module")
def released(tmp_path_factory) -> Path:
    """A small detector with arbitrary parameters, which finds many things everywhere, as a run leaves it."""
    detector = small_detector()
    variables = jax.device_get(detector.init(jax.random.key(0)))
    leaves, tree = jax.tree.flatten(variables)
    rng = np.random.default_rng(0)
    leaves = [np.asarray(x * rng.uniform(0.7, 1.3, x.shape) + 0.01, np.float32) for x in leaves]
    variables = jax.tree.unflatten(tree, leaves)
    for i in range(2):  # scores around one half
        variables["params"]["head"][f"level{i}_predict_cls"]["bias"] = np.zeros(3, np.float32)
    folder = tmp_path_factory.mktemp("run")
    save_released(folder / "best", variables, {"detector": zoo.describe(detector)})
    return folder


@pytest.fixture(scope="module")
def predictor(released) -> Predictor:
    """The detector above, compiled once for all tests that need not compile it anew."""
    return yolojax.load(released, max_detections=1000)


def photos(n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    sizes = [(64, 96), (100, 50), (37, 211), (96, 64), (400, 300)]
    return [rng.integers(0, 256, (*sizes[i % 5], 3), np.uint8) for i in range(n)]


def assert_same(a: Result, b: Result, tolerance: float) -> None:
    assert (a.size, a.class_names, a.truncated) == (b.size, b.class_names, b.truncated)
    np.testing.assert_array_equal(a.classes, b.classes)
    np.testing.assert_allclose(a.scores, b.scores, atol=tolerance)
    np.testing.assert_allclose(a.boxes, b.boxes, atol=100 * tolerance)


def test_what_was_released_is_what_is_loaded(released, predictor):
    detector, variables = load_detector(released / "best")
    assert detector.spec == small_detector().spec
    expected = variable_shapes(detector)
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    direct = Predictor(detector, variables, max_detections=1000)
    for image in photos(3):
        a, b = predictor(image), direct(image)
        assert len(a.scores) > 5
        assert_same(a, b, 0.0)


def test_photos_of_any_sizes_are_one_program_and_give_what_they_give_alone(released, predictor):
    """A batch of four is shared by the two devices."""
    images = photos(5)
    four = yolojax.load(released, max_detections=1000, batch_size=4)
    together = four(images)
    assert len(together) == 5 and len({r.size for r in together}) == 5
    assert four._run._cache_size() == 1
    assert len(jax.tree.leaves(four.variables)[0].devices()) == len(jax.devices())
    for image, result in zip(images, together, strict=True):
        assert_same(predictor(image), result, 1e-5)


def test_thresholds_change_without_compiling_again(predictor):
    image = photos(1)[0]
    few, many = predictor(image, confidence=0.6), predictor(image, confidence=0.4)
    loose = predictor(image, confidence=0.4, iou=0.9)
    assert len(few.scores) < len(many.scores) <= len(loose.scores)
    assert few.scores.min(initial=1) >= 0.6 and many.scores.min() >= 0.4
    assert (np.diff(many.scores) <= 0).all()
    np.testing.assert_array_equal(few.boxes, many.boxes[: len(few.boxes)])
    assert predictor._run._cache_size() == 1


def test_a_photo_with_more_candidates_than_the_first_program_takes_is_done_again(released, predictor, monkeypatch):
    monkeypatch.setattr("yolojax.inference.predict.CAPACITY", 10)
    small = yolojax.load(released, max_detections=1000)
    for image in photos(2):
        assert_same(predictor(image, confidence=0.3), small(image, confidence=0.3), 0.0)
    assert small._run_again is not None and small._run_again._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


def test_what_does_not_fit_is_counted(released, predictor):
    image = photos(1)[0]
    all_of_it = predictor(image, confidence=0.3)
    few = yolojax.load(released, max_detections=3)(image, confidence=0.3)
    assert all_of_it.truncated == 0
    assert len(few.scores) == 3 and few.truncated == len(all_of_it.scores) - 3
    np.testing.assert_array_equal(few.boxes, all_of_it.boxes[:3])


def test_a_network_in_bfloat16(released, predictor):
    """The network rounds to 8 bits of precision; boxes are still computed in float32."""
    half = yolojax.load(released, max_detections=1000, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(half.variables)} == {jnp.dtype("float32")}
    image = photos(1)[0]
    exact, rounded = predictor(image, confidence=0.4), half(image, confidence=0.4)
    assert rounded.boxes.dtype == np.float32 and len(rounded) > 5
    assert not np.array_equal(exact.scores[:5], rounded.scores[:5])
    np.testing.assert_allclose(exact.scores[:5], rounded.scores[:5], atol=0.02)
    for wrong in ("int8", "halb"):
        with pytest.raises(ConfigError, match="give float32, bfloat16 or float16"):
            yolojax.load(released, dtype=wrong)


def test_files_and_arrays_give_the_same(predictor, tmp_path):
    image = photos(1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    assert_same(predictor(tmp_path / "a.png"), predictor(image), 0.0)
    assert_same(predictor(str(tmp_path / "a.png")), predictor(image), 0.0)


def test_results_as_json_and_as_a_picture(predictor):
    image = photos(2)[1]
    result = predictor(image)
    told = json.loads(json.dumps(result.as_dict()))
    assert (told["height"], told["width"]) == (100, 50) == result.size
    for row, score, box, name in zip(told["detections"], result.scores, result.boxes, result.names, strict=True):
        assert row["class"] == name == CLASSES[row["class_index"]]
        assert row["score"] == float(score) and row["box"] == box.tolist()
    drawn = result.plot()
    assert drawn.dtype == np.uint8 and min(drawn.shape[:2]) >= 240
    nothing = replace(result, boxes=result.boxes[:0], scores=result.scores[:0], classes=result.classes[:0])
    assert drawn.shape == nothing.plot().shape and not np.array_equal(drawn, nothing.plot())


def test_results_read_like_torchvisions_dictionary(predictor):
    result = predictor(photos(2)[1])
    assert set(result.keys()) == {"boxes", "scores", "labels"} and len(result) == len(result.scores)
    for key, value in dict(result).items():
        np.testing.assert_array_equal(value, {"labels": result.classes}.get(key, getattr(result, key, None)))
    with pytest.raises(KeyError, match="'masks': a result has boxes"):
        result["masks"]


def handmade() -> Result:
    """Four detections, one of a class whose name means something to HTML."""
    boxes = np.array([[10, 20, 60, 80], [0, 0, 30.5, 40], [99.2, 99.7, 99.9, 100], [20, 20, 40, 40]], np.float32)
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    names = ("a<b", "dog")
    scores = np.array([0.9, 0.8, 0.5, 0.25], np.float32)
    return Result(boxes, scores, np.array([1, 0, 1, 1]), names, image, 0, "photos/a.jpg")


def test_a_result_says_what_it_is():
    result = handmade()
    assert repr(result) == "<Result photos/a.jpg, 100 x 100 pixels: dog 0.90, a<b 0.80, dog 0.50, dog 0.25>"
    many = replace(result, **{k: np.tile(getattr(result, k), (3, 1) if k == "boxes" else 3) for k in FIELDS}, path=None)
    assert repr(many).endswith("dog 0.25, dog 0.90, a<b 0.80, and 6 more>")
    nothing = replace(result, **{k: getattr(result, k)[:0] for k in FIELDS})
    assert repr(nothing).endswith("nothing found>") and bool(nothing)


FIELDS = ("boxes", "scores", "classes")


def test_a_notebook_shows_picture_and_table():
    result = handmade()
    picture = Image.open(io.BytesIO(result._repr_png_()))
    np.testing.assert_array_equal(np.asarray(picture), result.plot())
    large = replace(result, image=np.zeros((1500, 3000, 3), np.uint8))
    assert Image.open(io.BytesIO(large._repr_png_())).size == (1024, 512)
    page = result._repr_html_()
    assert page.count("<tr>") == 5 and "a&lt;b" in page and "a<b" not in page


def test_other_forms_of_a_result():
    result = handmade()
    rows = result.to_coco(7, category_ids=(5, 9))
    assert [r["category_id"] for r in rows] == [9, 5, 9, 9] and rows[0]["bbox"] == [10, 20, 50, 60]
    assert [r["category_id"] for r in result.to_coco("a")] == [2, 1, 2, 2]
    with pytest.raises(ConfigError, match="1 category ids for 2 classes"):
        result.to_coco(7, [1])
    assert result.to_yolo()[0] == "1 0.350000 0.500000 0.500000 0.600000 0.900000"
    crops = result.crops()
    np.testing.assert_array_equal(crops[0], result.image[20:80, 10:60])
    assert [c.shape[:2] for c in crops[1:]] == [(40, 31), (1, 1), (20, 20)]


def test_supervision_where_it_is_installed(monkeypatch):
    result = handmade()
    monkeypatch.setitem(sys.modules, "supervision", None)  # as if it were not
    with pytest.raises(ConfigError, match="pip install supervision"):
        result.to_supervision()
    monkeypatch.delitem(sys.modules, "supervision")
    supervision = pytest.importorskip("supervision")
    found = result.to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 4
    np.testing.assert_array_equal(found.xyxy, result.boxes)
    assert found.data["class_name"].tolist() == result.names


def test_only_the_classes_asked_for(predictor):
    """No box comes back under another class, whatever the others are."""
    image = photos(1)[0]
    every = predictor(image, confidence=0.4)
    some = predictor(image, confidence=0.4, classes=["other", 0])
    keep = np.isin(every.classes, [0, 2])
    assert 0 < keep.sum() < len(every)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(some, name), getattr(every, name)[keep])
    for wrong, said in (([3], "classes: 3 is none of the 3"), (["cel"], "'cel' is none"), ([], "none given")):
        with pytest.raises(ConfigError, match=said):
            predictor(image, classes=wrong)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_box_of_a_class_not_wanted_does_not_come_back_under_another(multi_label):
    scores = np.array([[[0.9, 0.8, 0.1], [0.2, 0.7, 0.7], [0.3, 0.1, 0.2]]], np.float32)
    got = only_classes(
        Candidates(jnp.zeros((1, 3, 4)), jnp.asarray(scores)), jnp.array([False, True, True]), multi_label=multi_label
    )
    low = -np.inf
    first, last = ([low, 0.8, 0.1], [low, 0.1, 0.2]) if multi_label else ([low] * 3, [low] * 3)
    np.testing.assert_array_equal(got.scores[0], np.array([first, [low, 0.7, 0.7], last], np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_classes_agrees_with_the_class_that_is_reported(bad):
    """Scores that are not finite are never reported; of equal scores the first class is."""
    scores = np.array([[[bad, 0.7, 0.2], [0.2, bad, 0.9], [0.6, 0.6, 0.1], [0.1, 0.6, 0.6], [bad] * 3]], np.float32)
    boxes = jnp.arange(5.0)[None, :, None] * 100 + jnp.array([[[0.0, 0, 50, 50]]])
    report = jax.jit(lambda candidates: postprocess(candidates, 0.05, 0.5, max_detections=5))
    every = report(Candidates(boxes, jnp.asarray(scores)))
    for wanted in ([0], [1], [2], [0, 2], [1, 2]):
        mask = jnp.isin(jnp.arange(3), jnp.array(wanted))
        some = report(only_classes(Candidates(boxes, jnp.asarray(scores)), mask, multi_label=False))
        keep = np.isin(every.classes[0], wanted)
        assert int(some.valid.sum()) == keep.sum()
        np.testing.assert_array_equal(some.boxes[0][: keep.sum()], every.boxes[0][keep])
        np.testing.assert_array_equal(some.classes[0][: keep.sum()], every.classes[0][keep])
    np.testing.assert_array_equal(every.classes[0], [2, 1, 0, 1, -1])


RED = photo(80, 120, (30, 20, 90, 60))


@pytest.mark.parametrize(
    ("suffix", "convert"),
    [
        ("png", lambda image: image.convert("RGBA")),
        ("png", lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE)),
        ("tif", lambda image: image.convert("CMYK")),
        ("jpg", lambda image: image.convert("CMYK")),
        ("jpg", lambda image: image.convert("YCbCr")),
        ("png", lambda image: image),
    ],
)
def test_every_kind_of_colour_file_gives_the_same(suffix, convert, red_predictor, tmp_path):
    image = convert(Image.fromarray(RED))
    image.save(tmp_path / f"a.{suffix}")
    result = red_predictor(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(result.boxes, [[30, 20, 90, 60]], atol=2.0)
    np.testing.assert_allclose(red_predictor(image).boxes, result.boxes, atol=2.0)
    assert result.path == str(tmp_path / f"a.{suffix}") and result.image.shape == (80, 120, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_grey_files_are_read_as_grey(mode, red_predictor, tmp_path):
    grey = np.full((80, 120), 90, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    result = red_predictor(tmp_path / "a.png")
    assert len(result) == 0 and (mode == "1" or (result.image == 90).all())


def test_pixels_of_unknown_range_are_refused_by_name(red_predictor, tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "deep.tif")
    with pytest.raises(DataError, match=r"deep\.tif: float32 pixels of unknown range"):
        red_predictor(tmp_path / "deep.tif")
    with pytest.raises(DataError, match="Pillow image: float32 pixels of unknown range"):
        red_predictor(Image.fromarray(np.full((4, 4), 0.5, np.float32)))
    with pytest.raises(ConfigError, match="int is no image"):
        red_predictor(3)


@pytest.fixture(scope="module")
def red_predictor() -> Predictor:
    return Predictor(red_finder(Preprocess()), {})


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_arrays_that_are_no_photo_are_refused(image):
    from yolojax.inference.predict import as_rgb

    with pytest.raises(ConfigError, match="give uint8 RGB"):
        as_rgb(image)


@pytest.mark.parametrize(
    ("thresholds", "match"),
    [
        ({"confidence": 1.0}, "confidence = 1.0"),
        ({"confidence": -0.1}, "confidence = -0.1"),
        ({"confidence": float("nan")}, "confidence = nan"),
        ({"iou": 0.0}, "iou = 0.0"),
        ({"iou": 1.1}, "iou = 1.1"),
    ],
)
def test_thresholds_out_of_range_are_refused_at_once(thresholds, match):
    with pytest.raises(ConfigError, match=match):
        Predictor(red_finder(Preprocess()), {}).many([], **thresholds)


def test_sizes_out_of_range_are_refused():
    for sizes in ({"max_detections": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="give a whole number"):
            Predictor(red_finder(Preprocess()), {}, **sizes)


def test_files_that_are_no_photo_are_named(predictor, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("text.jpg", "missing.jpg"):
        with pytest.raises(DataError, match=name):
            predictor(tmp_path / name)


def test_folders_that_hold_no_detector_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        yolojax.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no detector\.json"):
        yolojax.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="--resume"):
        yolojax.load(tmp_path)


def test_weights_of_another_detector_are_refused(released, tmp_path):
    description = load_description(released / "best")
    weights = load_weights(released / "best" / "weights.safetensors")
    description["detector"]["options"]["head_width"] = 8
    save_released(tmp_path, weights, description)
    with pytest.raises(CheckpointError, match=r"parameter .* is float32 of shape .* the detector needs"):
        load_detector(tmp_path)
    description["detector"]["options"]["head_widht"] = 8
    save_released(tmp_path, weights, description)
    with pytest.raises(CheckpointError, match="head_widht"):
        load_detector(tmp_path)


def test_photos_that_are_none_are_named(red_predictor, tmp_path):
    with pytest.raises(DataError, match=r"no\.png: no such file; check the path"):
        red_predictor(tmp_path / "no.png")
    with pytest.raises(DataError, match="a folder; give a file"):
        red_predictor(str(tmp_path))
    with pytest.raises(ConfigError, match="no home directory ~nobody-of-that-name"):
        red_predictor("~nobody-of-that-name/a.png")
    for wrong, said in (
        (b"bytes", "image of bytes"),
        (RED[None], r"shape \(1, 80, 120, 3\).*several images as a list"),
        (RED.astype(np.float32), "type float32: give uint8 RGB"),
    ):
        with pytest.raises(ConfigError, match=said):
            red_predictor(wrong)
    with pytest.raises(ConfigError, match="give a list of images"):
        red_predictor.many("a.png")


def test_arguments_of_other_types_are_taken(red_predictor, released):
    expected = red_predictor(RED)
    for given in (
        red_predictor(jnp.asarray(RED)),
        red_predictor(RED, confidence=np.float32(0.25), iou=jnp.float32(0.45)),
        red_predictor(RED, classes=0),
        red_predictor(RED, classes=jnp.asarray([0])),
        red_predictor(RED, classes=(np.int64(0),)),
        next(red_predictor.many(RED[None])),
    ):
        assert_same(given, expected, 1e-6)
    assert load_detector(released, size=[np.int64(64), 96])[0].spec.input_size == (64, 96)


REFUSED = """
import sys, yolojax
from yolojax.errors import ConfigError
from yolojax.inference.predict import Predictor, load_detector
from yolojax.inference.tta import TTA
from yolojax.tiling import Tiling

detector, variables = load_detector(sys.argv[1])
for model in (detector, [detector, variables]):
    try:
        yolojax.evaluate(model, "data")
    except ConfigError as error:
        print(error)
many = Predictor(detector, variables).many
for call, options in (
    (many, {"confidence": "0.5"}), (many, {"iou": [0.5]}), (many, {"classes": 1.5}),
    (many, {"classes": [True]}),
    (yolojax.load, {"size": "96"}), (yolojax.load, {"size": (64, 96, 3)}), (yolojax.load, {"size": 96.0}),
    (yolojax.load, {"max_detections": 2.5}), (yolojax.load, {"max_detections": 10**8}),
    (yolojax.load, {"batch_size": "2"}),
    (yolojax.load, {"tta": True}), (yolojax.load, {"tta": TTA(1.0)}), (yolojax.load, {"tta": TTA(("small",))}),
    (yolojax.load, {"tiling": 640}), (yolojax.load, {"tiling": Tiling(64.5)}),
    (yolojax.load, {"tiling": Tiling(64, "a")}),
    (yolojax.load, {"detector": "compact"}), (yolojax.load, {"suppress": "soft"}),
):
    try:
        call([] if call is many else sys.argv[1], **options)
    except ConfigError as error:
        print(error)
"""


def test_arguments_of_wrong_types_are_refused_by_name(released):
    """In a process of its own, since the tests' own check of types would be first."""
    told = subprocess.run([sys.executable, "-c", REFUSED, released], capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    assert [line.partition(";")[0] for line in told.stdout.splitlines()] == [
        *["a model that is a record is a pair: give (detector, variables)"] * 2,
        "confidence = '0.5': give a number from 0 to below 1",
        "iou = [0.5]: give a number above 0, at most 1",
        "classes: 1.5 is none of the 3 classes, which are cell, platelet, other",
        "classes: True is none of the 3 classes, which are cell, platelet, other",
        "size = '96': give whole pixels, one number or (height, width)",
        "size = (64, 96, 3): give whole pixels, one number or (height, width)",
        "size = 96.0: give whole pixels, one number or (height, width)",
        "max_detections = 2.5: give a whole number from 1 to 100000",
        "max_detections = 100000000: give a whole number from 1 to 100000",
        "batch_size = '2': give a whole number of at least 1",
        "tta = True: give a TTA, such as TTA()",
        "tta scales = 1.0: give several numbers, such as (0.8, 1.0, 1.2)",
        "tta scales = ('small',): give several numbers, such as (0.8, 1.0, 1.2)",
        "tiling = 640: give a Tiling, such as Tiling(640)",
        "tile size = 64.5: give whole pixels",
        "tile overlap = 'a': give a share from 0 to 0.9",
        "detector: give the whole record (a Detector), not a str",
        "suppress is 'soft': choose 'nms' or 'none', or give a function, such as one that "
        "yolojax.nms.named_suppression makes by name",
    ]
