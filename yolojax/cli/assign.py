"""``yolojax data assign``: draws which prediction learns which object, on the images of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from yolojax.cli.anchors import TRAINING_PART
from yolojax.cli.folders import choose_folder
from yolojax.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from yolojax.assign import Assigned
    from yolojax.data import Dataset
    from yolojax.structures import Batch, Candidates, Level, Targets

LEAST_SIDE = 480
"""Input images are enlarged until they have this many pixels a side, so that neighbouring cells can be told apart."""


@dataclass(frozen=True)
class Assign:
    """Draw which cells learn which object, by any of the six assigners.

    Attributes:
      path: a data set, as for train.
      rule: the assigner; simota, task-aligned and one-to-one read predictions, and so need --model.
      model: a run directory or released detector, for its predictions, input size and strides.
      split: part of the data set.
      images: the folder of the images, where they do not lie at their format's usual place.
      first: the image to begin with, counted from 0.
      count: how many images to draw.
      size: side of the square input image in pixels, without --model.
      out: folder for assignment.png.
    """

    path: Annotated[Positional[str], arg(metavar="DATA")]
    rule: Literal["best-anchor", "ratio", "atss", "simota", "task-aligned", "one-to-one"] = "atss"
    model: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="(default: none)")] = None
    split: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=TRAINING_PART)] = None
    images: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    first: int = 0
    count: int = 6
    size: int = 640
    out: Annotated[
        Path | None,
        arg(metavar="FOLDER", help_behavior_hint="(default: the first free of runs/assign, runs/assign2, ...)"),
    ] = None

    def run(self) -> int:
        """Assign and draw; prints how many cells each object got."""
        for name, value, low, high in (("first", self.first, 0, 10**9), ("count", self.count, 1, 64)):
            if not low <= value <= high:
                raise ConfigError(f"--{name} {value}: give {low} to {high}")
        if self.model is None and not (32 <= self.size <= 4096 and self.size % 32 == 0):
            raise ConfigError(f"--size {self.size}: give a multiple of 32, the largest stride, up to 4096")
        if self.model is None and self.rule in ("simota", "task-aligned", "one-to-one"):
            raise ConfigError(f"--rule {self.rule} reads predictions: give --model RUN, or another rule")
        out = choose_folder(self.out, Path("runs/assign"))

        from yolojax.cli.progress import make_reporter
        from yolojax.data import open_dataset
        from yolojax.data.dataset import say_findings
        from yolojax.data.index import keep_index
        from yolojax.data.splits import training_split
        from yolojax.training.plots import save_png

        keep_index()
        dataset = open_dataset(self.path, self.split or training_split(self.path), images=self.images)
        say_findings(dataset, make_reporter())
        if self.first >= len(dataset):
            raise ConfigError(f"--first {self.first}: the data set has only the images 0 to {len(dataset) - 1}")
        shown = dataset.take(range(self.first, min(self.first + self.count, len(dataset))))
        assigned, batch, levels = self._assign(dataset, shown)
        picture, lines = _draw(assigned, batch, levels, shown, self.rule)
        out.mkdir(parents=True, exist_ok=True)
        save_png(out / "assignment.png", picture)
        print("\n".join([*lines, "", f"{out}: assignment.png"]))
        return 0

    def _assign(self, dataset: Dataset, shown: Dataset) -> tuple[Assigned, Batch, tuple[Level, ...]]:
        import numpy as np

        from yolojax.anchors import design_anchors
        from yolojax.data import box_sizes_on_input, build_cache
        from yolojax.geometry import Preprocess
        from yolojax.structures import Level

        input_size, strides, preprocess, detector = (self.size, self.size), (8, 16, 32), Preprocess(), None
        if self.model is not None:
            from yolojax.inference.predict import load_detector

            detector = load_detector(self.model)
            spec = detector[0].spec
            input_size, strides, preprocess = spec.input_size, spec.strides, spec.preprocess
            if set(shown.class_names) - set(spec.class_names):
                raise ConfigError(
                    f"--model {self.model} knows {', '.join(spec.class_names)}, not all of the classes of {self.path}: "
                    f"{', '.join(shown.class_names)}; give the detector that was trained on them"
                )
        cache = build_cache(shown, input_size, preprocess)
        batch = cache.batch(np.arange(len(shown)))
        levels = tuple(Level(input_size[0] // s, input_size[1] // s, s) for s in strides)
        anchors = candidates = None
        if self.rule in ("best-anchor", "ratio"):
            anchors = design_anchors(box_sizes_on_input(dataset, input_size), strides).anchors.astype(np.float32)
        if detector is not None and self.rule in ("simota", "task-aligned", "one-to-one"):
            own = np.array([detector[0].spec.class_names.index(n) for n in shown.class_names], np.int32)
            batch = batch._replace(targets=batch.targets._replace(classes=own[np.asarray(batch.targets.classes)]))
            candidates = _predict(detector, batch)
        return assign_by(self.rule, batch.targets, levels, anchors, candidates), batch, levels


def assign_by(
    rule: str,
    targets: Targets,
    levels: tuple[Level, ...],
    anchors: np.ndarray | None = None,
    candidates: Candidates | None = None,
) -> Assigned:
    """The assignment of one rule with its usual constants.

    ``anchors [L, A, 2]``, in input pixels, are needed by best-anchor and ratio; the ``candidates`` of a detector by
    simota, task-aligned and one-to-one. Final scores stand for the probability of a class, without objectness.
    """
    import jax
    import jax.numpy as jnp

    from yolojax.assign import ANCHOR_FREE_ASSIGNERS, ANCHORED_ASSIGNERS, Predictions, atss_assign

    if rule in ANCHORED_ASSIGNERS:
        given = jnp.asarray(anchors, jnp.float32)
        return jax.jit(lambda t: ANCHORED_ASSIGNERS[rule](t, levels, given))(targets)
    if candidates is None:
        return jax.jit(lambda t: atss_assign(t, levels))(targets)
    scores = jnp.clip(candidates.scores, 1e-6, 1.0 - 1e-6)
    predictions = Predictions(candidates.boxes, jnp.log(scores) - jnp.log1p(-scores))
    return jax.jit(lambda t, p: ANCHOR_FREE_ASSIGNERS[rule](t, levels, p))(targets, predictions)


def _predict(detector: tuple, batch: Batch) -> Candidates:
    import jax

    from yolojax.detector import prepare_images

    record, variables = detector
    forward = jax.jit(lambda v, x: record.decode(record.forward(v, prepare_images(x, record.spec.preprocess))))
    return forward(variables, batch.images)


def _draw(assigned: Assigned, batch: Batch, levels: tuple[Level, ...], dataset: Dataset, rule: str) -> tuple:
    """The contact sheet of all images, and a line of text for each image."""
    import numpy as np

    from yolojax import draw
    from yolojax.coding import cell_centres

    positive, objects = np.asarray(assigned.positive), np.asarray(assigned.objects)
    per_cell = positive.shape[1] // sum(level.h * level.w for level in levels)
    points, all_strides = (np.asarray(a) for a in cell_centres(levels, per_cell))

    tiles, lines = [], [f"{'image':<24} objects  without a cell  cells  by stride"]
    for b, record in enumerate(dataset.records):
        real = np.flatnonzero(np.asarray(batch.targets.valid[b]) & ~np.asarray(batch.targets.crowd[b]))
        mine = np.flatnonzero(positive[b])
        owners, strides = objects[b][mine], all_strides[mine]
        left = len(set(real) - set(owners))
        each = ", ".join(f"{s:.0f}: {(strides == s).sum()}" for s in np.unique(all_strides))
        name = Path(record.file_name).name
        lines.append(f"{name:<24} {len(real):7d}  {left:14d}  {len(mine):5d}  {each}")
        image = np.asarray(batch.images[b])
        factor = max(1, -(-LEAST_SIDE // min(image.shape[:2])))
        # Owners are rows of the targets. Only rows with an object are drawn, so their indices are closed up.
        boxes = np.asarray(batch.targets.boxes[b])[real] * np.float32(factor)
        index = np.searchsorted(real, owners)
        picture = draw.draw_assignment(
            image.repeat(factor, 0).repeat(factor, 1), boxes, points[mine] * factor, index, strides * factor
        )
        tiles.append(draw.caption(picture, f"{name}: {len(mine)} cells for {len(real)} objects ({rule})"))
    return draw.contact_sheet(tiles, 3), lines
