"""Starting from given weights: what fits is taken, what does not is named."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp

from yolojax.config import OptimiserConfig
from yolojax.errors import CheckpointError
from yolojax.training.state import TrainState, wrap_variables
from yolojax.weights.released import flatten, load_weights, unflatten


def start_from(
    path: Path, state: TrainState, config: OptimiserConfig, total_steps: int
) -> tuple[TrainState, list[str]]:
    """A state at step 0 with every parameter of ``path`` whose name and shape match, and remarks on the others.

    ``path`` is a run directory, a released folder or a ``.safetensors`` file. Raises `CheckpointError` when it cannot
    be read or nothing in it matches.
    """
    for candidate in (path / "best" / "weights.safetensors", path / "weights.safetensors", path):
        if candidate.is_file():
            break
    else:
        raise CheckpointError(f"{path}: no weights there; give a run directory or a .safetensors file")
    given, own = flatten(load_weights(candidate)), flatten(state.variables)
    taken = {
        name: jnp.asarray(value, own[name].dtype)
        for name, value in given.items()
        if name in own and own[name].shape == value.shape
    }
    if not taken:
        raise CheckpointError(f"{candidate}: no parameter matches this detector by name and shape")
    left = sorted(set(own) - set(taken))
    remarks = [f"{len(taken)} of {len(own)} arrays taken from {candidate}"]
    if left:
        remarks.append(f"freshly initialised: {', '.join(left[:8])}{' ...' if len(left) > 8 else ''}")
    variables = unflatten({**own, **taken})
    return wrap_variables(variables, config, total_steps), remarks
