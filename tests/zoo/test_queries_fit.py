"""RT-DETR and DEIMv2 train as every other detector does: `fit`, the command, several devices, and on again."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from yolojax import zoo
from yolojax.cli import main
from yolojax.config import AugmentConfig, DataConfig, ModelConfig, OptimiserConfig, TrainConfig, ValidationConfig
from yolojax.inference.loading import load_detector
from yolojax.sharding.devices import Devices
from yolojax.training import preparation
from yolojax.training.fit import fit
from yolojax.weights.released import flatten

pytestmark = pytest.mark.slow  # each step of training compiles for a minute or more on one core

MODELS = {
    "deimv2": {"scale": "atto", "queries": 20, "denoising": 6, "backbone_rate": 1.0},
    "rtdetr": {"scale": "r18", "queries": 20, "denoising": 6, "backbone_rate": 1.0},
}


DATA = "shapes:?count=16&size=64"
STILL = AugmentConfig(scale_min=1.0, scale_max=1.0, translate=0.0, hue=0.0, saturation=0.0, value=0.0)
"""What is off need not be compiled."""
SGD = OptimiserConfig(name="sgd", learning_rate=0.1, clip_norm=0.1)


def config_of(name: str) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(path=DATA),
        model=ModelConfig(name, 64, options=MODELS[name]),
        augment=STILL,
        optimiser=OptimiserConfig(learning_rate=3e-4, clip_norm=0.1),
        validation=ValidationConfig(samples=0, batch_size=8),
        epochs=2,
        batch_size=8,
        validate_every=0,
        checkpoint_every=1,
    )


def one_device() -> Devices:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    return Devices(1, NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data")))


@pytest.mark.parametrize("name", MODELS)
def test_losses_do_not_depend_on_the_devices_and_a_run_goes_on(name, tmp_path, monkeypatch):
    """The first two losses within 1e-5 of one device's, the others within 1e-3; a resumed run ends in the same bytes.

    The weights to start from are no two alike. Fresh boxes of one level are equally large, so that different matches
    can cost the same and rounding decides between them; the losses of all parts are then equal, but not the gradients.
    The optimiser is SGD: the first step of Adam moves every parameter by the sign of its gradient, which rounding
    decides where the gradient is nearly zero, and then the losses of RT-DETR differ by 1e-3 from the second on.
    """
    config, losses = dataclasses.replace(config_of(name), init=str(tmp_path / "start.safetensors"), optimiser=SGD), {}
    detector = zoo.build(name, tuple("abcdef"), (64, 64), **MODELS[name])
    rng = np.random.default_rng(0)
    stirred = jax.tree.map(
        lambda x: x + rng.normal(0, 0.03, x.shape).astype(np.float32), detector.init(jax.random.key(0))["params"]
    )
    start = {name: np.asarray(value) for name, value in flatten({"params": stirred}).items()}
    save_file(start, tmp_path / "start.safetensors")

    def run(folder: str, stop_at: int = 0):
        rows = losses[folder] = []

        def watch(event):
            if event.kind == "step":
                rows.append(event.row["train/loss"])
                if event.step == stop_at:
                    raise RuntimeError("the power failed")

        return fit(config, tmp_path / folder, callbacks=[watch])

    whole = run("two")
    assert whole.programs == 1 and whole.result is not None
    assert len(losses["two"]) == 4 and np.isfinite(losses["two"]).all()
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "all_devices", one_device)
        run("one")
    np.testing.assert_allclose(losses["one"][:2], losses["two"][:2], rtol=1e-5)
    np.testing.assert_allclose(losses["one"], losses["two"], rtol=1e-3)
    with pytest.raises(RuntimeError, match="power"):
        run("stopped", 3)
    again = fit(config, tmp_path / "stopped", resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.variables, whole.variables)
    assert (again.folder / "detections.json").read_bytes() == (whole.folder / "detections.json").read_bytes()
    detector, variables = load_detector(whole.folder)
    assert detector.spec.options["scale"] == MODELS[name]["scale"]
    jax.tree.map(np.testing.assert_array_equal, variables, whole.variables)


@pytest.mark.parametrize("name", MODELS)
def test_the_command_trains_goes_on_and_predicts(name, tmp_path, capsys):
    folder, options = tmp_path / "run", {key: value for key, value in MODELS[name].items() if key != "scale"}
    arguments = ["train", DATA, "--model", f"{name}-{MODELS[name]['scale']}", "--size", "64", "--out", str(folder)]
    arguments += ["--option", *(f"{key}={value}" for key, value in options.items())]
    arguments += ["--epochs", "2", "--batch-size", "8", "--validate-every", "0", "--checkpoint-every", "1"]
    arguments += ["--validation.samples", "0", "--validation.batch-size", "8"]
    arguments += ["--optimiser.learning-rate", "3e-4", "--optimiser.clip-norm", "0.1"]
    for part in ("scale-min", "scale-max", "translate", "hue", "saturation", "value"):
        arguments += [f"--augment.{part}", str(getattr(STILL, part.replace("-", "_")))]
    assert main(arguments) == 0, capsys.readouterr().err
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    places = sorted((copy / "checkpoints").iterdir(), key=lambda place: int(place.name))
    assert [int(place.name) for place in places] == [2, 4]
    shutil.rmtree(places[-1])
    shutil.rmtree(copy / "best")
    assert main(["train", "--resume", str(copy)]) == 0, capsys.readouterr().err
    weights = "best/weights.safetensors"
    assert (copy / weights).read_bytes() == (folder / weights).read_bytes()
    arguments = ["predict", str(folder / "labels.png"), "--model", str(folder), "--json", "--confidence", "0"]
    capsys.readouterr()
    assert main([*arguments, "--max-detections", "7"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert len(told["detections"]) == 7
