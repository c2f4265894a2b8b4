"""The 80 classes of COCO (arXiv 1405.0312) by their official names, in the order of their ids."""

from collections.abc import Sequence
from pathlib import Path

from yolojax.errors import ConfigError

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush
"""

COCO_CLASSES: tuple[str, ...] = tuple(" ".join(name.split()) for name in _NAMES.split(","))

_UNUSED = {
    12: "street sign",
    26: "hat",
    29: "shoe",
    30: "eye glasses",
    45: "plate",
    66: "mirror",
    68: "window",
    69: "desk",
    71: "door",
    83: "blender",
}
"""Categories of the paper that no annotation has, by their ids."""

_used = iter(COCO_CLASSES)
COCO_CLASSES_90: tuple[str, ...] = tuple(_UNUSED.get(i) or next(_used) for i in range(1, 91))
"""The categories by their ids from 1 to 90, which networks of torchvision predict: the 80, and ten without objects."""


def classes_of_file(path: str | Path, count: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of a weight file's ``count`` classes: those given, or COCO's where there are 80 and none are given.

    Raises `ConfigError` for names that are not as many as the classes.
    """
    if names is None and count == len(COCO_CLASSES):
        names = COCO_CLASSES
    if names is None or len(names) != count:
        said = "none are given" if names is None else f"{len(names)} are given"
        raise ConfigError(
            f"{path}: has {count} classes, and {said}; give class_names, one for each, or a text file "
            "of names, one a line, besides (--model best.pt my.names)"
        )
    return tuple(names)
