"""What every test runs under: two emulated CPU devices, warnings as errors, shape checks (see pyproject.toml)."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# What the command compiles stays out of the cache of whoever runs the tests, and of the next run of the tests.
os.environ["YOLOJAX_COMPILATION_CACHE"] = "off"

import jax

# Before anything initialises a backend: code that shards a batch is then tested on more than one device everywhere.
jax.config.update("jax_num_cpu_devices", 2)
# An operand of lower rank (other than a scalar) must be broadcast by hand: silent [N] + [M, N] hides shape mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

import tests.typecheck  # noqa: E402, F401 (named in pyproject.toml, from where it is not imported)
from yolojax.processor.platform import traced_for  # noqa: E402

# The same examples in every run, so that a merge never fails by chance.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")

DATA_VARIABLE = "YOLOJAX_TEST_DATA"

QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"
"""Without LLVM's optimisations, and with XLA's older code for fusions, a program compiles in a ninth of the time.

A later XLA no longer has that code, and ends the process, without a word that pytest would show, at a flag that it does
not know.
"""


def pytest_configure(config: pytest.Config) -> None:
    """Tests compile many small programs and run each a few times; those marked slow train, and run each for long.

    XLA reads its flags when the first program is compiled.
    """
    if config.getoption("markexpr") == "not slow":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}"


def pytest_collection_finish() -> None:
    """What was imported stays to the end: the garbage collector need not look at it after every module again.

    Tracing makes many objects and hardly any cycles: looked for after every 700 objects, as is Python's default, they
    take a twentieth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Drops the compiled programs of a module at its end: kept for all modules they take 5 GB of memory.

    The distribution ``worksteal`` (see pyproject.toml) gives a worker whole modules, so that few are compiled twice.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def traced_for_this_platform(request: pytest.FixtureRequest) -> Iterator[None]:
    """Traces what runs here: a third of the time of all tests was tracing forms for other platforms.

    Those are traced by the tests that carry the mark ``any_platform``, which lower programs for them.
    """
    with traced_for(None if request.node.get_closest_marker("any_platform") else jax.default_backend()):
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data sets, published cases and weights, which are not part of the repository."""
    folder = os.environ.get(DATA_VARIABLE, "")
    if not folder:
        pytest.skip(f"real data needed: set {DATA_VARIABLE} to the folder that holds it")
    if not Path(folder).is_dir():
        pytest.fail(f"{DATA_VARIABLE}={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Programs that a module makes again and again, as its runs of the same settings do, are compiled once."""
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def blank_plots() -> Iterator[None]:
    """From here to the end of the module, figures are put together but not drawn: each is saved as one white pixel.

    For modules that train again and again and do not look at the plots; drawing took a sixth of their time.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _, file, **__: Image.new("L", (1, 1), 255).save(file, format="png"))
        patch.setattr(Figure, "tight_layout", lambda _: None)
        yield


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """No implicit dtype promotion inside the test. Not global: optax (adamw) and bfloat16 BatchNorm rely on it."""
    with jax.numpy_dtype_promotion("strict"):
        yield
