"""Every shell command of the pages runs as it stands, in a folder with the files that the commands name.

What would take hours is shortened by the options of `SHORTER`, which stand beside the command or in place of its own.
What needs a camera, a cluster or another compiler is named in `ELSEWHERE` with the reason.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.darknet_cases import random_weights, yolov4_tiny
from tests.weights.test_yolox import pth
from yolojax import zoo
from yolojax.data.shapes import open_shapes
from yolojax.data.writing import write_coco
from yolojax.weights.darknet import Header, parse_cfg, stored_arrays, write_weights

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "examples").glob("*.md"))]

SHORTER = {
    "train": {"--size": "64", "--epochs": "1", "--batch-size": "4", "--validation.samples": "0"},
    "val": {"--samples": "0"},
    "bench train": {"--size": "64", "--batch": "4", "--seconds": "1"},
    "bench predict": {"--size": "64", "--seconds": "1"},
}
"""Options by verb. An option that the command gives with another value is replaced."""

ELSEWHERE = {
    "yolojax demo": "minutes long; its own test runs it",
    "yolojax doctor": "its own test runs it",
    "python -m experiments": "its own test runs it",
    "yolojax predict 0 ": "needs a camera",
    "yolojax predict rtsp:": "needs a stream",
    "yolojax predict film.mp4": "the tests of films make one",
    "yolojax plan": "takes a TPU's compiler many minutes",
    "--plan": "takes a TPU's compiler many minutes",
    "YOLOJAX_PROCESS": "two processes, which the tests of sharding start",
    "srun": "needs a cluster",
    "gcloud": "needs a cluster",
    "/shared/": "needs a cluster",
    "pip install": "installs",
    "source .venv": "installs",
}
"""What is not run here: a piece of the command, and why."""

PACKAGES = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino",)}
"""Words of commands that optional packages serve."""


def commands() -> list[str]:
    """Every line of every block of shell commands, without its remark."""
    found = []
    for page in PAGES:
        for block in re.findall(
            r"^```(?:bash|sh)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in block.replace("\\\n", " ").splitlines())
            found += filter(None, lines)
    return found


def runnable() -> list:
    """The commands that `ELSEWHERE` does not name, each once, as cases."""
    lines = dict.fromkeys(line for line in commands() if not any(piece in line for piece in ELSEWHERE))
    return [pytest.param(line, id=line.replace("/", "-")) for line in lines]


def shortened(line: str) -> str:
    """The command with the options of its verb in `SHORTER`."""
    verb = next((verb for verb in SHORTER if f"yolojax {verb} " in line), None)
    for option, value in SHORTER.get(verb or "", {}).items():
        line, count = re.subn(rf"{re.escape(option)} [^ ]+( \d+)*", f"{option} {value}", line)
        line += "" if count else f" {option} {value}"
    return line


def write_pt(path: Path, name: str) -> None:
    """A state dict with random parameters, as PyTorch writes it, by the names of the detector's own authors."""
    detector = zoo.build(name, zoo.COCO_CLASSES, (64, 64))
    variables = jax.device_get(jax.jit(detector.init)(jax.random.key(0)))
    path.write_bytes(pth(zoo.to_state_dict(detector, variables)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of three parts, photos, weight files, results of other programs, and a short run."""
    folder = tmp_path_factory.mktemp("user")
    splits = {split: open_shapes(f"shapes:{split}?count=8&size=96") for split in ("train", "val", "test")}
    write_coco(splits, folder / "path/to/data")
    (folder / "photos/more").mkdir(parents=True)
    (folder / "path/to/photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    for name in ("photo.jpg", "photos/a.jpg", "photos/more/b.jpg", "path/to/photos/c.jpg", "path/to/photos/d.jpg"):
        Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(folder / name)
    Image.fromarray(pixels).resize((1500, 1000), Image.Resampling.BICUBIC).save(folder / "aerial.jpg")
    truth = json.loads((folder / "path/to/data/annotations/instances_val.json").read_text())
    (folder / "truth.json").write_text(json.dumps(truth))
    rows = [
        {key: one[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for one in truth["annotations"]
    ]
    for name, count in (("detections.json", len(rows)), ("other.json", len(rows) - 2)):
        (folder / name).write_text(json.dumps(rows[:count]))
    for run, count in (("first", len(rows) - 2), ("second", len(rows))):
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "detections.json").write_text(json.dumps(rows[:count]))
    for name, model in (("best.pt", "yolov8n"), ("yolov8n.pt", "yolov8n"), ("yolov8s.pt", "yolov8s")):
        write_pt(folder / name, model)
    write_pt(folder / "yolox_nano.pth", "yolox-nano")
    text = yolov4_tiny((64, 64), 1 / 16, 3)
    (folder / "yolov4-tiny.cfg").write_text(text)
    (folder / "coco.names").write_text("cat\ndog\nowl\n")
    cfg = parse_cfg(text)
    write_weights(folder / "yolov4-tiny.weights", cfg, random_weights(stored_arrays(cfg), 0), Header())
    (folder / "bin").mkdir()
    (folder / "bin/yolojax").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m yolojax "$@"\n')
    (folder / "bin/yolojax").chmod(0o755)
    return folder


def run(line: str, folder: Path) -> str:
    """What the command prints, of both streams; fails unless it ends with 0."""
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    ended = subprocess.run(
        ["bash", "-ec", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    told = ended.stdout + ended.stderr
    assert ended.returncode == 0 and "Traceback" not in told, f"{line}\n{told[-3000:]}"
    return told


@pytest.mark.slow  # some fifty commands of ten seconds each
@pytest.mark.parametrize("line", runnable())
def test_a_command_of_the_pages_runs(line: str, place: Path) -> None:
    for word, packages in PACKAGES.items():
        for package in packages if word in line else ():
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"needs the package {package}")
    words = shlex.split(line)
    run_folder = place / "runs/mine"
    if "--out" in words and (out := place / words[words.index("--out") + 1]).exists():
        out.rename(place / f"earlier-{len(list(place.glob('earlier-*')))}")  # pages share names; nothing is overwritten
    if "runs/mine" in line and not run_folder.exists() and "--out runs/mine" not in line:
        run(shortened("yolojax train path/to/data --model yolov8n --out runs/mine"), place)
    assert run(shortened(line), place).strip()


def test_what_is_not_run_is_on_a_page():
    lines = commands()
    assert len(runnable()) > 40
    assert [piece for piece in ELSEWHERE if not any(piece in line for line in lines)] == []
