"""The pages of the API reference: every public name of every public module, with its signature and its docstring.

Docstrings of this library are Markdown with Google's sections, so the pages are Markdown.
"""

import functools
import importlib
import inspect
import re
import textwrap
import types
from pathlib import Path
from typing import Any

MODULES = {
    "First steps": ("yolojax", "yolojax.config", "yolojax.errors"),
    "Arrays and records": (
        *("yolojax.structures", "yolojax.geometry", "yolojax.detector", "yolojax.detect"),
        *("yolojax.postprocess",),
    ),
    "Parts": (
        *("yolojax.boxes", "yolojax.nms", "yolojax.coding", "yolojax.assign", "yolojax.losses", "yolojax.augment"),
        *("yolojax.anchors", "yolojax.tiling"),
    ),
    "Detectors": ("yolojax.zoo", "yolojax.models", "yolojax.catalogue", "yolojax.weights.foreign"),
    "Data": ("yolojax.data",),
    "Training": (
        *("yolojax.training.fit", "yolojax.training.callbacks", "yolojax.training.loggers", "yolojax.training.step"),
        *("yolojax.training.state", "yolojax.training.optimiser", "yolojax.training.sweep"),
        *("yolojax.training.per_example",),
    ),
    "Prediction": (
        *("yolojax.inference.predict", "yolojax.inference.loading", "yolojax.inference.results"),
        *("yolojax.inference.evaluate", "yolojax.inference.tta", "yolojax.inference.ensemble"),
    ),
    "Export": ("yolojax.export",),
    "Evaluation": (
        *("yolojax.eval", "yolojax.eval.coco", "yolojax.eval.voc", "yolojax.eval.analysis", "yolojax.eval.diagnosis"),
        *("yolojax.eval.tide", "yolojax.eval.result_format", "yolojax.eval.mistakes"),
    ),
    "Devices": ("yolojax.sharding.devices", "yolojax.sharding.processes", "yolojax.compilation_cache"),
    "Planning": (
        *("yolojax.planning.plan", "yolojax.planning.targets", "yolojax.planning.compilers"),
        *("yolojax.planning.programs", "yolojax.planning.analysis", "yolojax.planning.hlo"),
    ),
}
"""The modules of the reference by the heading under which they stand."""

LISTS = ("Args", "Attributes", "Raises")
"""Sections whose entries are ``name: text``."""

SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields|Example|Examples|References|Note):\s*$")


def public_names(module: types.ModuleType) -> list[str]:
    """The names of ``__all__``; of a module without it the classes and functions of its own without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module.__name__
    ]


def page(name: str) -> str:
    """The page of one module, as Markdown."""
    module = importlib.import_module(name)
    parts = [f"# {name}", as_markdown(inspect.getdoc(module) or "")]
    parts += [part for entry in public_names(module) for part in _entry(entry, getattr(module, entry))]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, value: Any) -> list[str]:
    """Heading, signature and docstring of one name; of a class those of its public methods too."""
    parts = [f"## {name}"]
    if inspect.ismodule(value):
        return [*parts, f"The module `{value.__name__}`. {(inspect.getdoc(value) or '').splitlines()[0]}"]
    if isinstance(value, functools.partial):
        given = ", ".join(f"{key}={argument!r}" for key, argument in value.keywords.items())
        return [*parts, f"`{value.func.__name__}` with `{given}`."]
    if not (inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")):
        return [*parts, f"A constant of type `{type(value).__name__}`."]
    parts += [_signature(name, value), as_markdown(inspect.getdoc(value) or "")]
    if inspect.isclass(value):
        for method, function in vars(value).items():
            inner = getattr(function, "__func__", function)  # of class methods
            if not method.startswith("_") and inspect.isfunction(inner) and inspect.getdoc(inner):
                parts += [f"### {name}.{method}", _signature(method, inner), as_markdown(inspect.getdoc(inner) or "")]
    return parts


def _signature(name: str, value: Any) -> str:
    if getattr(value, "_is_protocol", False) and "__call__" in vars(value):  # what a function of this kind takes
        call = inspect.signature(vars(value)["__call__"])
        value = call.replace(parameters=list(call.parameters.values())[1:])
    try:
        signature = value if isinstance(value, inspect.Signature) else inspect.signature(value)
    except (TypeError, ValueError):  # a type alias, or a class without one
        return ""
    line = name + _plain(signature)
    if len(line) > 100:
        arguments, kinds = [], [parameter.kind for parameter in signature.parameters.values()]
        for parameter in signature.parameters.values():
            if (
                parameter.kind is parameter.KEYWORD_ONLY
                and parameter.VAR_POSITIONAL not in kinds
                and "*" not in arguments
            ):
                arguments.append("*")
            arguments.append(_plain(parameter))
        result = line.rpartition(" -> ")[2] if ") -> " in line else ""
        line = "\n".join([f"{name}(", *(f"    {a}," for a in arguments), f"){f' -> {result}' if result else ''}"])
    return f"```text\n{line}\n```"


def _plain(part: Any) -> str:
    """A signature or parameter without quotes, marks of annotations as text, and addresses of objects."""
    text = re.sub(r"ForwardRef\(([^)]*)\)", r"\1", re.sub("[\"']", "", str(part)))
    text = re.sub(r"Array, *\]", "Array]", re.sub(r"Array, +", "Array, ", text))  # a scalar has no shape
    for _ in range(2):  # <function <lambda> at 0x7f...>
        text = re.sub(r"<([\w.]+)[^<>]*>", r"\1", text)
    return text


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown: its sections get headings, their entries become lists, examples become code."""
    lines, written, at = docstring.splitlines(), [], 0
    while at < len(lines):
        section = SECTION.match(lines[at])
        if section is None:
            written.append(lines[at])
            at += 1
            continue
        end = at + 1
        while end < len(lines) and (not lines[end].strip() or lines[end].startswith(" ")):
            end += 1
        body = textwrap.dedent("\n".join(lines[at + 1 : end])).strip("\n")
        if section[1].startswith("Example"):
            body = f"```python\n{body}\n```"
        elif section[1] in LISTS:
            body = re.sub(r"^([*\w][\w, *.`]*):", lambda m: f"- `{m[1].replace('`', '')}`:", body, flags=re.MULTILINE)
        written += ["", f"**{section[1]}**", "", body, ""]
        at = end
    return "\n".join(written).strip()


def index() -> str:
    """The page that leads to all others."""
    parts = ["# API reference", "Every public name, from the docstrings of the source."]
    for heading, modules in MODULES.items():
        parts.append("\n".join(["```{toctree}", f":caption: {heading}", ":maxdepth: 1", "", *modules, "```"]))
    return "\n\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """Writes all pages into a folder; a page that is the same already is not touched."""
    folder.mkdir(exist_ok=True)
    pages = {"index": index(), **{name: page(name) for modules in MODULES.values() for name in modules}}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
