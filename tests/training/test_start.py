"""Starting from given parameters, choosing a batch size, ending in time, and naming a loss that is not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.toy import toy_batch, toy_detector
from tests.zoo.yolox_arrays import golden, write_arrays
from yolojax import zoo
from yolojax.augment import compose
from yolojax.config import OptimiserConfig
from yolojax.data import build_cache, shapes_dataset, take_fraction
from yolojax.detector import prepare_images
from yolojax.errors import CheckpointError, ConfigError, NonFiniteError
from yolojax.geometry import Preprocess
from yolojax.progress import Quiet
from yolojax.sharding.devices import all_devices
from yolojax.structures import Hyper, hyper_as_arrays
from yolojax.training.budget import steps_that_fit
from yolojax.training.initialise import lacks_statistics, load_init, take_matching, with_measured_statistics
from yolojax.training.log import EpochLog, checked
from yolojax.training.programs import Programs, choose_batch_size, find_batch_size
from yolojax.training.run_directory import read_config
from yolojax.training.state import make_state
from yolojax.training.step import StepReport, make_train_step

OWN = {
    "params": {
        "backbone": {"stem": {"kernel": np.zeros((3, 3), np.float32)}},
        "neck": {},
        "head": {"box": np.zeros(4, np.float32), "cls": np.zeros(20, np.float32)},
    },
    "batch_stats": {"backbone": {"stem": {"mean": np.zeros(3, np.float32)}}},
}


def given(**head):
    return {
        "params": {"backbone": {"stem": {"kernel": np.ones((3, 3), np.float16)}}, "head": head},
        "batch_stats": {"backbone": {"stem": {"mean": np.full(3, 2.0, np.float32)}}},
    }


def test_what_has_the_same_path_and_shape_is_taken_and_the_rest_named_in_one_summary():
    other = given(box=np.ones(4, np.float32), cls=np.ones(80, np.float32), extra=np.ones(1, np.float32))
    taken, summary = take_matching(OWN, other, "somewhere")
    assert jax.tree.structure(taken) == jax.tree.structure(OWN)
    assert taken["params"]["backbone"]["stem"]["kernel"].dtype == jnp.float32
    assert [float(jnp.sum(x)) for x in jax.tree.leaves(taken)] == [6.0, 9.0, 4.0, 0.0]
    assert summary == (
        "3 of 4 arrays taken from somewhere, the others freshly initialised"
        "; of another shape: params/head/cls (80 there, 20 here); unused: params/head/extra"
    )


def test_a_backbone_alone_is_enough():
    taken, summary = take_matching(OWN, given(), "a backbone")
    assert summary.endswith("not there: params/head/box, params/head/cls")
    assert float(jnp.sum(taken["params"]["backbone"]["stem"]["kernel"])) == 9


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"params": {"encoder": np.ones(3, np.float32)}},
            r"none of its 1 arrays .*such as params/backbone/stem/kernel",
        ),
        ({}, "there: none at all"),
        (given(box=np.float32([0, np.nan, 0, 0])), "params/head/box holds values that are not finite"),
    ],
)
def test_what_cannot_be_started_from_is_refused(other, message):
    with pytest.raises(CheckpointError, match=message):
        take_matching(OWN, other, "somewhere")


def test_variables_lack_statistics_when_no_normalisation_knows_any():
    known = {"batch_stats": {"a": {"mean": np.zeros(2), "var": np.ones(2)}, "b": {"mean": np.array([0.0, 1e-3])}}}
    assert not lacks_statistics(known) and not lacks_statistics({"params": {"mean": np.zeros(2)}, "batch_stats": {}})
    known["batch_stats"]["b"]["mean"] = np.zeros(2)
    assert lacks_statistics(known)


@pytest.mark.parametrize("freeze", [(), ("backbone",)])
def test_statistics_are_measured_on_training_images_and_change_no_answer(freeze):
    detector = toy_detector()
    images = build_cache(shapes_dataset(20, size=(32, 32)), (32, 32), Preprocess())
    variables = detector.init(jax.random.key(0))
    variables["params"]["backbone"]["first"]["norm"]["bias"] += 0.3
    measured, said = with_measured_statistics(detector, variables, images, 3, freeze)
    assert "measured on 16 of the 20 training images" in said
    assert jax.tree.structure(measured) == jax.tree.structure(variables)
    stats = measured["batch_stats"]
    assert bool(jnp.all(stats["neck"]["first"]["norm"]["mean"] != 0))
    for name in ("params", "batch_stats"):
        kept = jax.tree.map(np.array_equal, measured[name]["backbone"], variables[name]["backbone"])
        assert all(jax.tree.leaves(kept)) == bool(freeze)

    # The same images, by hand: their answers, and in float64 what the first convolution gives.
    drawn = np.random.default_rng(3).permutation(20)[:16]
    pixels = prepare_images(jnp.asarray(images.images[drawn]), detector.spec.preprocess)
    forward = jax.jit(detector.forward)
    before = forward(variables, pixels)
    np.testing.assert_allclose(forward(measured, pixels), before, rtol=1e-4, atol=1e-5)
    if not freeze:
        kernel = np.asarray(variables["params"]["backbone"]["first"]["conv"]["kernel"], np.float64)
        padded = np.pad(np.asarray(pixels, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = np.stack([padded[:, i : i + 32 : 2, j : j + 32 : 2] for i in range(3) for j in range(3)], axis=-2)
        given_out = np.tensordot(patches, kernel.reshape(9, *kernel.shape[2:]), 2)
        norm = stats["backbone"]["first"]["norm"]
        np.testing.assert_allclose(norm["mean"], given_out.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(norm["var"], given_out.var((0, 1, 2)), rtol=1e-3)
        targets = toy_batch(0, size=16).targets
        trained, _ = jax.jit(detector.forward_train)(measured, pixels, targets, jax.random.key(0))
        np.testing.assert_allclose(trained, before, rtol=1e-3, atol=1e-4)


# ---- batch size


@pytest.mark.parametrize(
    ("limit", "most", "expected"),
    [(1000, 128, 64), (1000, 40, 32), (300, 128, 16), (120, 128, 2), (139, 128, 2), (10**9, 128, 128), (130, 3, 2)],
)
def test_the_largest_batch_size_that_fits_is_found_with_few_questions(limit, most, expected):
    """100 bytes and 10 for each image; even images, for two devices."""
    asked = []

    def need(size):
        asked.append(size)
        return 100 + 10 * size

    size = choose_batch_size(need, limit, 2, most)
    assert size == expected and 100 + 10 * size <= limit and size in asked
    assert len(set(asked)) <= 4


def test_a_guess_that_turns_out_too_large_is_taken_back():
    size = choose_batch_size(lambda n: 100 + 10 * n + 10 * max(0, n - 8) ** 2, 600, 1, 128)
    assert size == 8


def test_a_batch_that_cannot_fit_is_refused():
    with pytest.raises(ConfigError, match="even 2 images need"):
        choose_batch_size(lambda n: 10**9 * n, 10**9, 2, 128)


@pytest.mark.parametrize("fits", [8, 2])
def test_the_choice_rests_on_the_compiled_programs_and_leaves_one(fits, monkeypatch):
    """XLA's own analysis of a real step: a limit between two sizes picks the smaller, without running anything."""
    config = OptimiserConfig()
    detector, devices = toy_detector(), all_devices()
    programs = Programs(make_train_step(detector, config, compose([]), jax.random.key(0)), devices)
    state = jax.jit(lambda key: make_state(detector, config, 10, key))(jax.random.key(0))
    images = build_cache(shapes_dataset(70, size=(64, 64)), (64, 64), Preprocess())
    hyper, asked = hyper_as_arrays(Hyper()), {}
    inner = programs.compile

    def compile(state, batch, hyper):
        asked[batch.images.shape[0]] = inner(state, batch, hyper)
        return asked[batch.images.shape[0]]

    monkeypatch.setattr(programs, "compile", compile)
    for size in (2, 4, 8):
        example = jax.tree.map(
            lambda x, n=size: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), images.batch(np.arange(2))
        )
        programs.compile(state, example, hyper)
        programs.forget(example)
    assert asked[2] < asked[4] < asked[8]
    limit = asked[8] if fits == 8 else asked[4] - 1
    monkeypatch.setattr("yolojax.training.programs.memory_limit", lambda _: limit / 0.85 + 1)
    chosen = find_batch_size(programs, state, images, hyper, devices, Quiet())
    assert chosen == fits and programs.count == 1


def test_the_choice_is_made_for_the_input_size_that_is_asked_for():
    """A run at several sizes asks for the largest."""
    shapes, devices = [], all_devices()

    class Asked(Programs):
        def compile(self, state, batch, hyper):
            shapes.append(batch.images.shape)
            return 1

        def forget(self, batch):
            pass

    images = build_cache(shapes_dataset(70, size=(64, 64)), (64, 64), Preprocess())
    programs = Asked(lambda state, batch, hyper: state, devices)
    chosen = find_batch_size(programs, None, images, Hyper(), devices, Quiet(), input_size=(96, 64))
    assert {shape[1:] for shape in shapes} == {(96, 64, 3)} and chosen in {shape[0] for shape in shapes}


def test_programs_are_counted_by_shape():
    config, detector = OptimiserConfig(), toy_detector()
    programs = Programs(make_train_step(detector, config, compose([]), jax.random.key(0)), all_devices())
    hyper = hyper_as_arrays(Hyper())
    begin = jax.jit(lambda key: make_state(detector, config, 10, key), out_shardings=all_devices().replicated)
    state = begin(jax.random.key(0))
    for i in range(3):
        state, _ = programs(state, jax.device_get(toy_batch(i)), hyper)
    assert programs.count == 1 and int(state.step) == 3
    state, _ = programs(state, jax.device_get(toy_batch(0, size=4)), hyper)
    assert programs.count == 2 and "1 recompilations" in programs.summary()


# ---- time, share, and what is not finite


@pytest.mark.parametrize(
    ("step", "planned", "left", "pace", "expected"),
    [(10, 100, 45.0, 0.5, 100), (10, 100, 20.0, 0.5, 50), (10, 100, -3.0, 0.5, 10), (10, 100, 1.0, 0.0, 100)],
)
def test_a_run_ends_where_its_time_does(step, planned, left, pace, expected):
    assert steps_that_fit(step, planned, left, pace) == expected


def test_a_share_of_the_images_is_drawn_by_the_seed():
    whole = shapes_dataset(20, size=(64, 64))
    ids = [[r.image_id for r in take_fraction(whole, 0.3, seed).records] for seed in (0, 0, 1)]
    assert len(ids[0]) == 6 and ids[0] == ids[1] != ids[2] and ids[0] == sorted(ids[0])
    assert len(take_fraction(whole, 1e-6, 0)) == 1 and take_fraction(whole, 1.0, 0) is whole


def test_a_loss_that_is_not_finite_names_part_and_images():
    images = build_cache(shapes_dataset(4, size=(64, 64)), (64, 64), Preprocess())
    ids = images.image_ids[[3, 1]]
    one = np.float32(1)
    report = StepReport(one, {"box": one, "cls": np.float32(np.inf)}, {}, one, np.bool_(False), np.float32([1, np.nan]))
    name = images.dataset.records[1].file_name
    with pytest.raises(NonFiniteError, match=f"step 7: not finite in cls = inf of {name}; start again with a lower"):
        checked(7, ids, report, images)
    with pytest.raises(NonFiniteError, match="in the gradient, while the loss is finite"):
        checked(7, ids, report._replace(parts={"box": one}, image_loss=np.float32([1, 1])), images)


def test_the_sums_of_an_epoch_come_back_to_the_bit():
    import json

    log = EpochLog()
    report = StepReport(
        np.float32(0.1),
        {"b": np.float32(1 / 3), "a": np.float32(2)},
        {"n": np.float32(5)},
        np.float32(1e-7),
        np.bool_(1),
        np.zeros(8, np.float32),
    )
    log.add(report)
    log.elapsed = 0.1
    again = EpochLog.from_dict(json.loads(json.dumps(log.to_dict(), sort_keys=True)))
    log.add(report), again.add(report)
    assert list(again.row().items()) == list(log.row().items())


def test_yolox_arrays_of_classes_without_names_can_be_started_from(tmp_path):
    path = write_arrays(tmp_path / "three.npz", golden("plain"))
    given, spec = load_init(path)
    assert spec is None and given["params"]
    detector = zoo.from_yolox(path, class_names=("a", "b", "c"))[0]
    taken = take_matching(detector.init(jax.random.key(0)), given, str(path), detector.spec, spec)[0]
    jax.tree.map(np.testing.assert_array_equal, taken["params"], given["params"])


@pytest.mark.parametrize("text", ["[]", "{", '{"epoch": 3}', '{"epochs": "many"}', '{"data": 4}'])
def test_a_damaged_configuration_is_named_by_its_file(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(tmp_path)
