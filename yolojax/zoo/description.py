"""Detectors as JSON: what a description can hold, and which parts of a detector must be given again on loading.

A zoo function builds its record from the options in ``spec.options``, so that name, classes and options describe the
record. What they cannot describe is a function of the user's own: one given as an option, such as ``assign``, or one
put in by ``_replace``, such as ``decode``. `custom_parts` names these, `describe` writes the names down, and
`from_description` takes the functions again as ``parts``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints
from weakref import WeakKeyDictionary

from yolojax.described import check_stated_size, read_postprocess, read_preprocess
from yolojax.detector import Detector, DetectorSpec
from yolojax.errors import CheckpointError, ConfigError, shortened, shown
from yolojax.geometry import Preprocess
from yolojax.settings import converted
from yolojax.zoo.parts import CUSTOM, needs_part, qualified_name

FIELDS = tuple(name for name in Detector._fields if name != "spec")
"""The functions of the record."""

_built: WeakKeyDictionary[Callable[..., Any], set[tuple[str, str]]] = WeakKeyDictionary()
"""Of each function that a zoo function made: the fields and the architectures that it was made for."""


def mark_built(detector: Detector) -> Detector:
    """Marks the functions of this record as those that its description builds; zoo functions return through this."""
    for name in FIELDS:
        _built.setdefault(getattr(detector, name), set()).add((name, _architecture(detector.spec)))
    return detector


def _architecture(spec: DetectorSpec) -> str:
    """A digest of everything that a zoo function makes functions from."""
    text = json.dumps([spec.name, len(spec.class_names), spec.strides, spec.options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def custom_parts(detector: Detector) -> dict[str, str]:
    """Names the functions of a detector that its description does not build: part to qualified name of the function.

    Parts are options such as ``assign``, and fields of the record such as ``decode``. A record that no zoo function
    built has all of its fields here.
    """
    spec = detector.spec
    options = {
        name: value.removeprefix(CUSTOM)
        for name, value in spec.options.items()
        if isinstance(value, str) and value.startswith(CUSTOM)
    }
    architecture = _architecture(spec)
    fields = {
        name: qualified_name(function)
        for name, function in zip(FIELDS, detector[1:], strict=True)
        if not _is_built(function, name, architecture)
    }
    return {**options, **fields}


def _is_built(function: Callable[..., Any], field: str, architecture: str) -> bool:
    try:
        return (field, architecture) in _built.get(function, set())
    except (TypeError, ValueError):  # a callable object that has no hash or no plain equality is none of ours
        return False


def describe(detector: Detector) -> dict[str, Any]:
    """Describes a detector in plain JSON values, from which `from_description` builds the same one.

    The entry ``custom`` is there only where the detector has parts that have to be given again; see `custom_parts`.
    """
    description = dataclasses.asdict(detector.spec)
    custom = custom_parts(detector)
    return {**description, "custom": custom} if custom else description


def check_record(detector: Detector, description: Mapping[str, Any], *, loose: tuple[str, ...] = ()) -> None:
    """Raises `CheckpointError` where a record's specification differs from a description.

    ``loose`` are options that may differ. Options that a description does not mention are newer than it.
    """
    made, given = (json.loads(json.dumps(x)) for x in (dataclasses.asdict(detector.spec), dict(description)))
    given.pop("custom", None)
    given.setdefault("postprocess", made["postprocess"])  # which older descriptions do not say
    if isinstance(given.get("preprocess"), dict):
        given["preprocess"].setdefault("border", Preprocess().border)  # likewise
    for entry in (made, given):
        if isinstance(entry.get("options"), dict):
            entry["options"] = {k: v for k, v in entry["options"].items() if k not in loose}
    if isinstance(given.get("options"), dict):
        made["options"] = {k: v for k, v in made["options"].items() if k in given["options"]}
    for key in sorted(set(made) | set(given)):
        if made.get(key) != given.get(key):
            raise CheckpointError(
                f"the description says {key} = {shown(given.get(key))}, the detector has {shown(made.get(key))}; give "
                "the record as it was trained, or use the version of yolojax that wrote the description"
            )


def restore(
    description: Mapping[str, Any],
    parts: Mapping[str, Callable[..., Any]] | None,
    build: Callable[[str, tuple[str, ...], tuple[int, int], dict[str, Any]], Detector],
    known: Callable[[str], bool],
) -> Detector:
    """Builds what `describe` described; `yolojax.zoo.from_description` with the zoo's own ``build``.

    ``known`` says whether the zoo has an architecture of this name.
    """
    parts = dict(parts or {})
    try:
        name, class_names = description["name"], tuple(description["class_names"])
        input_size, options = tuple(description["input_size"]), dict(description["options"])
        custom = dict(description.get("custom", {}))
        custom |= {k: v.removeprefix(CUSTOM) for k, v in options.items() if isinstance(v, str) and v.startswith(CUSTOM)}
        if not isinstance(name, str):
            raise TypeError(f"name is {shown(name)}")
        check_stated_size(input_size)
    except (KeyError, TypeError, ValueError) as error:
        reason = shortened(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"the description does not make a detector: {reason}") from error
    if not known(name):
        raise CheckpointError(
            f"the detector {shown(name)} is not one of the zoo, so its description cannot build it; pass the record "
            "itself, detector=..."
        )
    for part in sorted(set(parts) - set(custom)):
        asked = f"it asks for {', '.join(sorted(custom))}" if custom else "it asks for none"
        raise ConfigError(f"parts: this detector has no part of its own called {part!r}; {asked}")
    for part in sorted(set(custom) - set(parts)):
        raise CheckpointError(needs_part(part, custom[part]))
    own_options = {part: parts[part] for part in parts if part in options}
    try:
        detector = build(name, class_names, input_size, {**options, **own_options})
        # What a specification says beside the architecture holds as it is written.
        hints = get_type_hints(DetectorSpec)
        stated = {
            key: converted(hints[key], description[key], key)
            for key in ("suppression", "multi_label", "hyper")
            if key in description
        }
        preprocess = read_preprocess(description["preprocess"])
        if "postprocess" in description:
            stated["postprocess"] = read_postprocess(description["postprocess"])
        spec = dataclasses.replace(detector.spec, preprocess=preprocess, **stated)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"the description does not make a detector: {error}") from error
    detector = detector._replace(spec=spec, **{part: parts[part] for part in parts if part in FIELDS})
    check_record(detector, {**description, "preprocess": dataclasses.asdict(preprocess)}, loose=tuple(own_options))
    return detector
