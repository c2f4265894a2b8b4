"""Uses an installed yolojax as its users do, from a folder without the checkout. Run by `.ci/wheels`:

    python tests/use_installed.py PATH/TO/yolojax

Every file that the package ships (templates, the catalogue, the table of devices) is read by one of these commands.
"""

import json
import subprocess
import sys
from pathlib import Path

TRUTH = {
    "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "thing"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}],
}
FOUND = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9}]

TINY = (
    *("--size", "64", "--epochs", "1", "--batch-size", "4", "--fraction", ".02", "--validation.samples", "0"),
    *("--option", "widths=[0,8,8,16]", "depths=[0,0,0,0]", "head_width=8", "merge=true"),
)

COMMANDS = (
    ("--version",),
    ("models", "yolov8"),
    ("info", "yolov8n"),
    ("plan", "--target", "list"),
    ("doctor",),
    ("eval", "truth.json", "found.json", "--out", "report"),
    ("train", "shapes", "--out", "run", *TINY),
    ("predict", "run/val_predictions.png", "--model", "run", "--json"),
    ("val", "--model", "run", "--out", "measured", "--samples", "0"),
)


def use(command: list[str]) -> None:
    """Runs every command of `COMMANDS` in the present folder; raises where one fails."""
    Path("truth.json").write_text(json.dumps(TRUTH), encoding="utf-8")
    Path("found.json").write_text(json.dumps(FOUND), encoding="utf-8")
    for arguments in COMMANDS:
        print("+ yolojax", *arguments, flush=True)
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    for path in ("report/index.html", "run/report/index.html", "run/best/weights.safetensors", "measured/metrics.json"):
        if not Path(path).is_file():
            raise SystemExit(f"{path} was not written")
    if json.loads(Path("report/metrics.json").read_text(encoding="utf-8"))["AP"] < 0.999:
        raise SystemExit("a detection without fault has an AP of 1")


if __name__ == "__main__":
    use(sys.argv[1:])
