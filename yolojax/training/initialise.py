"""Starting from given weights: arrays that fit are taken, the others are named, missing statistics are measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from yolojax import zoo
from yolojax.data import InputImages
from yolojax.detector import Detector, DetectorSpec, Variables, freeze_mask
from yolojax.errors import CheckpointError
from yolojax.inference.loading import load_detector, released_folder, weights_in_folder
from yolojax.paths import FOREIGN, user_path
from yolojax.progress import Reporter
from yolojax.training.preparation import Preparation
from yolojax.training.state import TrainState, wrap_variables
from yolojax.training.step import keep_frozen
from yolojax.weights.foreign import read_weight_file
from yolojax.weights.released import WEIGHTS, flatten, load_description, load_weights, unflatten_like
from yolojax.weights.yolox import read_yolox
from yolojax.zoo.coco import COCO_CLASSES

STATISTICS_IMAGES, STATISTICS_BATCH = 64, 16
"""Most images that statistics are measured on, and how many go through the network at once."""


class Weights(NamedTuple):
    """Variables to start from, and the description of their detector where there is one."""

    variables: dict[str, Any]
    spec: DetectorSpec | None


def load_init(path: str | Path) -> Weights:
    """Loads the weights to start from.

    ``path`` is a ``.safetensors`` file, whose names are taken as they are unless they are those of a published family
    (`yolojax.zoo.identify`), a ResNet of torchvision's that classifies, whose layers are those of a backbone
    (`yolojax.zoo.backbone_variables`), or anything that `load_detector` loads: a run directory, a released detector, a
    published ``.pt``, a folder of Hugging Face's, an ``.npz`` of YOLOX arrays. The classes of a file need no names
    here, and where they have none, there is no description. Raises `CheckpointError` when it cannot be read.
    """
    path = weights_in_folder(user_path(path))
    if (part := _arrays_alone(path)) is not None:
        return Weights(part, None)
    detector, variables, is_named = _load_whole(path)
    return Weights(variables, detector.spec if is_named else None)


def detector_of(path: str | Path) -> Detector | None:
    """The detector whose weights `load_init` loads; None where they are those of a part, or have parts of one's own.

    Classes without names are called class0, class1 and so on. Raises as `load_init` does.
    """
    path = weights_in_folder(user_path(path))
    return None if _arrays_alone(path) is not None else _load_whole(path)[0]


def _arrays_alone(path: Path) -> dict[str, Any] | None:
    """The arrays of a file from which no detector can be built by itself; None for the others."""
    if path.suffix.lower() in FOREIGN and path.is_file():
        file = read_weight_file(path)
        if zoo.identify(file) is None:
            if (backbone := zoo.backbone_variables(file)) is not None:
                return backbone
            if path.suffix.lower() == ".safetensors":
                return load_weights(path)
    if path.is_dir():
        folder = released_folder(path)
        if "custom" in load_description(folder)["detector"]:
            # The arrays are enough to start from; the functions of somebody's own are stored nowhere.
            return load_weights(folder / WEIGHTS)
    if path.suffix.lower() == ".stablehlo":
        raise CheckpointError(f"{path}: an exported program holds no weights by name; give what it was exported from")
    return None


def _load_whole(path: Path) -> tuple[Detector, Variables, bool]:
    """A detector, its variables, and whether its classes have names; they get some where they have none."""
    if (count := _nameless_classes(path)) is not None:
        names = tuple(f"class{i}" for i in range(count))
        read = zoo.from_yolox if path.suffix.lower() == ".npz" else zoo.from_pytorch
        return (*read(path, class_names=names), False)
    # To load an .onnx is to run its graph; here its weights are wanted.
    return (*(zoo.from_pytorch(path) if path.suffix.lower() == ".onnx" else load_detector(path)), True)


def _nameless_classes(path: Path) -> int | None:
    """How many classes a published file has, where neither it nor COCO names them."""
    if path.suffix.lower() == ".npz":
        weights = read_yolox(path)
    elif path.suffix.lower() in FOREIGN and path.is_file():
        found = zoo.read_family(read_weight_file(path))
        weights = found and found[1]
    else:
        return None
    if weights is None or weights.class_names is not None or weights.num_classes == len(COCO_CLASSES):
        return None
    return weights.num_classes


def start_from(weights: Weights, source: str, state: TrainState, run: Preparation, reporter: Reporter) -> TrainState:
    """Returns a state at step 0 with the arrays of ``weights`` that fit, and says what was taken from ``source``.

    Weights whose normalisation came without statistics get those of the training images.
    """
    config, detector = run.config, run.detector
    variables, summary = take_matching(state.variables, weights.variables, source, detector.spec, weights.spec)
    reporter.say(summary)
    if lacks_statistics(weights.variables):
        variables, summary = with_measured_statistics(detector, variables, run.images, config.seed, config.freeze)
        reporter.say(summary)
    return wrap_variables(variables, config.optimiser, int(state.total_steps))


def take_matching(
    own: Variables,
    given: dict[str, Any],
    source: str,
    spec: DetectorSpec | None = None,
    given_spec: DetectorSpec | None = None,
) -> tuple[Variables, str]:
    """Returns ``own`` with every array of ``given`` that has the same name and shape, and a summary in one line.

    Args:
      own: variables of the detector to train.
      given: variables of any detector, or of a part of one (a backbone alone).
      source: where they come from, for the summary.
      spec, given_spec: of both detectors; where class names differ although shapes agree, the summary says so.

    Raises:
      CheckpointError: nothing matches, or a value that does is not finite.
    """
    mine, theirs = flatten(own), flatten(given)
    taken = {}
    for name in mine:
        if name in theirs and mine[name].shape == theirs[name].shape:
            taken[name] = np.asarray(theirs[name]).astype(mine[name].dtype)
            if not np.isfinite(taken[name]).all():
                raise CheckpointError(f"{source}: {name} holds values that are not finite; give other weights")
    if not taken:
        raise CheckpointError(
            f"{source}: none of its {len(theirs)} arrays has the name and shape of one of this detector's "
            f"(such as {_example(mine)}; there: {_example(theirs)}); choose --model and --option as they were there"
            + ("" if given_spec is None else f": {_called(given_spec)}")
        )
    said = [f"{len(taken)} of {len(mine)} arrays taken from {source}"]
    other_shape = [
        f"{n} ({_shape(theirs[n])} there, {_shape(mine[n])} here)" for n in mine if n in theirs if n not in taken
    ]
    absent = [n for n in mine if n not in theirs]
    unused = [n for n in theirs if n not in mine]
    if other_shape:
        said.append(f"of another shape: {', '.join(other_shape)}")
    if absent:
        said.append(f"not there: {_grouped(absent)}")
    if unused:
        said.append(f"unused: {_grouped(unused)}")
    if other_shape or absent:
        said[0] += ", the others freshly initialised"
    if spec is not None and given_spec is not None and not other_shape and spec.class_names != given_spec.class_names:
        said.append(
            f"its classes were {', '.join(given_spec.class_names)}, here they are {', '.join(spec.class_names)}, "
            "and the scores start as they were there"
        )
    return unflatten_like(own, {**mine, **jax.device_put(taken)}), "; ".join(said)


def _called(spec: DetectorSpec) -> str:
    """An architecture with its scale, where it has one."""
    return " ".join([spec.name, *(f"scale={scale}" for name, scale in spec.options.items() if name == "scale")])


def lacks_statistics(given: dict[str, Any]) -> bool:
    """Whether no BatchNorm of these variables has seen activations: it was folded away, or never trained.

    That is so where all running means are zero. Variables without ``batch_stats`` in nested dictionaries, as detectors
    that are not made of Flax modules may have, never lack any.
    """
    if not all(isinstance(key, jax.tree_util.DictKey) for path, _ in _leaves(given) for key in path):
        return False
    flat = flatten(given)
    means = [flat[name] for name in flat if name.startswith("batch_stats/") and name.endswith("/mean")]
    return bool(means) and not any(np.any(mean) for mean in means)


def with_measured_statistics(
    detector: Detector, variables: Variables, images: InputImages, seed: int, freeze: Sequence[str] = ()
) -> tuple[Variables, str]:
    """Returns variables that compute the same at inference, with statistics of the training images, and a summary.

    Training normalises with the statistics of each batch. Without this, parameters whose normalisation was folded away
    would compute something else in the first step than they do at inference, and what they know would be lost.

    Args:
      detector: whose `Detector.forward` the images go through.
      variables: of ``detector``.
      images: the training images; at most `STATISTICS_IMAGES` are drawn, unchanged by augmentation.
      seed: of the draw.
      freeze: parts that stay as they are, since they never use the statistics of a batch.
    """
    n = min(STATISTICS_IMAGES, len(images))
    n -= n % STATISTICS_BATCH if n > STATISTICS_BATCH else 0  # batches of one size: one program, equal weights
    drawn = np.random.default_rng(seed).permutation(len(images))[:n]
    # The images pass through the host, because a cache in device memory may lie spread over several devices.
    batches = (jnp.asarray(np.asarray(images.load(part)[0])) for part in np.split(drawn, max(1, n // STATISTICS_BATCH)))
    measured = unflatten_like(variables, flatten(zoo.measure_statistics(detector, variables, batches)))
    frozen = {name: freeze_mask(tree, freeze) for name, tree in variables.items()}
    said = (
        f"its normalisation came without statistics: measured on {n} of the {len(images)} training images, so that "
        "training starts from what it knows"
    )
    return keep_frozen(frozen, measured, variables), said


def _grouped(names: list[str]) -> str:
    """Every name when they are few, else how many lie below each part."""
    if len(names) <= 8:
        return ", ".join(names)
    parts = Counter("/".join(name.split("/")[:3]) for name in names)
    if len(parts) > 12:
        parts = Counter("/".join(name.split("/")[:2]) for name in names)
    return ", ".join(f"{part} ({count})" for part, count in parts.items())


def _leaves(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _example(flat: dict[str, Any]) -> str:
    name = next((name for name in flat if name.startswith("params/")), next(iter(flat), None))
    return "none at all" if name is None else f"{name} {_shape(flat[name])}"


def _shape(array: Any) -> str:
    return "x".join(map(str, array.shape)) or "scalar"
