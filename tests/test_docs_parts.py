"""The page about the parts keeps step with the code: every public name is on it, its code runs, its pictures exist."""

import inspect
import re
from pathlib import Path

from yolojax import anchors, assign, boxes, coding, losses, nms

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")


def public_names():
    for module in (boxes, anchors):
        for name, value in vars(module).items():
            own = inspect.isfunction(value) or inspect.isclass(value)
            if own and not name.startswith("_") and value.__module__ == module.__name__:
                yield name
    for module in (assign, coding, losses, nms):
        yield from module.__all__


def test_every_public_name_is_on_the_page():
    quoted = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
    assert set(public_names()) - quoted == set()


def test_the_code_on_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 7
    exec("\n".join(blocks), {})


def test_links_and_pictures_lead_somewhere():
    targets = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert sum(target.endswith(".png") for target in targets) == 5
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
    script = (ROOT / "docs" / "parts" / "make_pictures.py").read_text()
    for picture in (ROOT / "docs" / "parts").glob("*.png"):
        assert picture.name in script
