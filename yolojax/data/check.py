"""Checks a data set before training: counts, sizes, every repair by name, and pictures of the labels."""

import base64
import io
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.ImageFont import FreeTypeFont

from yolojax.data.columns import Columns
from yolojax.data.dataset import Dataset
from yolojax.data.summary import Finding, Summary
from yolojax.draw import Objects, caption, contact_sheet, draw_boxes, enlarge
from yolojax.errors import DataError, shortened, shown
from yolojax.files import write_whole
from yolojax.fonts import font_for
from yolojax.host_boxes import iou_table
from yolojax.progress import Progress

SMALL, LARGE = 32.0**2, 96.0**2
"""Square pixels that part small from medium and medium from large objects; the bounds belong to both (COCO)."""

_LONGEST_LABEL = 40  # letters of a class name in a chart
_BAR = 40
_SHEET_SIDE = 320
_UNLABELLED_IMAGES = 0.2
_SAME_BOX = 0.95
_COMPARED_IMAGES, _COMPARED_BOXES = 200, 200
_MOST_DOTS = 20_000  # drawn boxes; more of them would only cover each other


@dataclass(frozen=True)
class DataReport:
    """What `check_dataset` found.

    Attributes:
      images: number of images, of which ``background`` have no object.
      objects: number of annotated objects, of which ``crowd`` are crowd regions or difficult objects, which training
        ignores.
      per_class: ordinary objects of each class, in the order of the classes.
      small, medium, large: ordinary objects by area in original pixels.
      per_image: quantiles 0, .25, .5, .75 and 1 of the number of objects on an image.
      sides: the same of the square root of the box area, in original pixels.
      image_sizes: the smallest and the largest ``(height, width)`` by area.
      identical: boxes that repeat an object of the same class on the same image exactly.
      near_identical: of ``compared`` objects of a sample of the images, those that lie almost exactly on another one of
        the same class; 0 where they are few.
      summary: what was repaired, skipped or noticed.
      warnings: what should be looked at before training, as sentences.
    """

    images: int
    background: int
    objects: int
    crowd: int
    per_class: dict[str, int]
    small: int
    medium: int
    large: int
    per_image: tuple[float, ...]
    sides: tuple[float, ...]
    image_sizes: tuple[tuple[int, int], tuple[int, int]]
    identical: int
    compared: int
    near_identical: int
    summary: Summary
    warnings: tuple[str, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What could not be used at all, and parts that are not there; a data set without errors can be opened without
        ``skip_bad``, and so can each of its parts."""
        return self.summary.of("skipped") + self.summary.of("missing")

    def text(self, limit: int = 10) -> str:
        """The report in words, with a bar for every class and the first ``limit`` findings of each kind by name."""
        if not self.images:
            reasons = self.summary.text(limit) or "none is listed"
            return "\n".join(["images    none that can be used", "", reasons])
        (low_h, low_w), (high_h, high_w) = self.image_sizes
        same = self.image_sizes[0] == self.image_sizes[1]
        sizes = f"{low_w} x {low_h}" if same else f"{low_w} x {low_h} to {high_w} x {high_h}"
        lines = [
            f"images    {self.images} ({self.background} without objects), {sizes} pixels",
            f"objects   {self.objects} ({self.crowd} crowd or difficult)",
            f"sizes     {self.small} small, {self.medium} medium, {self.large} large (below {SMALL**0.5:g}, below "
            f"{LARGE**0.5:g}, from {LARGE**0.5:g} pixels)",
            f"per image {_quantiles(self.per_image)}",
            f"box side  {_quantiles(self.sides)} pixels",
            "",
            *class_bars(self.per_class),
        ]
        if self.summary.findings:
            lines += ["", self.summary.text(limit)]
        if self.warnings:
            lines += ["", *(f"warning: {w}" for w in self.warnings)]
        if not self.errors:
            lines += ["", "no errors"]
        return "\n".join(lines)


def check_dataset(dataset: Dataset, *, decode: bool = True, progress: Progress | None = None) -> DataReport:
    """Count what a data set holds, and find what opening it could not.

    Open it with ``skip_bad=True`` to have every error named at once instead of the first raised.

    Args:
      dataset: the data set.
      decode: decode every image, which finds files that break off after their header; they are named as errors.
      progress: called after each decoded image.
    """
    findings = bad_images(dataset, progress) if decode else []
    columns = dataset.columns
    if findings:
        bad = {name for name, _ in findings}
        columns = columns.take([i for i in range(len(columns)) if i not in bad])
    crowd, boxes = columns.crowd, columns.boxes.astype(np.float64)
    areas, counts = columns.areas[~crowd], columns.counts
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    of_class = np.bincount(columns.classes[~crowd], minlength=len(dataset.class_names))
    compared, near = _near_identical(columns)
    sizes = sorted(map(tuple, np.unique(columns.sizes, axis=0).tolist()), key=lambda s: (s[0] * s[1], s)) or [(0, 0)]
    report = DataReport(
        images=len(columns),
        background=int((counts == 0).sum()),
        objects=len(boxes),
        crowd=int(crowd.sum()),
        per_class={n: int(c) for n, c in zip(dataset.class_names, of_class, strict=True)},
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < LARGE)).sum()),
        large=int((areas >= LARGE).sum()),
        per_image=_five(counts),
        sides=_five(sides),
        image_sizes=(sizes[0], sizes[-1]),
        identical=columns.repeated,
        compared=compared,
        near_identical=near if near >= max(5, 0.05 * compared) else 0,
        summary=dataset.summary + Summary(tuple(finding for _, finding in findings)),
        warnings=(),
    )
    return replace(report, warnings=tuple(_warnings(report)))


def _near_identical(columns: Columns) -> tuple[int, int]:
    """How many ordinary objects of a sample of the images were compared, and how many of them lie on an earlier one."""
    compared = near = 0
    for image in np.unique(np.linspace(0, len(columns) - 1, min(len(columns), _COMPARED_IMAGES)).astype(np.int64)):
        rows = np.arange(int(columns.starts[image]), int(columns.starts[image + 1]))
        rows = rows[~columns.crowd[rows]][:_COMPARED_BOXES]
        boxes, classes = columns.boxes[rows].astype(np.float64), columns.classes[rows]
        boxes[:, 2:] -= boxes[:, :2]
        same = iou_table(boxes[None], boxes[None])[0] >= _SAME_BOX
        same &= (classes[:, None] == classes[None, :]) & np.tri(len(rows), k=-1, dtype=bool)
        compared, near = compared + len(rows), near + int(same.any(1).sum())
    return compared, near


def _five(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(q) for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1])) if len(values) else ()


def _quantiles(values: tuple[float, ...]) -> str:
    return "none" if not values else "min {:.3g}, quartiles {:.3g}, {:.3g}, {:.3g}, max {:.3g}".format(*values)


def bad_images(dataset: Dataset, progress: Progress | None = None) -> list[tuple[int, Finding]]:
    """The images that cannot be decoded, by their positions, with what is wrong with them.

    Where the index knows it of an earlier run, no image is decoded.
    """
    kept = dataset.entry
    if kept is not None and (known := kept.read_bad_images()) is not None:
        if progress is not None:
            progress(len(dataset), len(dataset))
        return known
    findings: list[tuple[int, Finding]] = []
    columns = dataset.columns
    for i in range(len(columns)):
        try:
            columns.check_pixels(i)
        except DataError as error:
            findings.append((i, Finding("skipped", columns.file_names[i], str(error))))
        if progress is not None:
            progress(i + 1, len(columns))
    if kept is not None:
        kept.write_bad_images(findings)
    return findings


def _warnings(report: DataReport) -> list[str]:
    found: list[str] = []
    counts = report.per_class
    absent = [n for n, c in counts.items() if c == 0]
    if absent:
        some = _listed(absent)
        found.append(f"{len(absent)} of {len(counts)} classes have no object: {some}")
    rare = [n for n, c in counts.items() if 0 < c < 10]
    if rare:
        some = _listed(rare)
        found.append(f"{len(rare)} classes have fewer than 10 objects; their accuracy will mean little: {some}")
    alike: dict[str, list[str]] = {}
    for name in counts:
        alike.setdefault("".join(name.split()).casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            found.append(f"the classes {', '.join(map(shown, names[:6]))} differ only in capitals or blanks")
    if report.objects and report.objects == report.crowd:
        found.append("all objects are crowd regions or difficult ones, which training ignores: nothing can be learnt")
    if report.identical:
        found.append(f"{report.identical} objects repeat another of the same class and box exactly")
    elif report.near_identical:
        found.append(
            f"{report.near_identical} of {report.compared} objects that were compared lie almost exactly (IoU "
            f"{_SAME_BOX:g}) on another one of their class; were the images labelled twice?"
        )
    if report.background > _UNLABELLED_IMAGES * report.images:
        found.append(
            f"{report.background} of {report.images} images have no object: if objects are to be seen on them, their "
            "labels are missing"
        )
    return found


def _listed(names: list[str]) -> str:
    return ", ".join(shortened(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")


def class_bars(per_class: dict[str, int]) -> list[str]:
    """A line of text per class, the most frequent first, with a bar in proportion to its count."""
    most, total = max(per_class.values(), default=0), sum(per_class.values())
    per_class = {" ".join(name.split()): count for name, count in per_class.items()}  # a name may end a line
    name_width = max((len(n) for n in per_class), default=0)
    count_width = len(str(most))
    lines: list[str] = []
    for name, count in sorted(per_class.items(), key=lambda item: (-item[1], item[0])):
        bar = "#" * (max(1, round(_BAR * count / most)) if count else 0)
        share = count / total if total else 0.0
        lines.append(f"{name:<{name_width}}  {count:>{count_width}}  {share:>5.1%}  {bar}".rstrip())
    return lines


def label_sheet(dataset: Dataset, images: int = 12, columns: int = 4) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of labelled images, spread evenly over the data set; for an image that cannot be decoded
    others are taken in its place. Raises `DataError` when none can be decoded.
    """
    spread = np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().astype(int).tolist()
    chosen = dict.fromkeys(spread)
    tiles: list[np.ndarray] = []
    for i in [*chosen, *(i for i in range(len(dataset)) if i not in chosen)]:
        if len(tiles) == len(chosen):
            break
        record = dataset.records[i]
        try:
            pixels = record.pixels()
        except DataError:
            continue
        pixels, objects = _fit(pixels, Objects(record.boxes, record.classes, crowd=record.crowd))
        tiles.append(caption(draw_boxes(pixels, objects, dataset.class_names), Path(record.file_name).name))
    if not tiles:
        raise DataError("none of the images to be shown can be decoded; replace the damaged files")
    return contact_sheet(tiles, columns)


def _fit(pixels: UInt8[np.ndarray, "_ _ 3"], objects: Objects) -> tuple[UInt8[np.ndarray, "_ _ 3"], Objects]:
    """An image and its objects at a size in which a dozen make a sheet: about `_SHEET_SIDE` pixels."""
    factor = _SHEET_SIDE / max(pixels.shape[:2])
    if factor >= 1:
        return enlarge(pixels, objects, _SHEET_SIDE * 3 // 4)
    h, w = (max(1, round(side * factor)) for side in pixels.shape[:2])
    scale = np.array([w / pixels.shape[1], h / pixels.shape[0]] * 2, np.float32)
    return np.asarray(Image.fromarray(pixels).resize((w, h))), objects._replace(boxes=objects.boxes * scale)


def write_report(dataset: Dataset, report: DataReport, folder: Path) -> list[Path]:
    """``summary.txt``, ``labels.png`` (classes, box sizes and centres) and ``sheet.png`` (labelled images).

    The pictures are left out where there is no image that can be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / n for n in ("summary.txt", "labels.png", "sheet.png")]
    write_whole(paths[0], report.text(limit=1000) + "\n")
    if report.images:
        plot_labels(dataset, report, paths[1])
        Image.fromarray(label_sheet(dataset)).save(paths[2])
    return [path for path in paths if path.exists()]


def plot_labels(dataset: Dataset, report: DataReport, path: Path) -> None:
    """A PNG with the count of each class, where box centres lie, and how wide and high boxes are for their image.

    Where the index has the picture of an earlier run, none is drawn.
    """

    def make() -> str:
        return base64.b64encode(_draw_labels(dataset, report)).decode()

    kept = dataset.known("labels", [version("matplotlib"), *report.per_class.values()], make)
    try:
        content = base64.b64decode(kept, validate=True)
    except (TypeError, ValueError):  # somebody changed what was kept
        content = _draw_labels(dataset, report)
    write_whole(path, content)


def _draw_labels(dataset: Dataset, report: DataReport) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    columns = dataset.columns
    sizes_of_images = columns.sizes[columns.image_of[~columns.crowd]].astype(np.float64)
    relative = columns.boxes[~columns.crowd] / sizes_of_images[:, [1, 0, 1, 0]]
    names = sorted(report.per_class, key=lambda n: -report.per_class[n])[:30]
    figure = Figure(figsize=(14, 4.5), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    bars, centres, sizes = figure.subplots(1, 3)
    bars.barh(range(len(names)), [report.per_class[n] for n in names], color="#3060a0")
    size = 7 if len(names) > 12 else 10
    written = [font_for(shortened(name, _LONGEST_LABEL), size) for name in names]  # longer ones leave no room for bars
    bars.set_yticks(range(len(names)), [text for _, text in written], parse_math=False)
    for label, (font, _) in zip(bars.get_yticklabels(), written, strict=True):
        file = font.path if isinstance(font, FreeTypeFont) and isinstance(font.path, str) else None
        label.set_font(FontProperties(fname=file, size=size))
    bars.invert_yaxis()
    more = len(report.per_class) - len(names)
    bars.set_title("objects per class" + (f" (the first 30 of {len(names) + more})" if more else ""))
    if len(relative):
        centre = (relative[:, :2] + relative[:, 2:]) / 2
        centres.hist2d(centre[:, 0], centre[:, 1], bins=40, range=[[0, 1], [0, 1]], cmap="viridis", cmin=1)
        extent = (relative[:, 2:] - relative[:, :2])[:: -(-len(relative) // _MOST_DOTS)]
        sizes.scatter(extent[:, 0], extent[:, 1], s=4, alpha=0.35, color="#a04030", linewidths=0)
    for axes, title in ((centres, "box centres"), (sizes, "box sizes")):
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title)
    centres.invert_yaxis()
    centres.set(xlabel="x / image width", ylabel="y / image height")
    sizes.set(xlabel="width / image width", ylabel="height / image height")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
