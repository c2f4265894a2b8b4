"""``python -m experiments``: makes ``README.md``, the table of all studies, and the pages of their records again."""

from __future__ import annotations

import importlib
import json

from experiments.record import HERE, RESULTS, index, render, studies


def main() -> None:
    for name in studies():
        file = RESULTS / name / "results.json"
        module = importlib.import_module(f"experiments.{name}")
        if file.exists() and hasattr(module, "page"):
            record = json.loads(file.read_text())
            (RESULTS / name / "README.md").write_text(render(record, module))
            if not (RESULTS / name / "plot.png").exists():
                module.draw(record).savefig(RESULTS / name / "plot.png", dpi=110)
    (HERE / "README.md").write_text(index())


if __name__ == "__main__":
    main()
