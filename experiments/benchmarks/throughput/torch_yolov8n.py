"""A PyTorch network of YOLOv8n's size and plan, trained with a bare step. Used by `experiments.throughput`.

Imports PyTorch and nothing of this project, so that any Python that has PyTorch can run it. The step is forward, the
sum of squared outputs as loss, backward and AdamW, on noise that lies on the device: no data set, augmentation,
assignment, average or log. Channels-last; bfloat16 by autocast.
"""

# pyright: reportMissingImports=false

import time

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
        self.scores = nn.ModuleList(branch(c, 64, classes) for c in (64, 128, 256))
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


def main(size: int, batch: int, dtype: str, seconds: float) -> dict[str, object]:
    """Images per second over at least ``seconds``, after three steps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Network().to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def step() -> float:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            outputs = network(images)
        loss = torch.stack([y.float().square().mean() for y in outputs]).sum()
        loss.backward()
        optimiser.step()
        return float(loss)  # waits for the device

    for _ in range(3):
        step()
    started, steps = time.perf_counter(), 0
    while steps < 3 or time.perf_counter() - started < seconds:
        step()
        steps += 1
    rate = steps * batch / (time.perf_counter() - started)
    parameters = sum(p.numel() for p in network.parameters())
    return {"images_per_second": rate, "steps": steps, "parameters": parameters, "torch": torch.__version__}
