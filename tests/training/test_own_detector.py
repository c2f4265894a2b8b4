"""Data and detectors of the user's own go through `fit`, whatever their pytrees are made of."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.own_detectors import NAMES, SIZE, dataclass_detector, tuple_detector
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.data import shapes_dataset
from yolojax.detector import variable_shapes
from yolojax.errors import CheckpointError, ConfigError, DataError
from yolojax.inference.evaluate import evaluate
from yolojax.training.fit import fit
from yolojax.training.run_directory import read_config, read_given
from yolojax.weights.released import fit_tree, flatten, load_weights

pytestmark = pytest.mark.usefixtures("blank_plots", "compiled_once")

OFF = {"scale_min": 1.0, "scale_max": 1.0, "translate": 0.0, "hue": 0.0, "saturation": 0.0, "value": 0.0}
CONFIG = TrainConfig(
    augment=AugmentConfig(flip_horizontal=0.0, **OFF),
    optimiser=OptimiserConfig(learning_rate=1e-2, ema_decay=0.5),
    validation=ValidationConfig(samples=0),
    epochs=4,
    batch_size=8,
    validate_every=0,
    checkpoint_every=1,
)


def one_class(count, split):
    data = shapes_dataset(count, size=SIZE, split=split)
    records = tuple(dataclasses.replace(r, classes=np.zeros_like(r.classes)) for r in data.records)
    return dataclasses.replace(data, class_names=NAMES, category_ids=(1,), records=records)


DATA = (one_class(16, "train"), one_class(3, "val"))
KINDS = {"tuples": tuple_detector, "dataclass": dataclass_detector}


@pytest.fixture(scope="module", params=["tuples", pytest.param("dataclass", marks=pytest.mark.slow)])
def finished(request, tmp_path_factory):
    detector = KINDS[request.param]()
    losses = []
    run = fit(
        CONFIG,
        tmp_path_factory.mktemp(request.param) / "run",
        data=DATA,
        detector=detector,
        callbacks=[lambda event: losses.append(event.row["train/loss"]) if event.kind == "epoch" else None],
    )
    return detector, run, losses


def test_it_trains_and_is_measured(finished):
    _, run, losses = finished
    assert losses[-1] < 0.5 * losses[0] and run.result is not None and run.programs == 1
    assert (run.folder / "report" / "index.html").is_file() and (run.folder / "train_batch0.png").is_file()


def test_the_run_directory_says_what_was_given(finished):
    detector, run, _ = finished
    given = read_given(run.folder)
    assert given["data"]["train_fingerprint"] == DATA[0].fingerprint() and given["data"]["val_images"] == 3
    assert given["detector"]["name"] == detector.spec.name
    assert read_config(run.folder) == CONFIG
    described = json.loads((run.folder / "best" / "detector.json").read_text())
    assert described["training"]["given"] == given


def test_the_released_weights_fit_its_tree_again(finished):
    detector, run, _ = finished
    weights = load_weights(run.folder / "best" / "weights.safetensors")
    again = fit_tree(weights, variable_shapes(detector), "best")
    assert jax.tree.structure(again) == jax.tree.structure(run.variables)
    jax.tree.map(np.testing.assert_array_equal, again, run.variables)


# A checkpoint holds arrays by their paths in the tree: the tree of tuples is the harder one.
def test_it_is_measured_again_by_its_record(finished):
    detector, run, _ = finished
    again = evaluate(run.folder, DATA[1], validation=CONFIG.validation, detector=detector)
    assert again.result.AP == run.result.AP and again.result.counters == run.result.counters
    with pytest.raises(CheckpointError, match=r"pass the record itself, detector="):
        evaluate(run.folder, DATA[1])
    with pytest.raises(ConfigError, match="a record is measured as it is"):
        evaluate((detector, run.variables), DATA[1], detector=detector)


def test_it_resumes_to_the_same_bytes(finished, tmp_path):
    detector, run, _ = finished

    def stop(event):
        if event.kind == "step" and event.step == 5:
            raise RuntimeError("the power failed")

    with pytest.raises(RuntimeError, match="power"):
        fit(CONFIG, tmp_path / "run", data=DATA, detector=detector, callbacks=[stop])
    with pytest.raises(ConfigError, match=r"started with data= as an argument.*data=\.\.\., resume=True"):
        fit(CONFIG, tmp_path / "run", resume=True)
    with pytest.raises(ConfigError, match="started with detector= as an argument"):
        fit(CONFIG, tmp_path / "run", data=DATA, resume=True)
    with pytest.raises(DataError, match="training images or their objects have changed"):
        fit(CONFIG, tmp_path / "run", data=one_class(15, "train"), detector=detector, resume=True)
    again = fit(CONFIG, tmp_path / "run", data=DATA, detector=detector, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.variables, run.variables)
    assert (again.folder / "detections.json").read_bytes() == (run.folder / "detections.json").read_bytes()


@pytest.mark.parametrize(("kind", "part"), [("tuples", "0"), ("dataclass", "trunk")])
def test_weight_decay_moves_its_kernels_and_freezing_keeps_a_part(kind, part, tmp_path):
    """Without a gradient only arrays of two or more axes shrink, and nothing of the frozen part moves."""
    detector = KINDS[kind]()
    still = detector._replace(loss=lambda *arguments: jax.tree.map(jnp.zeros_like, detector.loss(*arguments)))
    config = dataclasses.replace(
        CONFIG, epochs=1, freeze=(part,), optimiser=OptimiserConfig(learning_rate=0.1, weight_decay=0.5)
    )
    run = fit(config, tmp_path / "run", data=DATA[0], detector=still)
    start = flatten(still.init(jax.random.fold_in(jax.random.key(0), 0)))
    for name, value in flatten(run.variables).items():
        if not name.startswith("params/"):
            continue
        moved = not np.array_equal(start[name], value)
        assert moved == (value.ndim >= 2 and not name.startswith(f"params/{part}/")), name


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"data": DataConfig(path="elsewhere")}, "data.path"),
        ({"data": DataConfig(train_split="train")}, "data.train_split"),
        ({"data": DataConfig(skip_bad=True)}, "data.skip_bad"),
        ({"model": ModelConfig(name="yolox-s")}, "model.name"),
        ({"model": ModelConfig(size=64)}, "model.size"),
        ({"model": ModelConfig(options={"depths": 1})}, "model.options"),
        ({"compute": "bfloat16"}, "compute"),
    ],
)
def test_a_setting_that_contradicts_what_was_given_is_named(change, name, tmp_path):
    with pytest.raises(ConfigError, match=f"^{name} = .* was given"):
        fit(dataclasses.replace(CONFIG, **change), tmp_path / "run", data=DATA, detector=tuple_detector())
    assert not (tmp_path / "run").exists()


def test_a_detector_of_other_classes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="classes the detector does not know"):
        fit(CONFIG, tmp_path / "run", data=shapes_dataset(8, size=SIZE), detector=tuple_detector())


def outputs_alone(forward_train):
    return lambda *arguments: forward_train(*arguments)[0]


def statistics_of(make):
    """A ``forward_train`` whose second value is made of the variables that it is given."""
    return lambda forward_train: (
        lambda variables, *arguments: (forward_train(variables, *arguments)[0], make(variables))
    )


def terms_of(change):
    return lambda loss: lambda *arguments: change(loss(*arguments))


@pytest.mark.parametrize(
    ("field", "edit", "message"),
    [
        ("init", lambda init: lambda key: init(key)["params"], 'init returns {"params": pytree, ...}, not tuple'),
        ("forward_train", outputs_alone, r"(outputs, new collections), such as (outputs, {})"),
        ("forward_train", statistics_of(lambda v: (v["seen"],)), "its second value is tuple of int32[]"),
        (
            "forward_train",
            statistics_of(lambda v: {"sen": v["seen"]}),
            "the collection 'sen', which init does not make",
        ),
        ("forward_train", statistics_of(lambda v: {"seen": v["seen"] + 0.5}), "float32[], not int32[]"),
        ("loss", terms_of(lambda terms: terms.reduce()[0]), "loss returns LossTerms"),
        ("loss", terms_of(lambda t: t._replace(normalisers={})), "sums of middle, but normalisers of"),
        ("loss", terms_of(lambda t: t._replace(sums={"middle": t.sums["middle"].sum()})), "sums['middle'] of shape []"),
        ("loss", lambda loss: lambda outputs, targets, hyper: targets.box, "has no attribute 'box'"),
        ("decode", lambda decode: lambda outputs: tuple(decode(outputs)), "tuples cannot detect"),
    ],
)
def test_a_function_that_does_not_keep_its_promise_is_named_before_the_run_begins(field, edit, message, tmp_path):
    detector = tuple_detector()
    detector = detector._replace(**{field: edit(getattr(detector, field))})
    with pytest.raises(ConfigError) as error:
        fit(CONFIG, tmp_path / "run", data=DATA, detector=detector)
    assert message in str(error.value) and not (tmp_path / "run").exists()


def test_statistics_that_are_returned_with_the_parameters_are_taken(tmp_path):
    detector = tuple_detector()
    edited = detector._replace(forward_train=statistics_of(lambda variables: variables)(detector.forward_train))
    run = fit(dataclasses.replace(CONFIG, epochs=1, accumulate=2), tmp_path / "run", data=DATA[0], detector=edited)
    assert int(run.variables["seen"]) == 0 and run.programs == 1


def test_hyper_parameters_change_with_the_step_in_one_program(tmp_path):
    """By a function, and by the configuration: the loss is weighed anew in the last quarter."""
    detector, rows = tuple_detector(), []
    still = dataclasses.replace(CONFIG, optimiser=OptimiserConfig(learning_rate=1e-12), batch_size=16)

    def losses(config, out, **arguments):
        rows.clear()
        watch = lambda event: rows.append(event.row["train/loss"]) if event.kind == "step" else None  # noqa: E731
        run = fit(config, tmp_path / out, data=DATA[0], detector=detector, callbacks=[watch], **arguments)
        assert run.programs == 1
        return np.array(rows)

    base = losses(still, "base")
    late = dataclasses.replace(still, final_hyper={"lambda_coord": 10.0}, final_share=0.25)
    np.testing.assert_allclose(losses(late, "late") / base, [1, 1, 1, 2], rtol=1e-5)
    last = dataclasses.replace(late, final_share=0.05)  # less than a step
    np.testing.assert_allclose(losses(last, "last") / base, [1, 1, 1, 2], rtol=1e-5)
    double = lambda hyper, step, total: hyper._replace(lambda_coord=hyper.lambda_coord * (1 + step / total))  # noqa: E731
    np.testing.assert_allclose(losses(still, "own", hyper=double) / base, [1, 1.25, 1.5, 1.75], rtol=1e-5)


def test_the_log_has_the_learning_rate_that_a_function_made_of_the_progress(tmp_path):
    constant = OptimiserConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0)
    config = dataclasses.replace(CONFIG, optimiser=constant, batch_size=16, epochs=4)
    rising = lambda hyper, step, total: hyper._replace(learning_rate=hyper.learning_rate * (1 + hyper.progress))  # noqa: E731
    fit(config, tmp_path / "run", data=DATA[0], detector=tuple_detector(), hyper=rising)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    share = np.array([row["step"] - 1 for row in rows]) / rows[-1]["step"]
    np.testing.assert_allclose([row["learning_rate"] for row in rows], 1e-3 * (1 + share), rtol=1e-6)


@pytest.mark.parametrize(("found", "kind"), [(None, "NoneType"), ({"lambda_coord": 1.0}, "dict")])
def test_a_function_of_the_step_that_gives_no_hyper_parameters_is_named(found, kind, tmp_path):
    with pytest.raises(ConfigError, match=f"hyper: the function returned a {kind}"):
        fit(CONFIG, tmp_path / "run", data=DATA, detector=tuple_detector(), hyper=lambda hyper, step, total: found)
    assert not (tmp_path / "run").exists()


REFUSED = """
import sys
from yolojax.config import TrainConfig
from yolojax.data import shapes_dataset
from yolojax.errors import ConfigError
from yolojax.training.fit import fit
from yolojax.training.sweep import Trial, sweep

data, config = shapes_dataset(8, size=(32, 32)), TrainConfig()
for options in ({"detector": "yolov8n"}, {"callbacks": print}, {"callbacks": ["tensorboard"]}):
    try:
        fit(config, sys.argv[1], data=data, **options)
    except ConfigError as error:
        print(error)
for trials, options in (
    ([Trial()], {"strategy": "vmaps"}), ([Trial()], {"strategy": "vmaps", "width": 1}), ([Trial()], {"width": 1.5}),
    ([0], {}), ([Trial(-1)], {}), ([Trial(0.5)], {}), ([Trial(hyper={"lambda_cls": "a"})], {}),
):
    try:
        sweep(config, trials, data=data, **options)
    except ConfigError as error:
        print(error)
"""


def test_arguments_of_wrong_types_are_refused_by_name(tmp_path):
    """In a process of its own, since the tests' own check of types would be first."""
    program = [sys.executable, "-c", REFUSED, str(tmp_path / "run")]
    told = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    assert [line.partition(";")[0] for line in told.stdout.splitlines()] == [
        "detector: give a Detector, such as that of yolojax.zoo.build, not a str",
        "callbacks = <built-in function print>: give a list of functions",
        "callbacks: 'tensorboard' is no function of an event",
        *["sweep strategy = 'vmaps': give auto, vmap, unroll or devices"] * 2,
        "sweep width = 1.5: give a whole number of at least 1",
        "0 is no trial",
        "seed = -1: give 0 or more",
        "seed = 0.5: give a whole number",
        "hyper.lambda_cls = 'a': give a number",
    ]
    assert not (tmp_path / "run").exists()
