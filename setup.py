"""Packaging of two source trees as one import name; everything else is in pyproject.toml.

`eval/` lies at the top level of the repository and is imported as `yolojax.eval`: a top-level module called `eval` in
site-packages would clash with every user's own `eval.py`.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["yolojax", "yolojax.*"])
    + ["yolojax." + n for n in find_packages(include=["eval", "eval.*"])],
    package_dir={"yolojax.eval": "eval"},
)
