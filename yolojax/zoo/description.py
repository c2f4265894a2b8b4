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
from typing import Any, Literal, get_args, get_origin, get_type_hints
from weakref import WeakKeyDictionary

from yolojax.config import MOST, MOST_DETECTIONS
from yolojax.detector import Detector, DetectorSpec, Postprocess
from yolojax.errors import CheckpointError, ConfigError, shortened, shown
from yolojax.geometry import Preprocess
from yolojax.settings import build as build_settings
from yolojax.settings import converted
from yolojax.zoo.parts import CUSTOM, needs_part, qualified_name

FIELDS = tuple(name for name in Detector._fields if name != "spec")
"""The functions of the record."""

_LARGEST_SIDE = MOST["model.size"]

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
        check_input_size(input_size)
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


def check_input_size(input_size: tuple[Any, ...]) -> None:
    """Raises `TypeError` unless it is two whole numbers that an image can have."""
    if len(input_size) != 2 or not all(type(side) is int and 0 < side <= _LARGEST_SIDE for side in input_size):
        raise TypeError(f"input_size is {shown(input_size)}, not two whole numbers up to {_LARGEST_SIDE:,}")


def read_postprocess(stated: Any) -> Postprocess:
    """The thresholds that a description states."""
    found: Postprocess = build_settings(Postprocess, stated, "postprocess")
    for name, one in (("validation", found.validation), ("prediction", found.prediction)):
        if not (0 <= one.confidence <= 1 and 0 <= one.iou <= 1 and 0 < one.max_detections <= MOST_DETECTIONS):
            raise ConfigError(f"postprocess.{name} = {shown(stated[name])}: its values are out of range")
    return found


def read_preprocess(stated: Any) -> Preprocess:
    """The preprocessing that a description states; raises `ConfigError` for a value that this version does not know."""
    if not isinstance(stated, Mapping):
        raise ConfigError(f"preprocess = {shown(stated)}: it is no object")
    for name, hint in get_type_hints(Preprocess).items():
        if get_origin(hint) is Literal and stated.get(name, get_args(hint)[0]) not in get_args(hint):
            raise ConfigError(f"preprocess.{name} = {shown(stated[name])}: known are {', '.join(get_args(hint))}")
    # Descriptions written before there was a choice of filters say none, and meant the antialiased one.
    found: Preprocess = build_settings(Preprocess, {"filter": Preprocess().filter, **stated}, "preprocess")
    if not (0 <= found.pad <= 255 and 0 < found.scale <= 1e6 and 0 <= found.border < _LARGEST_SIDE):
        raise ConfigError(f"preprocess = {shown(dict(stated))}: its values are out of range")
    return found
