"""The second call of a command: what an earlier process kept is used, and never believed when it is damaged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from yolojax.data import open_dataset

PROGRAM = """
import json, sys
import jax
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
from yolojax import compilation_cache
from yolojax.cli import main
compilation_cache.SHORTEST_COMPILATION = 0.0  # else what is kept would depend on how busy the machine is
code = main(sys.argv[1:])
print(json.dumps([code, "flax" in sys.modules, events.count("cache_hits"), events.count("cache_misses")]))
"""


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(open_dataset("shapes:val?count=1&size=96").records[0].pixels()).save(path)
    return path


def predict(cache: Path, photo: Path, model: Path, *options: str) -> tuple[list[dict], bool, int, int]:
    """Detections, whether the network's code was imported, and hits and misses of JAX's cache, of a new process."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "YOLOJAX_"))}
    variables |= {"YOLOJAX_COMPILATION_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["predict", str(photo), "--model", str(model), "--json", "--confidence", ".01", *options]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], env=variables, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr and "Warning" not in ended.stderr, ended.stderr
    *found, told = ended.stdout.splitlines()
    code, flax, hits, misses = json.loads(told)
    assert code == 0
    return json.loads("\n".join(found))[0]["detections"], flax, hits, misses


@pytest.mark.slow  # four processes, of which two compile
def test_a_second_call_builds_and_compiles_nothing(trained, photo, tmp_path):
    first, flax, hits, misses = predict(tmp_path, photo, trained)
    assert first and flax and hits == 0 and misses > 0
    kept = sorted(tmp_path.glob("programs-*/*-kept"))
    assert [path.name.partition("-")[2] for path in kept] == ["program-kept", "variables-kept"]
    second, flax, hits, misses = predict(tmp_path, photo, trained)
    assert second == first and not flax and hits > 0 and misses == 0
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    third, flax, _, misses = predict(tmp_path, photo, trained)
    assert third == first and flax and misses == 0
    few, flax, *_ = predict(tmp_path, photo, trained, "--max-detections", "2")
    assert few == first[:2] and flax
