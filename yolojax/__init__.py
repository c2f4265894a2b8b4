"""yolojax: YOLO object detection as pure functions in JAX.

The public names are few: ``load`` (a trained detector to a ``Predictor``), ``fit`` (train from a configuration) and
``evaluate`` (a COCO-style evaluation of a detector on a data set). They are imported on first use, so that
``import yolojax.boxes`` costs no more than JAX itself. Everything else lives in the submodules.
"""

import pathlib as _pathlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:  # editors and type checkers see the signatures without the import at run time
    from yolojax.inference.evaluate import evaluate as evaluate
    from yolojax.inference.predict import load as load
    from yolojax.training.fit import fit as fit

__version__ = "0.1.0"
__all__ = ["evaluate", "fit", "load"]

# In a checkout `eval/` stands beside this package and is imported as `yolojax.eval`; installed, it is a real subpackage
# and this adds nothing.
_root = _pathlib.Path(__file__).resolve().parent.parent
if not (_root / "yolojax" / "eval").exists() and (_root / "eval" / "__init__.py").exists():
    __path__.append(str(_root))


def __getattr__(name: str) -> _Any:
    if name == "load":
        from yolojax.inference.predict import load

        return load
    if name == "fit":
        from yolojax.training.fit import fit

        return fit
    if name == "evaluate":
        from yolojax.inference.evaluate import evaluate

        return evaluate
    raise AttributeError(f"module 'yolojax' has no attribute {name!r}{_advice(name)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _advice(name: str) -> str:
    """What to write instead of a name that is not here: a submodule has to be imported, a misspelt name is mended."""
    import difflib
    import importlib.util

    if name.startswith("_"):  # asked for by tools, not by people
        return ""
    if importlib.util.find_spec(f"yolojax.{name}") is not None:
        return f"; it is a module: from yolojax import {name}"
    near = difflib.get_close_matches(name, __all__, 1)
    return f": did you mean {near[0]}?" if near else f"; it has {', '.join(__all__)} and its submodules"
