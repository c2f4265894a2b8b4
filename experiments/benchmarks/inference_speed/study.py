"""How long does inference take on a processor, and how do OpenCV, onnxruntime and PyTorch compare on the same machine?

Question: the same network with the same weights on the same two threads: is the compiled JAX program as fast as the
runtimes that people deploy with, at batch 1 and 8, and where does its time go?

Method: YOLOX-Nano at 416 x 416 (published weights, BatchNorm folded) in our compiled program, PyTorch channels-last
(eager, and traced and frozen), onnxruntime and OpenCV DNN, both on the ONNX file that PyTorch exports;
YOLOv8n at 640 x 640 (drawn parameters, BatchNorm folded, the score thresholds of all leave nothing to suppress) in the
same runtimes but OpenCV; Yolo-Fastest-1.1-xl at 320 x 320 in our compiled program and in OpenCV DNN, which reads the
same Darknet files. Our programs are compiled as `yolojax predict` compiles them. Every
runtime has a process of its own, so that no thread pool spins beside another, and the processes take turns: ROUNDS
rounds, each a warm-up, then repeated calls for a fixed time. A figure is the median over rounds of a round's median
call, in milliseconds of the clock. `network` is from the prepared image (float32) to the raw predictions; `image` is
from a uint8 input image to detections (confidence .25, IoU .45), which is one program here, and network, decoding and
torchvision's NMS there. Before any timing, the raw predictions are compared with ours on the same random image.
`profile` sums the time of our program's operations by kind, over all threads, as JAX's profiler tells it.

Command:   python -m experiments.benchmarks.inference_speed --weights FOLDER [--peers PYTHON]
           FOLDER holds yolox-nano/ and yolo-fastest-1.1_coco/; PYTHON is an interpreter with torch, torchvision,
           onnxruntime, onnx and opencv-python-headless 4 (by default this one).
Expected:  about eight minutes on two idle cores; see experiments/benchmarks/inference_speed/README.md.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import collections
import datetime
import glob
import gzip
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.shared.record import write_page

RESULTS = Path(__file__).parent
NANO, V8N, FASTEST = "YOLOX-Nano 416", "YOLOv8n 640", "Yolo-Fastest-1.1-xl 320"
RUNTIMES = {
    NANO: ("yolojax", "torch", "torch frozen", "onnxruntime", "opencv"),
    V8N: ("yolojax", "torch", "torch frozen", "onnxruntime"),
    FASTEST: ("yolojax", "opencv"),
}
SIDES = {NANO: 416, V8N: 640, FASTEST: 320}
CLASSES = 80
PEERS = ("torch", "torch frozen", "onnxruntime", "opencv")
THREADS, ROUNDS, SECONDS = 2, 6, 1.0

Call = Callable[[], Any]


def images(batch: int, side: int) -> np.ndarray:
    """The same random input images for every runtime: RGB, uint8."""
    return np.random.default_rng(0).integers(0, 256, (batch, side, side, 3)).astype(np.uint8)


def files(weights: Path) -> dict[str, Path]:
    folder = weights / "yolo-fastest-1.1_coco"
    return {
        "npz": weights / "yolox-nano" / "yolox_nano_fused.npz",
        "cfg": folder / "yolo-fastest-1.1-xl.cfg",
        "weights": folder / "yolo-fastest-1.1-xl.weights",
    }


def ours(model: str, batch: int, weights: Path) -> dict[str, Call]:
    """As `yolojax predict` does it: freed memory is kept, and where cores can share a batch, each is a device."""
    import jax
    import jax.numpy as jnp

    from yolojax import zoo
    from yolojax.detect import detect
    from yolojax.detector import fold_on_host, prepare_images
    from yolojax.image_wise import by_image
    from yolojax.processor.inference import inference_options, traced_for_detection
    from yolojax.processor.memory import prepare_processor
    from yolojax.sharding.batches import on_all_devices, split_over_devices

    prepare_processor(batch)
    where = files(weights)
    if model == NANO:
        detector, variables = zoo.from_yolox(where["npz"])
    elif model == V8N:
        detector, variables = drawn_yolov8n()
    else:
        detector, variables = zoo.from_darknet(where["cfg"], where["weights"], size=320, epsilon=1e-6)  # OpenCV's
    variables = jax.device_put(fold_on_host(detector, variables))
    inputs = images(batch, SIDES[model])
    prepared = jax.jit(lambda x: prepare_images(x, detector.spec.preprocess))(jnp.asarray(inputs))

    def from_input(x: Any, v: Any, c: Any, i: Any) -> Any:
        return detect(detector, v, x, c, i, max_detections=100)

    def network(x: Any, v: Any) -> Any:
        return detector.forward(v, x)

    split = split_over_devices(batch)
    if split is not None:
        variables, prepared = on_all_devices(variables, split), jax.device_put(prepared, split)
        from_input, network = by_image(from_input, split, shared=3), by_image(network, split, shared=1)
    whole, forward = (
        jax.jit(traced_for_detection(call), compiler_options=inference_options()) for call in (from_input, network)
    )

    def raw() -> np.ndarray:
        outputs = forward(prepared, variables)
        if model == FASTEST:
            return np.concatenate([np.asarray(x).reshape(batch, -1) for x in outputs], 1)
        if model == V8N:
            levels = [np.concatenate([x.reshape(*x.shape[:3], -1) for x in level], -1) for level in outputs]
            return np.concatenate([level.reshape(batch, -1, level.shape[-1]) for level in levels], 1)
        parts = []
        for box, objectness, cls in outputs:
            level = np.concatenate([box, jax.nn.sigmoid(objectness), jax.nn.sigmoid(cls)], -1)
            parts.append(level.reshape(batch, -1, level.shape[-1]))
        return np.concatenate(parts, 1)

    return {
        "network": lambda: jax.block_until_ready(forward(prepared, variables)),
        "image": lambda: jax.device_get(whole(inputs, variables, np.float32(0.25), np.float32(0.45))),
        "raw": raw,
        "profile": lambda: profile(lambda: jax.block_until_ready(forward(prepared, variables))),
    }


def drawn_yolov8n() -> tuple[Any, Any]:
    """YOLOv8n with parameters and statistics of its normalisation drawn from a seed."""
    import jax

    from yolojax import zoo

    detector = zoo.build("yolov8", tuple(map(str, range(CLASSES))), (SIDES[V8N], SIDES[V8N]))
    variables = detector.init(jax.random.key(0))
    random = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: random.uniform(0.5, 1.5, x.shape).astype(np.float32), variables["batch_stats"])
    return detector, {**variables, "batch_stats": stats}


def write_yolov8n(path: Path) -> None:
    """Those parameters by their published names, for the runtimes that load them."""
    from yolojax import zoo

    np.savez(path, allow_pickle=False, **zoo.to_state_dict(*drawn_yolov8n()))


def profile(call: Call, repeats: int = 10) -> dict[str, float]:
    """Milliseconds of one call by kind of operation: matrix products, convolutions, the rest by what it fuses."""
    import jax

    call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                call()
        (path,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    spent: collections.Counter[str] = collections.Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            spent[re.sub(r"(\.\d+)+$", "", event["name"])] += event["dur"] / 1e3 / repeats
    return {name: round(value, 3) for name, value in spent.most_common(12)}


def torch_network(model: str, weights: Path, drawn: Path) -> Any:
    import torch

    from experiments.benchmarks.inference_speed.torch_yolov8n import load
    from experiments.benchmarks.inference_speed.torch_yolox import TorchYOLOX

    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    if model == V8N:
        with np.load(drawn) as arrays:
            return load(dict(arrays), CLASSES)
    with np.load(files(weights)["npz"]) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    network = TorchYOLOX(80, width=16, n=1, depthwise=True, folded=True).eval()
    network.load_state_dict(state)
    return network


def torch_detections(model: str, raw: Any) -> list[Any]:
    """The usual decoding and post-processing of YOLOX in PyTorch."""
    import torch
    import torchvision

    from experiments.benchmarks.inference_speed.torch_yolov8n import detections

    if model == V8N:
        return detections(raw, SIDES[V8N])
    cells, strides = [], []
    for stride in (8, 16, 32):
        n = SIDES[NANO] // stride
        y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        cells.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((n * n, 1), float(stride)))
    cell, stride = torch.cat(cells), torch.cat(strides)
    out = []
    for one in raw:
        centre, half = (one[:, :2] + cell) * stride, one[:, 2:4].exp() * stride / 2
        boxes = torch.cat([centre - half, centre + half], 1)
        score, label = (one[:, 4:5] * one[:, 5:]).max(1)
        row = torch.nonzero(score >= 0.25)[:, 0]
        keep = torchvision.ops.batched_nms(boxes[row], score[row], label[row], 0.45)[:100]
        out.append((boxes[row][keep], score[row][keep], label[row][keep]))
    return out


def theirs(runtime: str, model: str, batch: int, weights: Path, onnx: Path) -> dict[str, Call]:
    inputs = images(batch, SIDES[model])
    if model == NANO:
        blob = inputs[..., ::-1].astype(np.float32).transpose(0, 3, 1, 2).copy()
    else:
        blob = (inputs.astype(np.float32) / 255).transpose(0, 3, 1, 2).copy()
    if runtime.startswith("torch"):
        import torch

        network = torch_network(model, weights, drawn_file(onnx)).to(memory_format=torch.channels_last)
        tensor = torch.from_numpy(blob).contiguous(memory_format=torch.channels_last)
        if runtime == "torch frozen":
            network = torch.jit.optimize_for_inference(torch.jit.trace(network, tensor))
        pixels = torch.from_numpy(inputs)

        def image() -> list[Any]:
            planes = pixels.permute(0, 3, 1, 2)
            return torch_detections(model, network(planes.flip(1).float() if model == NANO else planes.float() / 255))

        return {"network": lambda: network(tensor), "image": image, "raw": lambda: network(tensor).numpy()}
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        run = lambda: session.run(None, {"images": blob})[0]  # noqa: E731
        return {"network": run, "raw": run}
    import cv2  # pyright: ignore[reportMissingImports]

    cv2.setNumThreads(THREADS)
    where = files(weights)
    if model == NANO:
        net = cv2.dnn.readNetFromONNX(str(onnx))
        names = net.getUnconnectedOutLayersNames()
    else:
        net = cv2.dnn.readNetFromDarknet(str(where["cfg"]), str(where["weights"]))
        heads = [n for n in net.getLayerNames() if net.getLayer(n).type == "Region"]
        # Before each comes a layer that moves the channels to the end: our order already.
        names = [net.getLayerNames()[net.getLayerNames().index(n) - 1] for n in heads]

    def run_opencv() -> Any:
        net.setInput(blob)
        return net.forward(names)

    def raw_opencv() -> np.ndarray:
        outputs = run_opencv()
        if model == NANO:
            return outputs[0]
        finest_first = sorted(outputs, key=lambda x: -x.size)
        return np.concatenate([x.reshape(batch, -1) for x in finest_first], 1)

    return {"network": run_opencv, "raw": raw_opencv}


def drawn_file(onnx: Path) -> Path:
    """Where the drawn parameters of YOLOv8n lie, beside the ONNX file."""
    return onnx.with_name("yolov8n.npz")


def export_onnx(model: str, weights: Path, batch: int, path: Path) -> None:
    """For one batch size: OpenCV takes a file of any batch size to be one of 1."""
    import torch

    torch.onnx.export(
        torch_network(model, weights, drawn_file(path)),
        (torch.zeros(batch, 3, SIDES[model], SIDES[model]),),
        str(path),
        input_names=["images"],
        output_names=["outputs"],
        opset_version=17,
        dynamo=False,
    )


def work(args: argparse.Namespace) -> None:
    """What a process of one runtime does: answer each line of standard input with one line of JSON."""
    if args.runtime == "export":
        export_onnx(args.model, args.weights, args.batch, args.onnx)
        return
    if args.runtime == "yolojax":
        calls = ours(args.model, args.batch, args.weights)
    else:
        calls = theirs(args.runtime, args.model, args.batch, args.weights, args.onnx)
    for line in sys.stdin:
        what = line.strip()
        if what == "raw":
            np.save(args.onnx.with_name("raw.npy"), calls["raw"]())
            print("{}", flush=True)
        elif what == "profile":
            print(json.dumps(calls["profile"]()), flush=True)
        else:
            print(
                json.dumps({name: median_ms(calls[name]) for name in ("network", "image") if name in calls}), flush=True
            )


def median_ms(call: Call) -> float:
    for _ in range(3):
        call()
    taken, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(taken) < 5:
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


class Worker:
    """A process of one runtime, with the network loaded and waiting."""

    def __init__(self, runtime: str, model: str, batch: int, args: argparse.Namespace, onnx: Path) -> None:
        python = args.peers if runtime in PEERS or runtime == "export" else sys.executable
        command = [python, "-W", "ignore", "-m", "experiments.benchmarks.inference_speed", "--weights", args.weights]
        command += ["--runtime", runtime, "--model", model, "--batch", batch, "--onnx", onnx]
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": os.getcwd()}
        self.onnx = onnx
        self.process = subprocess.Popen(
            [str(part) for part in command],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, what: str) -> dict[str, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def raw(self) -> np.ndarray:
        self.ask("raw")
        return np.load(self.onnx.with_name("raw.npy"))

    def end(self) -> None:
        self.process.communicate()


def measure(args: argparse.Namespace, onnx: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of one network at one batch size after those of another."""
    for model in args.models:
        for batch in args.batches:
            if "onnxruntime" in RUNTIMES[model]:
                Worker("export", model, batch, args, onnx).end()
            workers = {runtime: Worker(runtime, model, batch, args, onnx) for runtime in RUNTIMES[model]}
            reference = workers["yolojax"].raw()
            rounds: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in workers}
            apart = {runtime: float(np.abs(worker.raw() - reference).max()) for runtime, worker in workers.items()}
            for _ in range(ROUNDS):
                for runtime, worker in workers.items():
                    rounds[runtime].append(worker.ask("time"))
            rows = []
            for runtime, taken in rounds.items():
                row: dict[str, Any] = {"network": model, "batch": batch, "runtime": runtime}
                for what in taken[0]:
                    row[f"{what}_ms"] = round(statistics.median(one[what] for one in taken), 2)
                row["largest_difference"] = round(apart[runtime], 6)
                rows.append(row)
                print(row, flush=True)
            next(row for row in rows if row["runtime"] == "yolojax")["profile"] = workers["yolojax"].ask("profile")
            for worker in workers.values():
                worker.end()
            yield rows


def markdown(record: dict[str, Any], remarks: str) -> str:
    lines = [
        "# Inference on a processor",
        "",
        f"`{record['command']}`, {record['date']}; {record['versions']}; {record['cores']} processor cores, "
        f"{record['threads']} threads each. Milliseconds a call (not an image), medians of {record['rounds']} rounds in"
        " turns; `ratio` is ours over theirs, so that below 1 we are faster. `difference` is the largest of the raw"
        " predictions from ours.",
        "",
        "| network | batch | runtime | network ms | ratio | image to detections ms | ratio | difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    own: dict[str, Any] = {}
    for row in record["rows"]:
        if row["runtime"] == "yolojax":
            own = row
        cells = [row["network"], row["batch"], row["runtime"]]
        for what in ("network_ms", "image_ms"):
            value = row.get(what)
            cells += ["", ""] if value is None else [value, f"{own[what] / value:.2f}"]
        lines.append("| " + " | ".join(map(str, [*cells, row["largest_difference"]])) + " |")
    for row in record["rows"]:
        if "profile" in row:
            spent = ", ".join(f"{name} {value}" for name, value in row["profile"].items())
            lines += ["", f"Our {row['network']} at batch {row['batch']}, ms by operation: {spent}."]
    return "\n".join(lines) + "\n" + remarks


def conclude(record: dict[str, Any]) -> str:
    """The sentence of the table of studies."""
    ratios: dict[str, list[float]] = {}
    for network, batch in dict.fromkeys((row["network"], row["batch"]) for row in record["rows"]):
        rows = {r["runtime"]: r["network_ms"] for r in record["rows"] if (r["network"], r["batch"]) == (network, batch)}
        ours = rows.pop("yolojax")
        for name, ms in rows.items():
            ratios.setdefault(name, []).append(ours / ms)
    said = [f"{min(of):.2f} to {max(of):.2f} of {name}'s" for name, of in ratios.items()]
    networks = len({row["network"] for row in record["rows"]})
    return f"Our time for the network alone, of {networks} networks at two batch sizes: {'; '.join(said)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with the published weights")
    parser.add_argument("--peers", default=sys.executable, help="Python with the other runtimes")
    parser.add_argument("--models", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], choices=[1, 8], help="images a call")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the record; what is not measured stays")
    parser.add_argument("--runtime", choices=["export", "yolojax", *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--onnx", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.runtime is not None:
        work(args)
        return
    heading = heading_of(args)
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "network.onnx"
        write_yolov8n(drawn_file(onnx))
        for rows in measure(args, onnx):
            write(args.out, heading, rows)


def heading_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the record says of the run, before its rows."""
    import jax

    names = ("torch", "onnxruntime", "cv2")
    asked = f"import json, importlib as i; print(json.dumps({{n: i.import_module(n).__version__ for n in {names}}}))"
    versions = json.loads(subprocess.run([args.peers, "-c", asked], capture_output=True, text=True, check=True).stdout)
    return {
        "command": "python -m experiments.benchmarks.inference_speed",
        "date": datetime.date.today().isoformat(),
        "versions": ", ".join(f"{name} {version}" for name, version in {"jax": jax.__version__, **versions}.items()),
        "cores": os.cpu_count(),
        "threads": THREADS,
        "rounds": ROUNDS,
    }


def write(out: Path, heading: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes the record with these rows in the place of earlier ones of the same network and batch size."""
    measured = {(row["network"], row["batch"]) for row in rows}
    kept: list[dict[str, Any]] = []
    if (out / "results.json").is_file():
        earlier = json.loads((out / "results.json").read_text())["rows"]
        kept = [row for row in earlier if (row["network"], row["batch"]) not in measured]
    order = list(RUNTIMES)
    record = {**heading, "rows": sorted(rows + kept, key=lambda row: (order.index(row["network"]), row["batch"]))}
    remarks = out / "REMARKS.md"
    text = "\n" + remarks.read_text() if remarks.is_file() else ""
    write_page(out, record, markdown(record, text))
