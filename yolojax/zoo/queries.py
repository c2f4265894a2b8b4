"""What the detectors of queries share: their record, and how a published file becomes one. RT-DETR, D-FINE, DEIMv2.

The authors' files hold the boxes that the places of the pyramid start from (``decoder.anchors``), for images of the
size that they were trained with, and the authors' programs compute with them. They differ from the exact ones, in
DEIMv2-Atto by up to 1.7e-4, which moves its class logits by up to .0035. A detector from such a file keeps them as
variables (the option ``stored_anchors``) and takes them for images of that size. For every other size, and in every
detector that is not from such a file, they are computed exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray, PyTree

from yolojax.assign import denoising_queries
from yolojax.boxes import cxcywh_to_xyxy
from yolojax.detector import Detector, DetectorSpec, Loss, Outputs, Postprocess, Thresholds, Variables, variable_shapes
from yolojax.errors import CheckpointError, ConfigError
from yolojax.geometry import Preprocess
from yolojax.losses import QueryOutputs
from yolojax.models import Module
from yolojax.models.layers import Style
from yolojax.models.queries import OUTSIDE, HeadOutputs
from yolojax.structures import Candidates, Targets
from yolojax.weights.detr import ANCHORS, CONSTANTS, author_tensors, merge_shared, plain_name, plain_tensors
from yolojax.weights.foreign import WeightFile
from yolojax.weights.foreign import class_names as stated_names
from yolojax.weights.foreign import input_size as stated_size
from yolojax.weights.ultralytics import give_tensors, take_tensors
from yolojax.zoo.coco import classes_of_file
from yolojax.zoo.description import mark_built
from yolojax.zoo.flax_detector import flax_detector
from yolojax.zoo.options import check_counts, options_of_file

PREPROCESS = Preprocess(resize="stretch")
"""Theirs: Pillow's bilinear filter to the input size, whatever the photo's shape; RGB, 0..1."""

POSTPROCESS = Postprocess(validation=Thresholds(0.0, 0.7, 300), prediction=Thresholds(0.4, 0.7, 300))
"""Theirs: the best 300 pairs of query and class, whatever their score; demonstrations show those of at least .4."""

HYPER = {"lambda_cls": 1.0, "lambda_l1": 5.0, "lambda_coord": 2.0, "lambda_dfl": 0.15}


def query_spec(
    name: str, class_names: tuple[str, ...], input_size: tuple[int, int], strides: tuple[int, ...], **options: Any
) -> DetectorSpec:
    """The specification of a detector of queries; ``options`` are those of its zoo function."""
    return DetectorSpec(
        name,
        class_names,
        input_size,
        strides,
        PREPROCESS,
        suppression="none",
        multi_label=True,
        hyper=HYPER,
        options=options,
        postprocess=POSTPROCESS,
    )


def query_detector(spec: DetectorSpec, network: Module, loss: Loss, pairs: int, backbone_rate: float) -> Detector:
    """Makes the record of a `yolojax.models.queries.QueryNetwork`.

    Training adds ``pairs`` pairs of denoising queries (`yolojax.assign.denoising_queries`); 0 adds none. The learning
    rate of the backbone is multiplied by ``backbone_rate``.
    """

    def sizes(images: Float[Array, "B H W 3"]) -> Float[Array, "B 2"]:
        batch, height, width = images.shape[:3]
        return jnp.broadcast_to(jnp.asarray([width, height], jnp.float32), (batch, 2))

    def forward(variables: Variables, images: Float[Array, "B H W 3"]) -> Outputs:
        found = cast(HeadOutputs, network.apply(variables, images, train=False))
        return QueryOutputs(found.queries, None, None, None, sizes(images))

    def forward_train(
        variables: Variables, images: Float[Array, "B H W 3"], targets: Targets, key: PRNGKeyArray
    ) -> tuple[Outputs, Variables]:
        denoising = None
        if pairs:
            denoising = denoising_queries(
                key, targets, (images.shape[1], images.shape[2]), len(spec.class_names), pairs=pairs
            )
        state = [name for name in variables if name != "params"]
        found, new_state = network.apply(variables, images, True, denoising, mutable=state)
        return QueryOutputs(found.queries, found.places, found.denoised, denoising, sizes(images)), dict(new_state)

    def decode(outputs: Outputs) -> Candidates:
        whole = jnp.concatenate([outputs.size, outputs.size], axis=-1)[:, None]
        return Candidates(
            cxcywh_to_xyxy(outputs.queries.boxes[:, -1]) * whole, jax.nn.sigmoid(outputs.queries.logits[:, -1])
        )

    def learning_rates(params: PyTree) -> PyTree:
        return {
            part: jax.tree.map(lambda leaf, part=part: backbone_rate if part == "backbone" else 1.0, tree)
            for part, tree in params.items()
        }

    record = flax_detector(spec, network, loss, decode)
    return mark_built(record._replace(forward=forward, forward_train=forward_train, learning_rates=learning_rates))


def query_options(scale: str, queries: int, pairs: int, backbone_rate: float) -> dict[str, Any]:
    """The options that all these detectors have, as their description holds them.

    Raises `ConfigError` unless there is a query, neither pairs nor the rate of the backbone are negative, and neither
    number is above that of `yolojax.zoo.options.check_counts`.
    """
    check_counts(1, queries=queries)
    check_counts(0, denoising=pairs)
    if not backbone_rate >= 0:
        raise ConfigError(f"backbone_rate = {backbone_rate}: give a number of at least 0")
    return {"scale": scale, "queries": queries, "denoising": pairs, "backbone_rate": backbone_rate}


def query_styles(dtype: DTypeLike, epsilon: float = 1e-5) -> tuple[Style, Style]:
    """Convolutions of the backbone and the decoder, which have ReLU, and of the neck, which have SiLU."""
    relu, silu = (Style(kind, momentum=0.9, epsilon=epsilon, dtype=dtype) for kind in ("relu", "silu"))
    return relu, silu


def stored_shapes(
    stored_anchors: Sequence[int] | None, strides: tuple[int, ...], options: dict[str, Any]
) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the pyramid of images of this size, which is also put into ``options``; empty without one.

    Raises `ConfigError` for a size that the strides do not divide.
    """
    if stored_anchors is None:
        return ()
    height, width = stored_anchors if len(stored_anchors) == 2 else (0, 0)
    if min(height, width) < strides[-1] or height % strides[-1] or width % strides[-1]:
        raise ConfigError(f"stored_anchors = {list(stored_anchors)}: give height and width, multiples of {strides[-1]}")
    options["stored_anchors"] = [height, width]
    return tuple((height // stride, width // stride) for stride in strides)


@dataclass(frozen=True)
class QueryWeights:
    """The tensors of a published file in the plain form (`yolojax.weights.detr`), and what is known about it.

    Attributes:
      file: the file.
      tensors: without constants.
      scale: of the family, or an empty text for a size of no published scale.
      options: of the zoo function that the file decides.
      defaults: options that the configuration beside the file states and a user may choose otherwise.
      num_classes: how many.
      class_names: where the file or the configuration beside it says them.
      size: height and width of the input image, where they are known.
    """

    file: WeightFile
    tensors: Mapping[str, np.ndarray]
    scale: str
    options: Mapping[str, Any]
    num_classes: int
    class_names: tuple[str, ...] | None
    size: tuple[int, int] | None
    defaults: Mapping[str, Any] = field(default_factory=dict)


def read_plain(file: WeightFile) -> dict[str, np.ndarray] | None:
    """The tensors of a file of this family in the plain form; None if it is another network."""
    if not any(name.endswith("enc_score_head.weight") for name in file.tensors):
        return None
    return plain_tensors(file.tensors)


def numbers_in(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
    """How many different numbers stand in the first group of ``pattern`` among the names."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def read_weights(
    file: WeightFile,
    plain: dict[str, np.ndarray],
    scale: str,
    strides: tuple[int, ...],
    options: Mapping[str, Any] | None = None,
) -> QueryWeights:
    """What is known of a file whose family and scale are known: classes, their names, queries and input size.

    ``strides`` are those of the pyramid, ``options`` those of the zoo function that the file decides.
    """
    config = read_config(file.path)
    head = plain["decoder.enc_score_head.weight"]
    if head.ndim != 2:
        raise CheckpointError(f"{file.path}: the tensor of the class head has {head.ndim} axes; it is damaged")
    anchors = plain.get(ANCHORS)
    side = None if anchors is None or anchors.ndim != 3 else _side_of(anchors.shape[1], strides)
    transformer = next((config[key] for key in ("DEIMTransformer", "DFINETransformer") if key in config), config)
    queries = transformer.get("num_queries") if isinstance(transformer, dict) else None
    stated = isinstance(queries, int) and not isinstance(queries, bool) and queries > 0
    decided = dict(options or {})
    size = transformer.get("eval_spatial_size") if isinstance(transformer, dict) else None
    if side is None and isinstance(size, list) and len(size) == 2 and size[0] == size[1] and isinstance(size[0], int):
        side = size[0]
    tensors = {name: array for name, array in plain.items() if not re.fullmatch(CONSTANTS, name)}
    if anchors is not None and side is not None:
        tensors[ANCHORS] = np.where(np.isposinf(anchors), np.float32(OUTSIDE), anchors)
        decided["stored_anchors"] = (side, side)
    defaults = {"queries": queries} if stated else {}
    pixels = stated_size(file) if side is None else (side, side)
    if pixels is not None:  # Trainers round what they are told up to a multiple of the last stride.
        height, width = (-(-one // strides[-1]) * strides[-1] for one in pixels)
        pixels = height, width
    names = stated_names(file) or _names_in(config)
    return QueryWeights(file, tensors, scale, decided, head.shape[0], names, pixels, defaults)


def _side_of(places: int, strides: tuple[int, ...]) -> int | None:
    """The side of a square image whose pyramid has so many places."""
    for side in range(32, 4097, 32):
        if sum((side // stride) ** 2 for stride in strides) == places:
            return side
    return None


def read_config(path: Path) -> dict[str, Any]:
    """The ``config.json`` beside a ``.safetensors``, as the Hugging Face hub has it; empty if there is none.

    Raises `CheckpointError` when it is no JSON object.
    """
    beside = path.parent / "config.json"
    if path.suffix.lower() != ".safetensors" or not beside.is_file():
        return {}
    try:
        config = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{beside}: cannot be read ({error}); get it again or take it away") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{beside}: is no JSON object; get it again or take it away")
    return config


def _names_in(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names of a configuration of transformers; None where it has none, or only numbered ones."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return None
    names = [labels.get(str(number)) for number in range(len(labels))]
    if not all(isinstance(name, str) for name in names) or all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return None
    return tuple(map(str, names))


def build_weights(
    weights: QueryWeights,
    class_names: tuple[str, ...] | None,
    input_size: tuple[int, int] | None,
    dtype: Any,
    options: Mapping[str, Any] | None = None,
    *,
    title: str,
    builder: Callable[..., Detector],
    side: Callable[[str], int] = lambda scale: 640,
) -> tuple[Detector, Variables]:
    """A detector and its variables from what `read_weights` found; ``side`` gives a scale's input size.

    ``options`` as in `yolojax.zoo.from_pytorch`, of the family called ``title``.
    """
    source = weights.file.path
    if not weights.scale:
        raise CheckpointError(f"{source}: the sizes of this network are those of no published scale; give one of those")
    names = classes_of_file(source, weights.num_classes, class_names or weights.class_names)
    pixels = side(weights.scale)
    size = input_size or weights.size or (pixels, pixels)
    decided = {"stored_anchors": None, **weights.options, "scale": weights.scale}
    own = options_of_file(title, builder, decided, {**weights.defaults, **(options or {})})
    detector = builder(names, size, dtype=dtype, **own)
    expected = variable_shapes(detector)
    tensors = dict(weights.tensors)
    if "boxes" in expected["params"]["head"]:
        tensors = merge_shared(tensors)
    variables = take_tensors(tensors, expected, partial(plain_name_in, expected), CONSTANTS, str(source))
    return detector, jax.device_put({name: variables.get(name, {}) for name in expected})


def plain_name_in(variables: Variables, name: str) -> str:
    """The plain name of an array of a detector with these variables."""
    params = variables["params"]
    neck, head = params["neck"], params["head"]
    features = {"hgnet" if "stem4" in params["backbone"] else "resnet"}
    features |= {"lite"} if "fuse" in neck else set()
    features |= {"csp"} if "main" in neck["down0"] else set()
    features |= {"gated"} if "gate" in head["layer0"] else set()
    features |= set() if "bias" in head["layer0"]["norm1"] else {"modern"}
    levels = 2 if "lite" in features else sum(part.startswith("project") for part in neck)
    return plain_name(name, levels, frozenset(features))


def query_tensors(detector: Detector, variables: Variables) -> dict[str, np.ndarray]:
    """The tensors of a detector by its authors' names, without those that follow from its options."""
    plain = give_tensors(variables, partial(plain_name_in, variables))
    plain = {name: array for name, array in plain.items() if not name.endswith("num_batches_tracked")}
    if ANCHORS in plain:
        plain[ANCHORS] = np.where(plain[ANCHORS] == OUTSIDE, np.float32(np.inf), plain[ANCHORS])
    return author_tensors(plain, detector.spec.name)
