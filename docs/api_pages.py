"""The pages of the API reference, one for each public package or module, with every public name."""

import importlib
import inspect
import types
from pathlib import Path

MODULES = {
    "First steps": ("yolojax", "yolojax.config", "yolojax.errors"),
    "Arrays and records": (
        "yolojax.structures",
        "yolojax.geometry",
        "yolojax.detector",
        "yolojax.detect",
        "yolojax.postprocess",
    ),
    "Parts": (
        *("yolojax.boxes", "yolojax.nms", "yolojax.coding", "yolojax.assign", "yolojax.losses", "yolojax.augment"),
        *("yolojax.anchors", "yolojax.tiling"),
    ),
    "Detectors": ("yolojax.zoo", "yolojax.models", "yolojax.weights", "yolojax.catalogue"),
    "Data": ("yolojax.data",),
    "Training": (
        *("yolojax.training.fit", "yolojax.training.callbacks", "yolojax.training.loggers", "yolojax.training.step"),
        *(
            "yolojax.training.state",
            "yolojax.training.optimiser",
            "yolojax.training.sweep",
            "yolojax.training.per_example",
        ),
    ),
    "Prediction": (
        *("yolojax.inference.predict", "yolojax.inference.loading", "yolojax.inference.results"),
        *("yolojax.inference.evaluate", "yolojax.inference.tta", "yolojax.inference.ensemble"),
    ),
    "Evaluation": (
        *(
            "yolojax.eval.coco",
            "yolojax.eval.voc",
            "yolojax.eval.analysis",
            "yolojax.eval.diagnosis",
            "yolojax.eval.tide",
        ),
        *("yolojax.eval.joining", "yolojax.eval.mistakes"),
    ),
    "Devices": ("yolojax.sharding.devices", "yolojax.sharding.processes", "yolojax.compilation_cache"),
}
"""The modules of the reference by the heading under which they stand."""


def public_names(module: types.ModuleType) -> list[str]:
    """The names of ``__all__``, or of a module without it those that it defines itself and that have no underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return [name for name, value in vars(module).items() if not name.startswith("_") and _is_own(module, value)]


def _is_own(module: types.ModuleType, value: object) -> bool:
    if inspect.isclass(value) or inspect.isfunction(value):
        return value.__module__ == module.__name__
    return False


def page(name: str) -> str:
    """The page of one module, as reStructuredText."""
    module = importlib.import_module(name)
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    for entry in public_names(module):
        value = getattr(module, entry)
        if inspect.isclass(value) and value.__module__.startswith("yolojax"):
            lines += [f".. autoclass:: {name}.{entry}", "   :members:", "   :exclude-members: __init__, __new__", ""]
        elif inspect.isfunction(value) or type(value).__name__ in ("PjitFunction", "custom_jvp", "custom_vjp"):
            lines += [f".. autofunction:: {name}.{entry}", ""]
        elif inspect.ismodule(value):
            lines += [f".. py:data:: {name}.{entry}", "", f"   The module ``{value.__name__}``.", ""]
        else:
            lines += [f".. autodata:: {name}.{entry}", "   :no-value:", ""]
    return "\n".join(lines)


def index() -> str:
    """The page that leads to all others."""
    lines = ["API reference", "=============", "", "Every public name, from the docstrings of the source.", ""]
    for heading, modules in MODULES.items():
        lines += [
            ".. toctree::",
            f"   :caption: {heading}",
            "   :maxdepth: 1",
            "",
            *(f"   {name}" for name in modules),
            "",
        ]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Writes all pages into a folder; what is there already stays untouched where it is the same."""
    folder.mkdir(exist_ok=True)
    pages = {"index": index(), **{name: page(name) for modules in MODULES.values() for name in modules}}
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
