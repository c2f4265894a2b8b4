"""``python -m experiments``: makes ``README.md``, the table of all studies, and the pages of their records again."""

from __future__ import annotations

import json

from experiments.shared.record import HERE, folder_of, import_study, index, render, studies


def main() -> None:
    for name in studies():
        folder = folder_of(name)
        module = import_study(name)
        if (folder / "results.json").exists() and hasattr(module, "page"):
            record = json.loads((folder / "results.json").read_text())
            (folder / "README.md").write_text(render(record, module))
            if not (folder / "plot.png").exists():
                module.draw(record).savefig(folder / "plot.png", dpi=110)
    (HERE / "README.md").write_text(index())


if __name__ == "__main__":
    main()
