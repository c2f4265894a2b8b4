"""How long a prediction takes and in which part of it, on this machine, for one runtime or several in turns.

The parts are decoding (a file's bytes to RGB), preprocessing (to the input image), the network (input image to raw
outputs) and post-processing (decoding, suppression and boxes in pixels of the photo). Each is timed by itself. Two
numbers are of the whole: the latency from the bytes of a batch to its boxes, one after another, and images a second
where photos are read ahead of the network in threads, as `yolojax predict` does.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from yolojax import zoo
from yolojax.data import open_dataset
from yolojax.data.images import read_image_bytes
from yolojax.data.input_images import make_input_image
from yolojax.detect import choose_iou, network_outputs, postprocess_outputs
from yolojax.detector import Detector, Outputs, Variables, fold_on_host
from yolojax.errors import ConfigError
from yolojax.export import ExportSettings, load_exported, to_onnx
from yolojax.export.onnx_running import choose_runtime
from yolojax.export.running import RUNTIMES
from yolojax.export.running import Runtime as RuntimeName
from yolojax.geometry import Placement, Preprocess, batch_to_original
from yolojax.image_wise import by_image
from yolojax.inference.loading import load_detector
from yolojax.inference.pipeline import batches_ahead
from yolojax.processor.inference import jit_for_inference
from yolojax.progress import Reporter
from yolojax.sharding.batches import on_all_devices, split_over_devices
from yolojax.structures import Detections


@runtime_checkable
class Runtime(Protocol):
    """A detector on something that can run it. Every method returns when its work is done, never before.

    Attributes:
      name: such as ``jax``.
      version: of the runtime.
      device: what it runs on.
      input_size: ``(height, width)`` in pixels.
      preprocess: how photos become input images.
      batch_size: images of a call.
    """

    name: str
    version: str
    device: str
    input_size: tuple[int, int]
    preprocess: Preprocess
    batch_size: int

    def network(self, images: UInt8[np.ndarray, "B H W 3"]) -> Any:
        """The raw outputs for input images (RGB, uint8)."""
        ...

    def postprocess(self, outputs: Any) -> Detections:
        """Detections in input pixels, on the host, of what `network` returned."""
        ...

    def detect(self, images: UInt8[np.ndarray, "B H W 3"]) -> Detections:
        """Both in one, as predictions are made; on the host."""
        ...


class JaxRuntime:
    """A detector run by JAX, as `yolojax.inference.predict.Predictor` runs it, with the detector's own thresholds.

    The record of an exported file (`yolojax.export.load_exported`) is run by what the file was loaded with; ``name``
    and ``version`` then say so.
    """

    def __init__(
        self,
        detector: Detector,
        variables: Variables,
        batch_size: int,
        *,
        name: str = "jax",
        version: str = jax.__version__,
    ) -> None:
        spec = detector.spec
        own = spec.postprocess.prediction
        iou = choose_iou(spec, None, None, own.iou)
        self.name, self.version, self.device = name, version, jax.devices()[0].device_kind
        self.input_size, self.preprocess, self.batch_size = spec.input_size, spec.preprocess, batch_size
        self._thresholds = jnp.float32(own.confidence), None if iou is None else jnp.float32(iou)
        folded, split = fold_on_host(detector, variables), split_over_devices(batch_size)
        self._variables = jax.device_put(folded) if split is None else on_all_devices(folded, split)

        def network(images: UInt8[Array, "B H W 3"], variables: Variables) -> Outputs:
            return network_outputs(detector, variables, images)

        def postprocess(outputs: Outputs, confidence: Float[Array, ""], iou: Float[Array, ""] | None) -> Detections:
            return postprocess_outputs(detector, outputs, confidence, iou, max_detections=own.max_detections)

        def both(
            images: UInt8[Array, "B H W 3"],
            variables: Variables,
            confidence: Float[Array, ""],
            iou: Float[Array, ""] | None,
        ) -> Detections:
            return postprocess(network(images, variables), confidence, iou)

        def compiled(function: Callable[..., Any], shared: int) -> Callable[..., Any]:
            function = function if split is None else by_image(function, split, shared=shared)
            return jit_for_inference(function)

        self._network, self._postprocess, self._both = compiled(network, 1), compiled(postprocess, 2), compiled(both, 3)

    def network(self, images: UInt8[np.ndarray, "B H W 3"]) -> Outputs:
        """See `Runtime`; the outputs stay on the device."""
        return jax.block_until_ready(self._network(images, self._variables))

    def postprocess(self, outputs: Outputs) -> Detections:
        """See `Runtime`."""
        return jax.device_get(self._postprocess(outputs, *self._thresholds))

    def detect(self, images: UInt8[np.ndarray, "B H W 3"]) -> Detections:
        """See `Runtime`."""
        return jax.device_get(self._both(images, self._variables, *self._thresholds))


def open_jax(model: Sequence[str], size: int | None, batch_sizes: Sequence[int]) -> list[Runtime]:
    """The model run by JAX, once for each batch size.

    Raises as `yolojax.inference.loading.load_detector` does, and `ConfigError` for an ``.onnx``.
    """
    if _is_onnx(model):
        raise ConfigError(f"{model[0]} is not run by JAX; leave --runtime jax out")
    detector, variables = _load(model, size)
    return [JaxRuntime(detector, variables, batch_size) for batch_size in batch_sizes]


def open_exported(
    model: Sequence[str], size: int | None, batch_sizes: Sequence[int], *, runtime: RuntimeName
) -> list[Runtime]:
    """The model run by another runtime, once for each batch size.

    An ``.onnx`` is run as it is. Any other model is exported without suppression, which is then JAX's.

    Raises:
      ConfigError: the runtime or the package ``onnx`` is missing, or the model cannot be exported.
      CheckpointError: as `yolojax.inference.loading.load_detector` does.
    """
    choose_runtime(runtime)
    if _is_onnx(model):
        records = [load_detector(list(model), size=size, runtime=runtime)] * len(batch_sizes)
    elif any(file.endswith(".stablehlo") for file in model):
        raise ConfigError(f"{model[0]} is run by JAX; leave --runtime {runtime} out")
    else:
        detector, variables = _load(model, size)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            records = []
            for batch_size in batch_sizes:
                path = Path(folder) / f"{batch_size}.onnx"
                path.write_bytes(to_onnx(detector, variables, ExportSettings(batch=batch_size, raw=True)))
                records.append(load_exported(path, runtime=runtime))
    named = {"name": runtime, "version": version(runtime)}
    return [JaxRuntime(*record, batch_size, **named) for record, batch_size in zip(records, batch_sizes, strict=True)]


def _is_onnx(model: Sequence[str]) -> bool:
    return any(file.endswith(".onnx") for file in model)


def _load(model: Sequence[str], size: int | None) -> tuple[Detector, Variables]:
    """A detector from files, or an architecture with random parameters."""
    if len(model) == 1 and model[0] in zoo.ARCHITECTURES:
        side = DEFAULT_SIZE if size is None else size
        detector = zoo.build(model[0], zoo.COCO_CLASSES, (side, side))
        return detector, detector.init(jax.random.key(0))
    return load_detector(list(model), size=size)


Opener = Callable[[Sequence[str], int | None, Sequence[int]], list[Runtime]]
"""``(model, size, batch_sizes)`` to a runtime for each batch size; the arguments are those of `open_runtimes`."""

OPENERS: dict[str, Opener] = {
    "jax": open_jax,
    **{runtime: partial(open_exported, runtime=runtime) for runtime in RUNTIMES},
}
"""What can run a detector, by name. An entry raises `ConfigError` when it is not installed or cannot run the model."""

DEFAULT_SIZE = 640


def open_runtimes(
    model: Sequence[str], names: Sequence[str], *, size: int | None, batch_sizes: Sequence[int]
) -> list[Runtime]:
    """The runtimes that are to be measured, each with every batch size.

    Args:
      model: a run directory, weight files, or the name of an architecture, which gets random parameters.
      names: of `OPENERS`; where there are none, all that are installed and can run the model.
      size: longer side of the input in pixels; None leaves it as trained.
      batch_sizes: images of a call.

    Raises:
      ConfigError: an unknown name, or none of the runtimes can run the model.
      CheckpointError: the model cannot be read.
    """
    for name in names:
        if name not in OPENERS:
            raise ConfigError(f"--runtime {name}: known are {', '.join(OPENERS)}")
    if names:
        return [runtime for name in dict.fromkeys(names) for runtime in OPENERS[name](model, size, batch_sizes)]
    found, problems = [], []
    for opener in OPENERS.values():
        try:
            found += opener(model, size, batch_sizes)
        except ConfigError as error:
            problems.append(error)
    if not found:
        raise problems[0]
    return found


def generated_photos(count: int = 8, side: int = 960) -> list[Photo]:
    """JPEG files of generated images with shapes on them."""
    photos = []
    for record in open_dataset(f"shapes:val?count={count}&size={side}").records:
        file = io.BytesIO()
        Image.fromarray(record.pixels()).save(file, "JPEG", quality=90)
        photos.append(Photo(record.file_name, file.getvalue()))
    return photos


class Photo(NamedTuple):
    """The content of an image file, and what it is called."""

    name: str
    data: bytes


@dataclass(frozen=True)
class PredictionTimes:
    """What `measure_prediction` found for one runtime and batch size. All times are medians, in milliseconds.

    Attributes:
      runtime, version, device: what ran the network, and on what.
      input_size: ``(height, width)`` in pixels.
      batch_size: images of a call of the network.
      rounds: how often each part was timed.
      first_ms: the first call of the whole and of each part, compilation or its cache included; in no other number.
      decode_ms, preprocess_ms, network_ms, postprocess_ms: of one image: a batch's time by its number of images.
      program_ms: of one image: network and post-processing in one call, as predictions are made.
      latency_ms: of one batch, from the bytes of its photos to boxes in their pixels, one part after another.
      images_per_second: with photos read ahead in threads, over all rounds.
      detections: found on an image, on average; suppression takes longer where there are more.
    """

    runtime: str
    version: str
    device: str
    input_size: tuple[int, int]
    batch_size: int
    rounds: int
    first_ms: float
    decode_ms: float
    preprocess_ms: float
    network_ms: float
    postprocess_ms: float
    program_ms: float
    latency_ms: float
    images_per_second: float
    detections: float


def measure_prediction(
    runtimes: Sequence[Runtime], photos: Sequence[Photo], reporter: Reporter, *, seconds: float = 10.0
) -> list[PredictionTimes]:
    """Times runtimes in turns: in every round each part of each of them once, so that all see the same machine.

    Args:
      runtimes: with batch sizes of their own.
      photos: taken in a circle, as many as a batch needs.
      reporter: where progress goes.
      seconds: how long to go on, at least; a runtime has at least three rounds.

    Raises:
      DataError: a photo that cannot be read.
    """
    clocks = [_Clock(runtime, photos) for runtime in runtimes]
    with reporter.task("first calls", len(clocks)) as advance:
        for done, clock in enumerate(clocks, 1):
            clock.first()
            advance(done)
    started, rounds = time.perf_counter(), 0
    with reporter.task("measuring", round(seconds)) as advance:
        while rounds < 3 or time.perf_counter() - started < seconds:
            for clock in clocks:
                clock.round()
            rounds += 1
            advance(min(round(seconds), round(time.perf_counter() - started)))
    return [clock.times() for clock in clocks]


class _Clock:
    """Times one runtime on a batch of photos."""

    def __init__(self, runtime: Runtime, photos: Sequence[Photo]) -> None:
        self.runtime = runtime
        self.batch = [photos[i % len(photos)] for i in range(runtime.batch_size)]
        self.seconds: dict[str, list[float]] = {}
        self.first_seconds = 0.0
        self.detections = 0.0

    def first(self) -> None:
        """The first call of everything: compilation, and memory touched for the first time."""
        started = time.perf_counter()
        images = np.stack([self._prepare(photo)[1] for photo in self.batch])
        found = self.runtime.detect(images)
        self.runtime.postprocess(self.runtime.network(images))
        self.first_seconds = time.perf_counter() - started
        self.detections = float(np.asarray(found.valid).sum(1).mean())
        self.round()
        self.seconds.clear()

    def round(self) -> None:
        """Times every part once."""
        runtime = self.runtime
        pixels = self._time("decode", lambda: [read_image_bytes(photo.data, photo.name) for photo in self.batch])
        make = partial(make_input_image, input_size=runtime.input_size, preprocess=runtime.preprocess)
        made = self._time("preprocess", lambda: [make(image) for image in pixels])
        images = np.stack([image for image, _ in made])
        sizes = [image.shape[:2] for image in pixels]
        placements = [placement for _, placement in made]
        outputs = self._time("network", lambda: runtime.network(images))
        self._time("postprocess", lambda: _in_photos(runtime.postprocess(outputs), placements, sizes))
        self._time("program", lambda: runtime.detect(images))
        self._time("latency", lambda: self._finish([self._prepare(photo) for photo in self.batch]))
        self._time("pipeline", self._pipeline)

    def times(self) -> PredictionTimes:
        """The medians."""
        runtime, size = self.runtime, self.runtime.batch_size
        median = {name: 1e3 * statistics.median(seconds) for name, seconds in self.seconds.items()}
        parts = ("decode", "preprocess", "network", "postprocess", "program")
        pipeline = self.seconds["pipeline"]
        return PredictionTimes(
            runtime=runtime.name,
            version=runtime.version,
            device=runtime.device,
            input_size=runtime.input_size,
            batch_size=size,
            rounds=len(pipeline),
            first_ms=1e3 * self.first_seconds,
            **{f"{name}_ms": median[name] / size for name in parts},
            latency_ms=median["latency"],
            images_per_second=_PIPELINE_BATCHES * size * len(pipeline) / sum(pipeline),
            detections=self.detections,
        )

    def _time(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def _prepare(self, photo: Photo) -> tuple[tuple[int, int], UInt8[np.ndarray, "H W 3"], Placement]:
        pixels = read_image_bytes(photo.data, photo.name)
        image, placement = make_input_image(pixels, self.runtime.input_size, self.runtime.preprocess)
        return (pixels.shape[0], pixels.shape[1]), image, placement

    def _finish(self, prepared: Sequence[tuple[tuple[int, int], Any, Placement]]) -> Any:
        sizes, images, placements = zip(*prepared, strict=True)
        return _in_photos(self.runtime.detect(np.stack(images)), placements, sizes)

    def _pipeline(self) -> None:
        photos = self.batch * _PIPELINE_BATCHES
        with closing(batches_ahead(self._prepare, photos, self.runtime.batch_size)) as batches:
            for chunk, _ in batches:
                self._finish([prepared for _, prepared in chunk])


_PIPELINE_BATCHES = 8
"""Batches of one round of the pipeline: the first is not read ahead of anything."""


def _in_photos(
    found: Detections, placements: Sequence[Placement], sizes: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "b k 4"]:
    content = np.array([placement.content for placement in placements])
    return batch_to_original(np.asarray(found.boxes), content, np.array(sizes))
