"""A PyTorch network of YOLOv8n's size and plan, trained with a bare step.

Used by `experiments.benchmarks.throughput`. It imports PyTorch and nothing of this project, so that any Python that has
PyTorch can run it. The step is forward, the sum of squared outputs as loss, backward and AdamW, on noise that lies on
the device: no data set, augmentation, assignment, average or log. Channels-last; bfloat16 by autocast. On a GPU float32
products may use TF32, as JAX does by default, cuDNN chooses its algorithms by measuring, and AdamW is fused. The loss
is read one step late, as in our loop. The step runs in one of three modes: ``eager``, op after op; ``graph``, the whole
step captured once as a CUDA graph and replayed; ``compiled``, network and loss by ``torch.compile`` with CUDA graphs
(``reduce-overhead``).
"""

# pyright: reportMissingImports=false

import time
from collections.abc import Callable

import torch
from torch import nn


class Block(nn.Sequential):
    """Convolution, normalisation, activation."""

    def __init__(self, cin: int, cout: int, size: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(cin, cout, size, stride, size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout, eps=1e-3, momentum=0.03), nn.SiLU(inplace=True))


class Stage(nn.Module):
    """Two halves; bottlenecks on the second; everything joined."""

    def __init__(self, cin: int, cout: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        half = cout // 2
        self.split, self.join = Block(cin, 2 * half), Block((2 + depth) * half, cout)
        pairs = [nn.Sequential(Block(half, half, 3), Block(half, half, 3)) for _ in range(depth)]
        self.bottlenecks, self.shortcut = nn.ModuleList(pairs), shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.split(x).chunk(2, 1))
        for bottleneck in self.bottlenecks:
            y = bottleneck(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        return self.join(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Three max pools in a row, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.join = Block(width, width // 2), Block(2 * width, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.join(torch.cat(parts, 1))


class Network(nn.Module):
    """Widths 16 to 256 at strides 2 to 32, path aggregation, two branches a level."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.fine = nn.Sequential(Block(3, 16, 3, 2), Block(16, 32, 3, 2), Stage(32, 32, 1, True))
        self.s8 = nn.Sequential(Block(32, 64, 3, 2), Stage(64, 64, 2, True))
        self.s16 = nn.Sequential(Block(64, 128, 3, 2), Stage(128, 128, 2, True))
        self.s32 = nn.Sequential(Block(128, 256, 3, 2), Stage(256, 256, 1, True), Pyramid(256))
        self.down16, self.down8 = Stage(384, 128, 1, False), Stage(192, 64, 1, False)
        self.reduce8, self.up16 = Block(64, 64, 3, 2), Stage(192, 128, 1, False)
        self.reduce16, self.up32 = Block(128, 128, 3, 2), Stage(384, 256, 1, False)

        def branch(cin: int, width: int, out: int) -> nn.Sequential:
            return nn.Sequential(Block(cin, width, 3), Block(width, width, 3), nn.Conv2d(width, out, 1))

        self.boxes = nn.ModuleList(branch(c, 64, 64) for c in (64, 128, 256))
        self.scores = nn.ModuleList(branch(c, max(64, min(classes, 100)), classes) for c in (64, 128, 256))
        self.larger = nn.Upsample(scale_factor=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a = self.s8(self.fine(x))
        b = self.s16(a)
        c = self.s32(b)
        b = self.down16(torch.cat([self.larger(c), b], 1))
        a = self.down8(torch.cat([self.larger(b), a], 1))
        b = self.up16(torch.cat([self.reduce8(a), b], 1))
        c = self.up32(torch.cat([self.reduce16(b), c], 1))
        return [head(x) for heads in (self.boxes, self.scores) for head, x in zip(heads, (a, b, c), strict=True)]


def main(size: int, batch: int, dtype: str, seconds: float, mode: str = "eager") -> dict[str, object]:
    """Images per second over at least ``seconds``, after a few steps; ``compile_seconds`` is what those took."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    network = Network().to(device, memory_format=torch.channels_last).train()
    options = {"fused": True, "capturable": mode == "graph"} if device == "cuda" else {}
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, **options)
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            outputs = network(images)
        return torch.stack([y.float().square().mean() for y in outputs]).sum()

    if mode == "compiled":
        loss_of = torch.compile(loss_of, mode="reduce-overhead")

    def step() -> torch.Tensor:
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(images)
        loss.backward()
        optimiser.step()
        return loss.detach().clone() if mode == "compiled" else loss.detach()

    started = time.perf_counter()
    if mode == "graph":
        step = _captured(step)
    for _ in range(3):
        float(step())  # waits for the device
    before = time.perf_counter() - started
    started, steps, pending = time.perf_counter(), 1, step()
    while steps < 3 or time.perf_counter() - started < seconds:
        loss = step()
        float(pending)
        pending, steps = loss, steps + 1
    float(pending)
    rate = steps * batch / (time.perf_counter() - started)
    parameters = sum(p.numel() for p in network.parameters())
    found = {"images_per_second": rate, "steps": steps, "parameters": parameters, "torch": torch.__version__}
    if device == "cuda":
        found |= {"compile_seconds": before, "device_memory": torch.cuda.max_memory_reserved()}
    return found


def _captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The step as a CUDA graph, captured after a few steps on a stream of its own, as PyTorch's manual asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss.clone()  # the next replay writes its loss where this one did

    return replay
