"""``python -m experiments``: makes ``README.md``, the table of all studies, and the pages of their records again."""

from __future__ import annotations

import json

from experiments.shared.record import HERE, import_study, index, records_of, render, studies


def main() -> None:
    for name in studies():
        module = import_study(name)
        for folder in records_of(name) if hasattr(module, "page") else ():
            record = json.loads((folder / "results.json").read_text())
            (folder / "README.md").write_text(render(record, module))
            if not (folder / "plot.png").exists():
                module.draw(record).savefig(folder / "plot.png", dpi=110)
    (HERE / "README.md").write_text(index())


if __name__ == "__main__":
    main()
