"""What a foreign weight file holds, told before anything is built: as plain values and as text for people."""

from collections import Counter
from typing import Any

from yolojax.weights.foreign import WeightFile, class_names, count_parameters, input_size, printable, strides

_MAX_LINE = 100
_SHOWN_CLASSES = 12


def summarise(file: WeightFile, identity: str | None = None) -> dict[str, Any]:
    """Returns what a weight file holds as values that JSON can store.

    Args:
      file: The file, as `yolojax.weights.foreign.read_weight_file` gives it.
      identity: Family and scale, such as ``YOLOv8n``, where somebody knows them.

    Returns:
      ``path``, ``form``, ``identity``, ``root``, ``other_roots``, ``root_class``, ``class_names``, ``input_size``
      (height, width), ``strides``, ``parameters``, ``numbers`` (of all tensors), ``bytes``, ``types`` (number of
      tensors by dtype), ``module_types`` (number of modules by class), ``metadata`` and ``tensors`` (name, dtype,
      shape). Unknown values are None.

    Raises:
      CheckpointError: the class names of the file contradict themselves.
    """
    names, size, levels = class_names(file), input_size(file), strides(file)
    classes = Counter(module.class_path.rpartition(".")[2] for name, module in file.modules.items() if name)
    return {
        "path": str(file.path),
        "form": file.form,
        "identity": identity,
        "root": file.root,
        "other_roots": list(file.other_roots),
        "root_class": file.root_class,
        "class_names": None if names is None else list(names),
        "input_size": None if size is None else list(size),
        "strides": None if levels is None else list(levels),
        "parameters": count_parameters(file),
        "numbers": sum(array.size for array in file.tensors.values()),
        "bytes": sum(array.nbytes for array in file.tensors.values()),
        "types": dict(Counter(str(array.dtype) for array in file.tensors.values())),
        "module_types": dict(classes.most_common()),
        "metadata": _jsonable(dict(file.metadata)),
        "tensors": [[name, str(array.dtype), list(array.shape)] for name, array in file.tensors.items()],
    }


def describe(file: WeightFile, identity: str | None = None, list_tensors: bool | None = None) -> str:
    """Returns the text that ``yolojax info FILE`` prints.

    Args:
      file: The file.
      identity: Family and scale, where somebody knows them.
      list_tensors: Whether all tensors are listed; by default those of a network whose ``identity`` is unknown.

    Raises:
      CheckpointError: the class names of the file contradict themselves.
    """
    facts = summarise(file, identity)
    rows = [("file", f"{facts['path']} ({facts['form']})"), ("network", identity or "unknown")]
    if file.root:
        others = f" (also there: {', '.join(file.other_roots)})" if file.other_roots else ""
        rows.append(("weights", f"under {file.root}{others}"))
    rows.append(("class", file.root_class))
    if facts["class_names"] is not None:
        names = facts["class_names"]
        more = f", and {len(names) - _SHOWN_CLASSES} more" if len(names) > _SHOWN_CLASSES else ""
        rows.append(("classes", f"{len(names)}: {', '.join(names[:_SHOWN_CLASSES])}{more}"))
    if facts["input_size"] is not None:
        rows.append(("input size", "{} x {} (height x width)".format(*facts["input_size"])))
    if facts["strides"] is not None:
        rows.append(("strides", ", ".join(map(str, facts["strides"]))))
    kinds = ", ".join(f"{count} {kind}" for kind, count in facts["types"].items())
    rows.append(("parameters", f"{facts['parameters']:,}"))
    rows.append(("tensors", f"{len(facts['tensors'])} ({kinds}), {facts['numbers']:,} numbers"))
    if facts["module_types"]:
        rows.append(("modules", ", ".join(f"{count} {kind}" for kind, count in facts["module_types"].items())))
    nested = {name: value for name, value in facts["metadata"].items() if isinstance(value, dict) and value}
    rows += [
        (name, _short(value)) for name, value in facts["metadata"].items() if name not in nested and value is not None
    ]
    lines = _table(rows)
    for name, value in nested.items():
        lines += ["", printable(name), *("  " + line for line in _table([(k, _short(v)) for k, v in value.items()]))]
    if list_tensors if list_tensors is not None else identity is None:
        lines += ["", "tensors"]
        lines += ["  " + line for line in _table([(name, f"{kind} {shape}") for name, kind, shape in facts["tensors"]])]
    return "\n".join(lines)


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = min(max((len(name) for name, _ in rows), default=0), 60)
    return [f"{printable(name):<{width}}  {printable(text)}" for name, text in rows]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_LINE else f"{text[:_MAX_LINE]}..."


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # JSON has no infinity and no NaN.
        return str(value)
    return value
