"""Trainers of others, run and never imported. Used by `experiments.benchmarks.throughput`."""

import csv
import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def pytorch(python: str, size: int, batch: int, dtype: str, seconds: float, mode: str = "eager") -> Record:
    settings = f"{size}, {batch}, {dtype!r}, {seconds}, {mode!r}"
    call = f"import json, torch_yolov8n as t; print(json.dumps(t.main({settings})))"
    done = subprocess.run(
        [python, "-c", call], cwd=Path(__file__).parent, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


# Runs a script in whose process PyTorch keeps all cores.
ALL_CORES = (
    "import os, runpy, sys, torch; torch.set_num_threads(os.cpu_count()); torch.set_num_threads = lambda n: None; "
    "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def yolo_command(*, all_cores: bool) -> list[str]:
    """The command `yolo` of the user; with ``all_cores`` where it would leave some free for its loader."""
    script = shutil.which("yolo")
    if script is None:
        raise SystemExit("there is no command yolo on the PATH")
    if not all_cores:
        return [script]
    python = shlex.split(Path(script).read_text().splitlines()[0].removeprefix("#!"))
    if "python" not in python[-1]:
        raise SystemExit(f"{script} does not name its Python in the first line, so its threads cannot be set")
    return [*python, "-c", ALL_CORES, script]


def ultralytics(size: int, batch: int, *, all_cores: bool) -> Record:
    """From its own record of the seconds after each epoch: neither the first counts nor the last, which evaluates."""
    from yolojax.data import shapes_dataset, write_yolo

    count = max(128, 8 * batch)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        write_yolo({p: shapes_dataset(n, size=(size, size), split=p) for p, n in (("train", count), ("val", 16))}, data)
        settings = {"model": "yolov8n.yaml", "data": data / "data.yaml", "epochs": 4, "imgsz": size, "batch": batch}
        settings |= {"project": name, "name": "run", "val": False, "plots": False}
        settings |= {"close_mosaic": 0}  # else a run of fewer than ten epochs has no mosaic at all
        settings |= {"amp": False, "save": False}  # float32, and no checkpoint within the time
        command = [*yolo_command(all_cores=all_cores), "detect", "train", *(f"{k}={v}" for k, v in settings.items())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with (Path(name) / "run" / "results.csv").open() as handle:
            seconds = [float({k.strip(): v for k, v in row.items()}["time"]) for row in csv.DictReader(handle)]
    version = subprocess.run(["yolo", "version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    return {"images_per_second": count * 2 / (seconds[2] - seconds[0]), "version": version}
