"""Computes yolojax/catalogue.json: parameters and operations of every architecture and scale, from its builder.

Run: python -m tests.zoo.make_catalogue [NAME ...]      (with names, those alone are redone; all take some minutes)
"""

import json
import sys
from pathlib import Path

import yolojax.catalogue
from yolojax import zoo
from yolojax.catalogue import CATALOGUE, Entry
from yolojax.detector import variable_shapes

FILE = Path(yolojax.catalogue.__file__).with_name("catalogue.json")


def count(entry: Entry, scale: str) -> tuple[int, int]:
    """Parameters and floating-point operations of one image; nothing is computed, shapes are enough."""
    variant, names = entry.variants[scale], tuple(f"class{i}" for i in range(entry.classes))
    options = {**entry.options, **({"scale": scale} if scale else {})}
    detector = zoo.build(entry.name, names, (variant.size, variant.size), **options)
    shapes = variable_shapes(detector)
    return zoo.parameter_count(shapes), zoo.forward_flops(detector)


def main(names: list[str]) -> None:
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    counts = {}
    for entry in CATALOGUE:
        for scale in entry.variants:
            name = entry.model(scale)
            again = name not in known or not names or name in names or entry.name in names
            counts[name] = list(count(entry, scale)) if again else known[name]
            print(name, *counts[name], flush=True)
    FILE.write_text("{\n" + ",\n".join(f' "{name}": {json.dumps(row)}' for name, row in counts.items()) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
