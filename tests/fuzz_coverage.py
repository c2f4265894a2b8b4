"""Looks for inputs of the readers that reach new code, by libFuzzer through `atheris` (extra ``fuzz``).

Run: python -m tests.fuzz_coverage --kind yaml --seconds 600

The kinds and their rules are those of `tests.fuzz_readers`, whose mutations take turns with libFuzzer's own. A case
ends in data or in a named error, soon. The first that does not ends the search: with exit code 77 and its traceback, or
with 70 after half a minute of the clock. Its input lies in the temporary folder, as does the folder of the cases. Cases
that reach new lines of the project stay in ``--corpus``, where a later search begins.
"""

import argparse
import os
import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["yolojax"]):
    from tests.fuzz_readers import SLOW, kinds, mutate
    from yolojax.errors import YolojaxError

MEMORY = 2000
"""Megabytes that the process may take."""


def main() -> None:
    """Searches; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kind", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder that is read and added to (default: a temporary one)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    with atheris.instrument_imports(include=["yolojax"]):  # some readers are imported by their first call
        known = {name: kind for name, kind in kinds(folder, options.kind).items() if not kind.beside}
    if options.kind not in known:
        parser.error(f"--kind is one of {', '.join(known)}")
    file, contents, read, *_ = known[options.kind]
    if not contents:
        parser.error(f"{options.kind} is not run; its package is not installed")
    path, corpus = folder / file, options.corpus or folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents):
        (corpus / f"valid{number}").write_bytes(content)

    def read_one(data: bytes) -> None:
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata
            try:
                read(path)
            except YolojaxError as error:
                assert 0 < len(str(error)) < 2000, len(str(error))

    def mutate_one(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return mutate(data, rng)[:most] if rng.random() < 0.5 else atheris.Mutate(data, most)

    settings = {
        "max_total_time": options.seconds,
        "seed": options.seed,
        "timeout": int(6 * SLOW),  # of the clock, on a machine that may be busy
        "rss_limit_mb": MEMORY,
        "max_len": 4 * max(map(len, contents)) + 1000,
        "artifact_prefix": os.path.join(tempfile.gettempdir(), f"fuzz_{options.kind}_"),
        "print_final_stats": 1,
        "verbosity": 0,
    }
    flags = [f"-{name}={value}" for name, value in settings.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], read_one, custom_mutator=mutate_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
