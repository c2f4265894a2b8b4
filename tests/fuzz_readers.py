"""Mutates files of every kind that is read and reads them: each ends in a named error or in data, soon.

Run: python -m tests.fuzz_readers --count 1000000 --seed 1            (all kinds; --kind NAME for one of them)

Half of the mutations are of bytes; the others exchange, repeat or remove what a text of that kind is made of (numbers,
words, brackets), so that they come further than the parser. What is reported: how the cases ended, the longest time of
one, and the peak of memory. A case of the kind `command_line` is a whole command in this process, one of `checkpoint`
a run's checkpoints behind which an older one is whole. Of the kinds `many_txt` and `many_voc` fifty files of one set
are mutated, and the set is read once. PyTorch files have a fuzzer of their own, `tests.weights.fuzz_pytorch`.
"""

import argparse
import contextlib
import gc
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
from PIL import Image

from yolojax.data import open_dataset
from yolojax.data.documents import load_yaml
from yolojax.data.images import read_header, read_image
from yolojax.errors import CheckpointError, ConfigError, YolojaxError
from yolojax.eval.coco import read_both
from yolojax.weights.darknet_cfg import read_cfg
from yolojax.weights.foreign import read_weight_file
from yolojax.weights.yolox import read_yolox

TOGETHER = 50
"""Files of one set that are mutated and read together: what a set takes to be found is then paid once for all."""

SLOW = 5.0
"""Seconds of the processor that no case may take, so that a busy machine changes nothing."""

ATOMS = [
    *(b"0", b"-1", b"1e400", b"NaN", b"Infinity", b"9" * 400, b"1_0", b"0x10", b"-7e-44", b"1e308", b"null", b"true"),
    *(b'""', b'"a"', b"[]", b"{}", b"[" * 300, b'"\\ud800"', b"\xff", b"\0", b"..", b"/", b"\\", b"\xe2\x80\xae"),
    *(b"&a", b"*a", b"!!python/object:os.system", b"<<: *a", b"<!ENTITY a 'b'>", b"&lt;", b"]]>", b"=", b"#", b"\n"),
]

NUMBERS = [
    *(b"0", b"-1", b"-0.0", b"0.5", b"1.5", b"2", b"3", b"7", b"1e9", b"2e9", b"1e300", b"1e400", b"NaN", b"null"),
    *(b"9007199254740993", b"9223372036854775807", b"9" * 5000, b"true", b'"1"', b"[]", b"{}", b"1e-320", b"00"),
]

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 8], "area": 72, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "cat", "supercategory": "none"}],
}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 8], "score": 0.5, "file_name": "a.png"}] * 2
XML = (
    '<?xml version="1.0" encoding="utf-8"?><annotation><filename>a.png</filename><size><width>20</width>'
    "<height>10</height></size><object><name>cat</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)
CFG = (
    "[net]\nwidth=32\nheight=32\nchannels=3\n\n[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\n"
    "activation=leaky\n\n[maxpool]\nsize=2\nstride=2\n\n[route]\nlayers=-1\n\n[convolutional]\nfilters=18\nsize=1\n"
    "activation=linear\n\n[yolo]\nmask=0,1,2\nanchors=1,2, 3,4, 5,6\nclasses=1\nnum=3\n"
)


class Kind(NamedTuple):
    """A kind of file.

    Fields:
      file: its name on disk.
      contents: what is mutated.
      read: what reads it; returns how many files it left out where it reads several.
      is_valid: whether the contents can be read as they are.
      beside: names of files of the same kind that are mutated as well, and read together with it.
    """

    file: str
    contents: list[bytes]
    read: Callable[[Path], object]
    is_valid: bool = True
    beside: tuple[str, ...] = ()


def kinds(folder: Path, wanted: str | None = None) -> dict[str, Kind]:
    """All kinds; ``folder`` gets what stands beside the file that is mutated. Of those that need JAX the contents are
    made for the one that is wanted alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 3), np.uint8)
    images: list[bytes] = []
    for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "tga"):
        Image.fromarray(pixels).save(folder / f"x.{suffix}")
        images.append((folder / f"x.{suffix}").read_bytes())
        (folder / f"x.{suffix}").unlink()

    def sub(name: str, count: int = 1) -> Path:
        (folder / name / "images").mkdir(parents=True)
        for image in _names(count):
            Image.fromarray(pixels).save(folder / name / "images" / f"{image}.png")
        return folder / name

    _, voc, yolo, txt = (sub(name) for name in ("coco", "voc", "yolo", "txt"))
    many_voc, many_txt = (sub(name, TOGETHER) for name in ("many_voc", "many_txt"))
    truth = folder / "truth.json"
    truth.write_text(json.dumps(COCO))
    for place in (voc, many_voc):
        (place / "Annotations").mkdir()
    for place in (yolo, txt, many_txt):
        (place / "labels").mkdir()
        (place / "labels" / "a.txt").write_text("0 .5 .5 .4 .4\n")
    for place in (txt, many_txt):
        (place / "data.yaml").write_text("names: [cat, dog]\ntrain: images\n")
    yaml = b"path: .\ntrain: images\nval: [images, ./images]\nnc: 2\nnames: {0: cat, 1: dog}\nx: &a [1]\ny: *a\n"

    def image(path: Path) -> None:
        read_header(path)
        read_image(path)

    def opened(root: Path) -> Callable[[Path], object]:
        return lambda _: (open_dataset(root), open_dataset(root, skip_bad=True).to_coco())

    def left_out(root: Path) -> Callable[[Path], int]:
        def read(_: Path) -> int:
            dataset = open_dataset(root, skip_bad=True)
            assert all(len(finding.where) + len(finding.detail) < 2000 for finding in dataset.summary.findings)
            return TOGETHER - len(dataset.to_coco()["images"])

        return read

    xml = [XML.encode(), XML.replace("utf-8", "utf-16").encode("utf-16")]
    row = [b"0 .5 .5 .4 .4\n1 .1 .1 .2 .1 .3 .3\n"]

    def many(root: Path, inner: str, suffix: str, contents: list[bytes]) -> Kind:
        first, *others = (f"{root.name}/{inner}/{name}{suffix}" for name in _names(TOGETHER))
        return Kind(first, contents, left_out(root), beside=tuple(others))

    return {
        "coco": Kind("coco/x.json", [json.dumps(COCO).encode()], lambda path: open_dataset(path).to_coco()),
        "truth": Kind("t.json", [json.dumps(COCO).encode()], lambda path: read_both(path, [])),
        "results": Kind("r.json", [json.dumps(RESULTS).encode()], lambda path: read_both(truth, path)),
        "voc": Kind("voc/Annotations/a.xml", xml, opened(voc)),
        "many_voc": many(many_voc, "Annotations", ".xml", xml),
        "yaml": Kind("yolo/data.yaml", [yaml], lambda path: (load_yaml(path), open_dataset(path))),
        "txt": Kind("txt/labels/a.txt", row, opened(txt)),
        "many_txt": many(many_txt, "labels", ".txt", row),
        "image": Kind("i.png", images, image),
        "cfg": Kind("n.cfg", [CFG.encode()], read_cfg),
        "safetensors": Kind("w.safetensors", _safetensors(folder), read_weight_file),
        "onnx": Kind("w.onnx", _onnx(), read_weight_file),
        "npz": Kind("w.npz", _npz(folder), _read_npz, is_valid=False),  # no weights of a YOLOX
        "checkpoint": _checkpoint(folder, wanted == "checkpoint"),
        "released": _released(folder, wanted == "released"),
        "command_line": _command_line(folder, wanted == "command_line"),
    }


def _names(count: int) -> list[str]:
    """The names of a set's images: ``a``, ``a1``, ``a2`` and so on."""
    return ["a", *(f"a{number}" for number in range(1, count))]


def _checkpoint(folder: Path, is_wanted: bool) -> Kind:
    """Files of a checkpoint behind which an older one is whole, under a manifest that agrees: there is always data."""
    if not is_wanted:
        return Kind("checkpoint.bin", [], lambda path: None)
    import jax.numpy as jnp

    from yolojax.training.checkpoint import MANIFEST, restore_newest, save_checkpoint, write_manifest
    from yolojax.training.log import EpochLog
    from yolojax.training.run_state import Best, RunState

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the command does; orbax logs what it raises
    place = folder / "checkpoints"
    state = {"params": {"kernel": jnp.arange(6.0).reshape(2, 3)}, "step": jnp.int32(1)}
    run_state = RunState("a", None, {"ema": Best(0.5, 1, 1)}, EpochLog()).to_dict()
    for step in (1, 2):
        save_checkpoint(place, step, {**state, "step": jnp.int32(step)}, run_state)
    newest = place / "00000002"
    kept = {p.relative_to(newest): p.read_bytes() for p in sorted(newest.rglob("*")) if p.is_file()}

    def read(path: Path) -> None:
        content = path.read_bytes()
        # The file that it was made from is the one with which it shares its longest beginning.
        name = max(kept, key=lambda name: _shared(kept[name], content))
        shutil.rmtree(place, ignore_errors=True)
        save_again(place)
        (newest / name).write_bytes(content)
        if name.name != MANIFEST:
            write_manifest(newest)
        found = restore_newest(place, state, check_facts=RunState.from_dict)
        assert found is not None and int(found[0]["step"]) in (1, 2)
        if found[2]:
            raise CheckpointError(found[2][0])

    whole_copy = folder / "whole"
    shutil.copytree(place, whole_copy)

    def save_again(target: Path) -> None:
        shutil.copytree(whole_copy, target)

    return Kind("checkpoint.bin", [content for content in kept.values() if content], read, is_valid=False)


def _shared(one: bytes, other: bytes) -> int:
    """The length of their common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(one), len(other)))


def _released(folder: Path, is_wanted: bool) -> Kind:
    """The description of a released detector, and its weights with and without one inside."""
    if not is_wanted:
        return Kind("released.bin", [], lambda path: None)
    import jax
    from safetensors.numpy import save

    from yolojax import zoo
    from yolojax.inference.loading import load_detector, load_origin
    from yolojax.weights.released import TEXT, WEIGHTS, flatten, save_released

    options = {"widths": [4, 4, 4], "depths": [0, 0, 0], "head_width": 4, "reg_max": 2, "csp": False}
    detector = zoo.build("compact", ("cat", "dog"), (32, 32), **options)
    variables = jax.device_get(detector.init(jax.random.key(0)))
    place = folder / "released"
    save_released(place, variables, {"detector": zoo.describe(detector), "training": {"step": 1}})
    bare = save({name: np.asarray(value) for name, value in flatten(variables).items()})
    text, stated = (place / TEXT).read_bytes(), (place / WEIGHTS).read_bytes()

    def read(path: Path) -> None:
        content = path.read_bytes()
        is_text = content[:1] == b"{"
        (place / TEXT).write_bytes(content if is_text else text)
        (place / WEIGHTS).write_bytes(bare if is_text else content)
        load_detector(place)
        load_origin(place)

    return Kind("released.bin", [text, text, text, stated, bare], read)


COMMANDS = [
    "train nowhere --size 64 --epochs 2 --batch-size 4 --minutes 3 --option widths=[8,8,16] scale=n --seed 7",
    "train nowhere --augment.hue 0.1 --augment.mosaic 0.5 --optimiser.learning-rate 0.01 --hyper lambda_box=2",
    "train nowhere --fraction 0.5 --multi-scale 2 --final-share 0.1 --freeze backbone --accumulate 2 --patience 3",
    "predict x.png --model none.npz --size 64 --confidence 0.3 --iou 0.5 --max-detections 30",
    "val --model none.npz --data t.json --confidence 0.3 --batch-size 2",
    "eval t.json d.json --confidence 0.3 --box-format letterbox640-xyxy --samples 10 --seed 3 --ties canonical",
    "eval t.json d.json --category-ids less-one --image-ids names --score-format percent --unknown count --dense",
    "data check t.json --images images --split val",
    "data tile t.json --out tiles --tile 64 --overlap 0.2 --visible 0.4",
    "data convert t.json --out converted --to yolo --images images",
    "anchors t.json --levels 1 --per-level 1 --size 64 --seed 3",
    "info compact --classes 3 --size 64 --option head_width=8",
    "export --model none.npz --batch 1 --confidence 0.3 --iou 0.5 --max-detections 30",
    "diagnose --precision 0.5 --recall 0.3 --ap50 0.4 --ap 0.2",
    "models yolov8 --nothing 3",
]


def _command_line(folder: Path, is_wanted: bool) -> Kind:
    """Arguments, one a line; the command ends with 0, or says in a few lines what is wrong and ends with 2."""
    if not is_wanted:
        return Kind("arguments", [], lambda path: None)
    from yolojax.cli import main

    place = folder / "command" / "inner"
    (place / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(place / "images" / "a.png")
    (place / "t.json").write_text(json.dumps(COCO))
    (place / "d.json").write_text(json.dumps(RESULTS))

    def read(path: Path) -> None:
        arguments = [os.fsdecode(line.replace(b"\0", b"")) for line in path.read_bytes().split(b"\n")]
        here, said = Path.cwd(), io.StringIO()
        os.chdir(place)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                code = main(arguments)
        except SystemExit as stop:  # help, or arguments of which there are none
            code = stop.code
        finally:
            os.chdir(here)
            for made in ("tiles", "converted", "runs"):
                shutil.rmtree(place / made, ignore_errors=True)
        assert code in (0, 2, None), code
        if code == 2:
            assert 0 < len(said.getvalue()) < 20_000, len(said.getvalue())
            raise ConfigError("refused")

    return Kind("arguments", ["\n".join(line.split()).encode() for line in COMMANDS], read, is_valid=False)


def _safetensors(folder: Path) -> list[bytes]:
    from safetensors.numpy import save

    tensors = {"a.weight": np.zeros((2, 3), np.float32), "a.bias": np.zeros(2, np.float16)}
    return [save(tensors), save(tensors, {"names": "{0: 'cat'}", "stride": "[8, 16]"})]


def _onnx() -> list[bytes]:
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return []
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w")
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 8, 8]) for n, c in (("x", 3), ("y", 4))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", made[:1], made[1:], [weight])
    return [helper.make_model(graph).SerializeToString()]


def _npz(folder: Path) -> list[bytes]:
    path = folder / "x.npz"
    np.savez_compressed(path, **{"backbone.stem.conv.weight": np.zeros((2, 3), np.float32), "n": np.arange(3)})
    content = path.read_bytes()
    path.unlink()
    member = io.BytesIO()
    np.save(member, np.zeros((2, 3), np.float32))
    return [content, member.getvalue()]


def _read_npz(path: Path) -> None:
    """Reads an archive; a member of one is put into a whole archive first, whose checksums it otherwise fails."""
    content = path.read_bytes()
    if not content.startswith(b"PK"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("backbone.stem.conv.weight.npy", content)
    read_yolox(path)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One or two changes, of bytes or of the words, numbers and marks of a text."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        if rng.random() < 0.5:
            parts = re.findall(rb"\s+|[\w.+-]+|[^\w\s]", content)
            if not parts:
                continue
            at, kind = rng.randrange(len(parts)), rng.randrange(4)
            if rng.random() < 0.6:  # a number for a number, a text for a text: what the parser lets through
                numbers = [k for k, part in enumerate(parts) if re.fullmatch(rb"-?[\d.]+", part)]
                words = [k for k, part in enumerate(parts) if re.fullmatch(rb"[A-Za-z_]+", part)]
                if numbers and rng.random() < 0.7:
                    parts[rng.choice(numbers)] = rng.choice(NUMBERS)
                elif words:
                    parts[rng.choice(words)] = rng.choice(
                        [*(parts[k] for k in words), b"x" * 600, "\u732b\u0301".encode()]
                    )
            elif kind == 0:
                parts[at] = rng.choice(ATOMS)
            elif kind == 1:
                parts[at] = parts[rng.randrange(len(parts))]
            elif kind == 2:
                del parts[at : at + rng.choice((1, 1, 4))]
            else:
                parts[at:at] = parts[at : at + rng.choice((1, 4, 16))] * rng.choice((1, 2, 200))
            content = b"".join(parts)
        else:
            data = bytearray(content)
            at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 32))
            kind = rng.randrange(4)
            if kind == 0 and at < len(data):
                data[at] = rng.randrange(256)
            elif kind == 1:
                data[at : at + length] = rng.randbytes(rng.choice((0, length)))
            elif kind == 2:
                data[at:at] = data[at : at + length] * rng.choice((1, 64))
            else:
                data[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
            content = bytes(data)
    return content[: rng.randrange(len(content) + 1)] if rng.random() < 0.05 else content


class _TooLongError(Exception):
    pass


def _of_its_image(content: bytes, path: Path) -> bytes:
    """A file that names its image, naming the one of its own name."""
    for encoding in ("utf-8", "utf-16-le"):
        content = content.replace("a.png".encode(encoding), f"{path.stem}.png".encode(encoding))
    return content


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise _TooLongError(f"after {SLOW:g} s in {traceback.extract_stack(frame)[-1] if frame else 'native code'}")


@contextlib.contextmanager
def silent_leftovers() -> Iterator[None]:
    """Reads that end in an error leave files and event loops open, which warn when they are freed, whenever that is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield
        finally:
            gc.collect()


@silent_leftovers()
def fuzz(kind: str, count: int, seed: int, folder: Path, say: Callable[[str], None]) -> tuple[int, float]:
    """The number of cases that ended otherwise than they may, each of which is said, and the longest time of one."""
    file, contents, read, is_valid, beside = kinds(folder, kind)[kind]
    files = [folder / name for name in (file, *beside)]
    path, rng, wrong, longest = folder / file, random.Random(f"{kind} {seed}"), 0, 0.0
    ends: Counter[str] = Counter()
    for content in contents if is_valid else ():
        for each in files:
            each.write_bytes(_of_its_image(content, each) if beside else content)
        read(path)
    before = signal.signal(signal.SIGPROF, _stop)
    try:
        for number in range(0, count if contents else 0, len(files)):
            for each in files:
                content = mutate(rng.choice(contents), rng)
                each.write_bytes(_of_its_image(content, each) if beside else content)
            began = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SLOW)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Pillow warns of odd metadata
                    found = read(path)
                refused = found if beside and isinstance(found, int) else 0
                ends["read"] += len(files) - refused
                ends["refused"] += refused
            except YolojaxError as error:
                ends["refused"] += len(files)
                assert 0 < len(str(error)) < 2000, len(str(error))
            except Exception as error:  # whatever escapes is what is sought
                wrong += 1
                kept = Path(tempfile.gettempdir()) / f"fuzz_{kind}_{seed}_{number}"
                kept.mkdir(exist_ok=True)
                for each in files:
                    shutil.copy(each, kept)
                last = traceback.extract_tb(error.__traceback__)[-1]
                say(f"{kind} case {number} ({kept}): {type(error).__name__}: {str(error)[:200]} at {last}")
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            longest = max(longest, time.process_time() - began)
    finally:
        signal.signal(signal.SIGPROF, before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if not ends:
        say(f"{kind}: not run; its package is not installed")
        return wrong, longest
    say(f"{kind}: {dict(ends)}, {wrong} wrong; the longest {longest:.3f} s; peak of the process {peak} MiB")
    return wrong, longest


def main() -> int:
    """Reads the cases; returns 1 if any ended as it must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=3000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", help="one kind only")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as first:
        names = [options.kind] if options.kind else list(kinds(Path(first)))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            wrong += fuzz(name, options.count, options.seed, Path(folder), lambda line: print(line, flush=True))[0]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
