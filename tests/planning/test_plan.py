"""`make_plan` and its text: with a compiler that is played, and with those that are installed."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.planning.test_analysis import GPU
from tests.planning.test_hlo import TPU
from yolojax.config import ModelConfig, TrainConfig
from yolojax.errors import ConfigError
from yolojax.planning import plan as planning
from yolojax.planning.analysis import collectives_of, launches_of, memory_of, time_of
from yolojax.planning.compilers import missing_compiler, open_target
from yolojax.planning.hlo import parse_module
from yolojax.planning.plan import make_plan
from yolojax.planning.programs import Program, Sizes, train_program, workload
from yolojax.planning.targets import parse_target
from yolojax.planning.text import as_dict, as_text
from yolojax.progress import Quiet
from yolojax.sharding.devices import all_devices

SMALL = {"widths": [8, 8, 16], "depths": [0, 0, 1], "head_width": 16, "reg_max": 8}
CONFIG = TrainConfig(model=ModelConfig(name="compact", size=64, options=SMALL), batch_size=8)


class Compiled:
    """What a compiler gives for a batch: its memory grows by a gigabyte an image."""

    def __init__(self, text, batch_size):
        self.text, self.batch_size = text, batch_size

    def as_text(self):
        return self.text

    def memory_analysis(self):
        names = ("argument", "output", "alias", "temp", "generated_code")
        sizes = (10**9, 0, 0, 10**9 * self.batch_size, 0)
        return SimpleNamespace(**{f"{n}_size_in_bytes": s for n, s in zip(names, sizes, strict=True)})


@pytest.fixture
def played(monkeypatch):
    """Makes the compilers give texts that are stored, or refuse a batch as that of a TPU does."""

    def play(text, refuse_from=10**9):
        def program(work, devices, batch_size):
            def compile():
                if batch_size >= refuse_from:
                    raise jax.errors.JaxRuntimeError(
                        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
                        f"Used {batch_size + 1}.00G of 15.75G hbm."
                    )
                return Compiled(text, batch_size)

            return Program("train", batch_size, 3, Sizes(100, 100, 200, 50), compile)

        monkeypatch.setattr(planning, "open_target", lambda target: all_devices())
        monkeypatch.setattr(planning, "train_program", program)

    return play


def test_a_plan_for_a_tpu(played):
    played(TPU)
    plan = make_plan(CONFIG, parse_target("v5e:1x1"), Quiet(), programs=["train"])
    (step,) = plan.programs
    assert step.fits and step.needs == 9 * 10**9 and step.launches is None
    assert step.memory is not None and step.memory.temporary == 8 * 10**9
    # The line through 8 and 4 images: one gigabyte an image and one besides; two devices share a batch here.
    assert plan.largest_batch == (step.limit - 10**9) // 10**9 // 2 * 2
    assert step.time is not None and step.utilisation == pytest.approx(step.work / 197e12 / step.time.seconds)
    text = as_text(plan)
    for said in ("training step, batch 8: fits", "nothing was measured", "estimate", "1 all-reduce", "backbone/conv"):
        assert said in " ".join(text.split())
    assert all(len(line) <= 130 for line in text.splitlines())
    assert json.loads(json.dumps(as_dict(plan)))["estimated"] is True


def test_a_plan_for_a_gpu_tells_its_launches(played):
    played(GPU)
    plan = make_plan(CONFIG, parse_target("l4"), Quiet(), programs=["train"], largest=False)
    (step,) = plan.programs
    assert step.utilisation is None and step.launches is not None and sum(step.launches.values()) == 4
    assert "4: 1 cuDNN convolution" in as_text(plan) and plan.largest_batch is None


def test_what_the_compiler_refuses_does_not_fit(played):
    played(TPU, refuse_from=8)
    plan = make_plan(CONFIG, parse_target("v5e:2x2"), Quiet(), programs=["train"])
    (step,) = plan.programs
    assert not step.fits and step.needs == 9 * 2**30 and step.memory is None
    assert "DOES NOT FIT" in as_text(plan) and "does not fit: training step" in as_text(plan)


def test_what_does_not_fit_says_which_arrays(played):
    played(TPU)
    config = TrainConfig(model=CONFIG.model, batch_size=64)
    (step,) = make_plan(config, parse_target("v5e:2x2"), Quiet(), programs=["train"], largest=False).programs
    assert not step.fits and "64.0 GB of it for temporary arrays" in step.limits


def test_a_batch_that_the_chips_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(planning, "open_target", lambda target: all_devices())
    config = TrainConfig(model=CONFIG.model, batch_size=7)
    with pytest.raises(ConfigError, match="batch_size = 7: give a multiple of the 2 devices"):
        make_plan(config, parse_target("v5e:2x2"), Quiet(), programs=["train"])


def test_shapes_are_those_of_the_batches_of_a_run():
    """What is compiled is what `fit` would run: the same shapes and types."""
    from yolojax.data import build_cache, shapes_dataset
    from yolojax.geometry import Preprocess
    from yolojax.planning.programs import batch_shapes

    data = shapes_dataset(2, size=(64, 64))
    batch = build_cache(data, (64, 64), Preprocess()).batch(np.arange(2))
    shapes = batch_shapes(2, (64, 64), workload(CONFIG, data).max_objects)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(lambda x: (x.shape, x.dtype), shapes)


def installed(text):
    target = parse_target(text)
    if missing := missing_compiler(target):
        pytest.skip(missing)
    return target


@pytest.mark.parametrize("text", ["v5e:2x2", "h100:2"])
def test_an_installed_compiler_compiles_a_small_program(text):
    """The texts that the stored ones stand for: a convolution, and a sum over the chips."""
    target = installed(text)
    devices = open_target(target)
    assert devices.number == target.chips

    def step(images, kernel):
        with jax.named_scope("loss"):
            return jnp.sum(jax.nn.relu(jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME")))

    images = jax.ShapeDtypeStruct((8, 64, 32, 32), jnp.bfloat16, sharding=devices.split)
    kernel = jax.ShapeDtypeStruct((64, 64, 3, 3), jnp.bfloat16, sharding=devices.replicated)
    compiled = jax.jit(step, out_shardings=devices.replicated).lower(images, kernel).compile()
    module, memory = parse_module(compiled.as_text()), memory_of(compiled.memory_analysis())
    assert memory.arguments >= 8 // target.chips * 64 * 32 * 32 * 2
    (sent,) = collectives_of(module, target.device)
    assert sent.kind == "all-reduce" and sent.count == 1
    spent = time_of(module, target.device)
    assert spent.seconds > 0 and "loss" in spent.phases
    if target.device.kind == "gpu":
        assert launches_of(module)["cuDNN convolution"] == 1


@pytest.mark.slow  # a quarter of a minute of a processor; .ci/run runs it, with the compiler installed
@pytest.mark.parametrize("text", ["v5e:2x2"])
def test_a_small_step_is_planned(text):
    """The step with all its parts, two images on each chip, read from a TPU's compiler that is installed."""
    target, config = installed(text), TrainConfig(model=CONFIG.model, batch_size=8, compute="bfloat16")
    plan = make_plan(config, target, Quiet(), classes=3, objects=8, programs=["train"], largest=False)
    (step,) = plan.programs
    assert step.fits and step.memory is not None and step.memory.total > sum(step.state.values())
    assert step.time is not None and step.time.seconds > 0 and 0 < step.utilisation < 1  # type: ignore
    assert {"augmentation", "forward", "backward", "loss", "optimiser"} <= set(step.time.phases)
    # All chips add up their gradients. A gather would be a batch that is collected on every chip.
    assert {collective.kind for collective in step.collectives} == {"all-reduce"}
    assert jax.default_backend() == "cpu"
    assert "training step, batch 8: fits" in as_text(plan)


@pytest.mark.slow  # minutes: whole training steps, evaluations and predictions are compiled
@pytest.mark.parametrize("text", ["v5e:2x2", "h100:2"])
def test_a_whole_run_is_planned(text):
    plan = make_plan(CONFIG, installed(text), Quiet())
    assert [program.program for program in plan.programs] == ["train", "evaluate", "predict"]
    assert all(program.fits and program.memory and program.time for program in plan.programs)
    assert plan.largest_batch is not None and plan.largest_batch > plan.batch_size
    step = plan.programs[0]
    assert {"augmentation", "forward", "backward", "loss", "optimiser"} <= set(step.time.phases)  # type: ignore
    assert [collective.kind for collective in step.collectives].count("all-reduce") == 1


@pytest.mark.slow  # minutes: a large network is compiled
@pytest.mark.parametrize("text", ["v5e:1x1"])
def test_a_batch_that_does_not_fit_is_refused_by_the_compiler(text):
    target = installed(text)
    config = TrainConfig(model=ModelConfig(name="yolov8n", size=1280), batch_size=256, compute="bfloat16")
    devices = open_target(target)
    program = train_program(workload(config, None), devices, 256)
    with pytest.raises(jax.errors.JaxRuntimeError, match="hbm"):
        program.compile()
    (step,) = make_plan(config, target, Quiet(), programs=["train"], largest=False).programs
    assert not step.fits and step.needs > step.limit


@pytest.mark.slow  # a minute: what the clock of a TPU rests on
@pytest.mark.parametrize("text", ["v5e:1x1", "v6e:1x1"])
def test_a_large_product_nearly_reaches_the_published_peak(text):
    """The compiler tells cycles, and vendors operations a second: the clock must bring them together."""
    target = installed(text)
    devices, side = open_target(target), 8192
    square = jax.ShapeDtypeStruct((side, side), jnp.bfloat16, sharding=devices.replicated)
    compiled = jax.jit(jnp.matmul, out_shardings=devices.replicated).lower(square, square).compile()
    spent = time_of(parse_module(compiled.as_text()), target.device)
    assert 0.65 < 2 * side**3 / target.device.flops / spent.seconds < 1.0
