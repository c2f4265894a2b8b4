"""The record that every detector is: pure functions and one frozen description. The engines know nothing else.

A function of `yolojax.zoo` builds the record, or somebody writes one by hand:

    mine = Detector(spec, init, forward, forward_train, loss, decode)

The other fields have defaults. A record is edited with ``_replace``, such as ``detector._replace(decode=my_decode)``,
and the edit holds in training, validation and prediction alike. Programs close over a record; it is never an argument
of `jax.jit`, since a record of functions is no pytree of arrays.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt8

from yolojax.errors import ConfigError, shown
from yolojax.geometry import Preprocess
from yolojax.structures import Candidates, Hyper, LossTerms, Targets

Variables = dict[str, Any]
"""``{"params": pytree, ...}``: what is trained, beside any collections that are not, such as running statistics.

The pytrees may be of any kind and their leaves may have any names. The detectors of the zoo have nested dicts, with
``backbone``, ``neck`` and ``head`` below ``params``, and the running statistics of BatchNorm in ``batch_stats``.
"""

FILE_CONFIDENCE = "file_confidence"
"""The option of an exported file that suppresses by itself: the least score of its detections (`yolojax.export`)."""

Outputs = Any
"""Any pytree whose prediction maps stay per level, ``[B, h, w, ...]``."""


@dataclass(frozen=True)
class Thresholds:
    """Post-processing settings: the least score, the IoU of greedy suppression, and the most detections of an image."""

    confidence: float
    iou: float
    max_detections: int


@dataclass(frozen=True)
class Postprocess:
    """The settings that validation and prediction take where a caller gives none.

    The defaults are those of the COCO protocol as YOLO codebases use it (every score counts), and of a demonstration. A
    detector that was published with other values carries them.
    """

    validation: Thresholds = Thresholds(0.001, 0.7, 300)
    prediction: Thresholds = Thresholds(0.25, 0.45, 100)


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is, apart from its functions and its parameters. Lists in place of tuples are taken as tuples.

    Attributes:
      name: the zoo's name of the architecture, or a name of the user's own.
      class_names: in the order of the class scores.
      input_size: ``(height, width)`` in pixels, multiples of the largest stride.
      strides: one per prediction level, finest first.
      preprocess: how pixels reach the network.
      suppression: ``nms``, or ``none`` for detectors that need no suppression.
      multi_label: whether one box may be reported under several classes.
      hyper: traced hyper-parameters that this detector wants other than `Hyper`'s defaults, by name.
      postprocess: thresholds of validation and prediction where a caller gives none.
      options: the remaining arguments of the architecture's builder (JSON values only), e.g. anchors and widths.
    """

    name: str
    class_names: tuple[str, ...]
    input_size: tuple[int, int]
    strides: tuple[int, ...]
    preprocess: Preprocess = field(default_factory=Preprocess)
    suppression: Literal["nms", "none"] = "nms"
    multi_label: bool = True
    hyper: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    postprocess: Postprocess = field(default_factory=Postprocess)

    def __post_init__(self) -> None:
        for name in ("class_names", "input_size", "strides"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"DetectorSpec: {name} = {shown(value)}: give a tuple")
            object.__setattr__(self, name, tuple(value))


def prepare_images(
    images: UInt8[Array, "B H W 3"] | Float[Array, "B H W 3"], preprocess: Preprocess
) -> Float[Array, "B H W 3"]:
    """Converts RGB pixels from 0 to 255 (uint8, or float after augmentation) to the network's channel order and range.

    The result is float32: the pixels divided by ``preprocess.scale``, in the order that ``preprocess.channels`` names.
    """
    images = images.astype(jnp.float32) / jnp.float32(preprocess.scale)
    return images[..., ::-1] if preprocess.channels == "bgr" else images


@runtime_checkable
class Init(Protocol):
    """Makes fresh variables."""

    def __call__(self, key: PRNGKeyArray) -> Variables: ...


@runtime_checkable
class Forward(Protocol):
    """Inference. Reads variables as they are trained, and as ``fold`` returns them."""

    def __call__(self, variables: Variables, images: Float[Array, "B H W 3"]) -> Outputs: ...


@runtime_checkable
class ForwardTrain(Protocol):
    """Training. Also returns the new values of the collections beside ``params``, such as ``{"batch_stats": ...}``."""

    def __call__(
        self, variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]: ...


@runtime_checkable
class Loss(Protocol):
    """Sums and normalisers of every part of the loss, image by image."""

    def __call__(self, outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms: ...


@runtime_checkable
class Decode(Protocol):
    """Boxes (xyxy, input pixels) and class scores of every prediction."""

    def __call__(self, outputs: Outputs) -> Candidates: ...


@runtime_checkable
class Freeze(Protocol):
    """Wraps ``forward_train`` so that the named parts compute as at inference, and their statistics stay.

    A part is a path such as ``backbone`` or ``neck/down0``.
    """

    def __call__(self, forward_train: ForwardTrain, parts: tuple[str, ...]) -> ForwardTrain: ...


def same_variables(variables: Variables) -> Variables:
    """The default of `Detector.fold`: there is nothing to fold."""
    return variables


def decay_matrices(params: PyTree) -> PyTree:
    """The default of `Detector.decay_mask`: True for arrays of two or more axes.

    Kernels of convolutions and dense layers have two or more axes; biases and normalisation scales have one.
    """
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)


def equal_rates(params: PyTree) -> PyTree:
    """The default of `Detector.learning_rates`: all parameters have the learning rate of the run."""
    return jax.tree.map(lambda leaf: 1.0, params)


def same_forward_train(forward_train: ForwardTrain, parts: tuple[str, ...]) -> ForwardTrain:
    """The default of `Detector.freeze`: what the network computes in training does not depend on frozen parts."""
    del parts
    return forward_train


class Detector(NamedTuple):
    """A detector as a record of pure functions.

    Attributes:
      spec: what the detector is.
      init: ``(key) -> variables``.
      forward: ``(variables, images) -> outputs``. ``images`` are those of `prepare_images`.
      forward_train: ``(variables, images, targets, key) -> (outputs, new collections)``.
      loss: ``(outputs, targets, hyper) -> LossTerms``.
      decode: ``(outputs) -> Candidates``.
      fold: ``(variables) -> variables`` for inference: BatchNorm folded into the kernels before it. ``forward`` of the
        same detector reads the result, and gives the same outputs up to rounding. Folding twice changes nothing. It is
        given JAX's arrays inside of compiled functions, and NumPy's outside (`fold_on_host`).
      decay_mask: ``(params) -> tree of bool``: which parameters weight decay moves.
      freeze: ``(forward_train, parts) -> forward_train``: how the network trains while these parts are frozen.
      learning_rates: ``(params) -> tree of numbers`` by which the run's learning rate is multiplied, such as .1 for a
        pretrained backbone. Weight decay moves a parameter by its own rate too. Here and in ``decay_mask`` one value
        may stand for a whole branch of ``params``.
    """

    spec: DetectorSpec
    init: Init
    forward: Forward
    forward_train: ForwardTrain
    loss: Loss
    decode: Decode
    fold: Callable[[Variables], Variables] = same_variables
    decay_mask: Callable[[PyTree], PyTree] = decay_matrices
    freeze: Freeze = same_forward_train
    learning_rates: Callable[[PyTree], PyTree] = equal_rates


def variable_shapes(detector: Detector) -> Variables:
    """The detector's variables as `jax.ShapeDtypeStruct`: nothing is computed and nothing compiled, not even a key."""
    return jax.eval_shape(lambda: detector.init(jax.random.key(0)))


def check_variables(variables: Any) -> None:
    """Raises `ConfigError` for what ``init`` gave, where it is no dict with ``params`` (see `Variables`)."""
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise ConfigError(f'init returns {{"params": pytree, ...}}, not {_described(variables)}')


def checked_detector(detector: Detector) -> Detector:
    """The same detector, whose training raises `ConfigError` while it is traced where a function breaks its promise.

    A ``forward_train`` of somebody's own easily returns the outputs alone, or statistics of another type or shape. One
    number for the batch from ``loss``, in the place of one for each image, would be divided wrongly without a word.
    """
    forward_train, loss = _checked_forward_train(detector.forward_train), _checked_loss(detector.loss)
    return detector._replace(forward_train=forward_train, loss=loss)


def _checked_forward_train(forward_train: ForwardTrain) -> ForwardTrain:
    promised = "forward_train returns (outputs, new collections), such as (outputs, {}) where there are none"

    def checked(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        result: Any = forward_train(variables, images, targets, key)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ConfigError(f"{promised}, not {_described(result)}")
        outputs, new = result
        if not isinstance(new, Mapping):
            raise ConfigError(f"{promised}; its second value is {_described(new)}")
        for name, value in new.items():
            if name not in variables:
                raise ConfigError(f"forward_train returns the collection {name!r}, which init does not make")
            if _shapes_of(value) != _shapes_of(variables[name]):
                raise ConfigError(
                    f"forward_train returns the collection {name!r} with other arrays than init: {_described(value)}, "
                    f"not {_described(variables[name])}"
                )
        return outputs, {name: value for name, value in new.items() if name != "params"}

    return checked


def _checked_loss(loss: Loss) -> Loss:
    def checked(outputs: Outputs, targets: Targets, hyper: Hyper) -> LossTerms:
        terms: Any = loss(outputs, targets, hyper)
        if not isinstance(terms, LossTerms):
            raise ConfigError(
                f"loss returns LossTerms, with a sum and a normaliser of each image for every part, not "
                f"{_described(terms)}"
            )
        if set(terms.sums) != set(terms.normalisers):
            raise ConfigError(
                f"loss returns sums of {', '.join(terms.sums)}, but normalisers of {', '.join(terms.normalisers)}; "
                "every part needs both"
            )
        images = len(targets.valid)
        for what, values in zip(terms._fields, terms, strict=True):
            for part, value in values.items():
                if jnp.shape(value) != (images,):
                    raise ConfigError(
                        f"loss returns {what}[{part!r}] of shape {list(jnp.shape(value))}; give one number for each "
                        f"image of the batch, [{images}]"
                    )
        return terms

    return checked


def _shapes_of(tree: PyTree) -> tuple[Any, list[Any]]:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def _described(value: Any) -> str:
    """Type and shape of an array; of anything else its type, with the first arrays that it holds."""
    if hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    arrays = [_described(leaf) for leaf in jax.tree.leaves(value)[:4] if hasattr(leaf, "dtype")]
    return type(value).__name__ + (f" of {', '.join(arrays)}" if arrays else "")


def fold_on_host(detector: Detector, variables: Variables) -> Variables:
    """What `Detector.fold` makes of these variables as arrays of NumPy.

    Compiled as one program, the few operations of a fold took longer than the network does to be traced; by NumPy the
    library's own folds compile nothing. A fold that is written for JAX alone runs operation by operation.
    """
    return detector.fold(jax.device_get(variables))


def path_names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The names along a path of `jax.tree_util`: keys of dicts, fields of dataclasses, indices of lists and tuples."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def freeze_mask(tree: PyTree, parts: Sequence[str]) -> PyTree:
    """Marks the leaves below the named parts: a tree of bool.

    Args:
      tree: any pytree, such as the ``params`` or the ``batch_stats`` of a detector.
      parts: paths of whole names from the root, joined by slashes, such as ``backbone`` or ``head/level0``. A part that
        this tree does not have marks nothing; `check_parts` is where a wrong name is found.
    """
    prefixes = [tuple(part.split("/")) for part in parts]

    def is_frozen(path: tuple[Any, ...], _: object) -> bool:
        names = path_names(path)
        return any(names[: len(prefix)] == prefix for prefix in prefixes)

    return jax.tree_util.tree_map_with_path(is_frozen, tree)


def check_parts(params: PyTree, parts: Sequence[str]) -> None:
    """Raises `ConfigError` for a part that holds no parameter, naming what is there, and when nothing is left to train.

    ``params`` is any pytree; ``parts`` are paths as for `freeze_mask`.
    """
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for part in parts:
        prefix = tuple(part.split("/"))
        depth = next(n for n in range(len(prefix), -1, -1) if any(p[:n] == prefix[:n] for p in paths))
        if depth < len(prefix):
            known = sorted({"/".join(p[: depth + 1]) for p in paths if p[:depth] == prefix[:depth]})
            near = difflib.get_close_matches("/".join(prefix[: depth + 1]), known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"freeze = {part!r}: the detector has no such part; {hint}there are {', '.join(known) or 'none'}"
            )
    if all(jax.tree.leaves(freeze_mask(params, parts))):
        raise ConfigError(f"freeze = {', '.join(parts)}: nothing is left to train")
