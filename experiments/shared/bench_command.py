"""``yolojax bench train`` in a process of its own. Used by two benchmarks, `throughput` and `what_pays`."""

import json
import os
import subprocess
import sys
from typing import Any

Record = dict[str, Any]
TINY = {"widths": [4, 4, 8], "depths": [0, 0, 0], "head_width": 8, "reg_max": 4, "shared_head": True}


def bench_train(program: list[str], settings: Record, options: Record, **variables: str) -> Record:
    """What ``bench train`` finds in a process of its own: of this program of Python's, with more environment variables.

    Without JAX's cache of programs: one that is loaded has no compilation to be timed.
    """
    command = [sys.executable, *program, "bench", "train", "--json", "-"]
    command += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    command += ["--option", *(f"{name}={json.dumps(value)}" for name, value in options.items())] if options else []
    around = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}
    done = subprocess.run(command, env={**around, **variables}, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)
