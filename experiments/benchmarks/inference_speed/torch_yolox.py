"""YOLOX in PyTorch: the peer that ours is compared with, in golden files and for speed. Needs torch; not imported here.

Written from the paper (arXiv 2107.08430) and the names of the published arrays, apart from our own network. ``folded``
builds every convolution with a bias and without normalisation, as `fused` weights have it.
"""

# pyright: reportMissingImports=false

import torch
from torch import nn
from torch.nn import functional


class BaseConv(nn.Module):
    """Convolution, normalisation (eps 1e-3), SiLU."""

    def __init__(self, inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3, momentum=0.03)

    def forward(self, x):
        return functional.silu(self.bn(self.conv(x)))


class FoldedConv(nn.Conv2d):
    """Convolution with a bias, SiLU."""

    def __init__(self, inside: int, outside: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inside, outside, size, stride, size // 2, groups=groups)

    def forward(self, x):
        return functional.silu(super().forward(x))


class Kit:
    """Which convolutions a network is made of."""

    def __init__(self, depthwise: bool, folded: bool) -> None:
        self.depthwise = depthwise
        self.conv = FoldedConv if folded else BaseConv

    def spatial(self, inside: int, outside: int, stride: int = 1) -> nn.Module:
        if not self.depthwise:
            return self.conv(inside, outside, 3, stride)
        return Separable(self.conv(inside, inside, 3, stride, inside), self.conv(inside, outside, 1))


class Separable(nn.Module):
    def __init__(self, dconv: nn.Module, pconv: nn.Module) -> None:
        super().__init__()
        self.dconv, self.pconv = dconv, pconv

    def forward(self, x):
        return self.pconv(self.dconv(x))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool, kit: Kit) -> None:
        super().__init__()
        self.conv1, self.conv2, self.shortcut = kit.conv(width, width, 1), kit.spatial(width, width), shortcut

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CSPLayer(nn.Module):
    def __init__(self, inside: int, outside: int, n: int, shortcut: bool, kit: Kit) -> None:
        super().__init__()
        hidden = outside // 2
        self.conv1, self.conv2 = kit.conv(inside, hidden, 1), kit.conv(inside, hidden, 1)
        self.conv3 = kit.conv(2 * hidden, outside, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut, kit) for _ in range(n)))

    def forward(self, x):
        return self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], 1))


class SPPBottleneck(nn.Module):
    def __init__(self, inside: int, outside: int, kit: Kit) -> None:
        super().__init__()
        self.conv1, self.conv2 = kit.conv(inside, inside // 2, 1), kit.conv(2 * inside, outside, 1)

    def forward(self, x):
        x = self.conv1(x)
        return self.conv2(torch.cat([x] + [functional.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13)], 1))


class Focus(nn.Module):
    def __init__(self, outside: int, kit: Kit) -> None:
        super().__init__()
        self.conv = kit.conv(12, outside, 3)

    def forward(self, x):
        parts = x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]
        return self.conv(torch.cat(parts, 1))


class CSPDarknet(nn.Module):
    def __init__(self, width: int, n: int, kit: Kit) -> None:
        super().__init__()
        self.stem = Focus(width, kit)
        for stage, depth in ((2, n), (3, 3 * n), (4, 3 * n), (5, n)):
            inside, outside = width * 2 ** (stage - 2), width * 2 ** (stage - 1)
            parts = [kit.spatial(inside, outside, 2)]
            if stage == 5:
                parts.append(SPPBottleneck(outside, outside, kit))
            parts.append(CSPLayer(outside, outside, depth, stage < 5, kit))
            setattr(self, f"dark{stage}", nn.Sequential(*parts))

    def forward(self, x):
        x3 = self.dark3(self.dark2(self.stem(x)))
        x4 = self.dark4(x3)
        return x3, x4, self.dark5(x4)


class PAFPN(nn.Module):
    def __init__(self, width: int, n: int, kit: Kit) -> None:
        super().__init__()
        a, b, c = 4 * width, 8 * width, 16 * width
        self.backbone = CSPDarknet(width, n, kit)
        self.lateral_conv0, self.reduce_conv1 = kit.conv(c, b, 1), kit.conv(b, a, 1)
        self.C3_p4, self.C3_p3 = CSPLayer(2 * b, b, n, False, kit), CSPLayer(2 * a, a, n, False, kit)
        self.bu_conv2, self.bu_conv1 = kit.spatial(a, a, 2), kit.spatial(b, b, 2)
        self.C3_n3, self.C3_n4 = CSPLayer(2 * a, b, n, False, kit), CSPLayer(2 * b, c, n, False, kit)

    def forward(self, x):
        x3, x4, x5 = self.backbone(x)
        f5 = self.lateral_conv0(x5)
        f4 = self.reduce_conv1(self.C3_p4(torch.cat([functional.interpolate(f5, scale_factor=2), x4], 1)))
        p3 = self.C3_p3(torch.cat([functional.interpolate(f4, scale_factor=2), x3], 1))
        p4 = self.C3_n3(torch.cat([self.bu_conv2(p3), f4], 1))
        return p3, p4, self.C3_n4(torch.cat([self.bu_conv1(p4), f5], 1))


class Head(nn.Module):
    def __init__(self, width: int, classes: int, kit: Kit) -> None:
        super().__init__()
        hidden = 4 * width

        def branches():
            return nn.ModuleList(
                nn.Sequential(kit.spatial(hidden, hidden), kit.spatial(hidden, hidden)) for _ in range(3)
            )

        def predictions(n: int):
            return nn.ModuleList(nn.Conv2d(hidden, n, 1) for _ in range(3))

        self.stems = nn.ModuleList(kit.conv(i * width, hidden, 1) for i in (4, 8, 16))
        self.cls_convs, self.reg_convs = branches(), branches()
        self.cls_preds, self.reg_preds, self.obj_preds = predictions(classes), predictions(4), predictions(1)

    def forward(self, features):
        out = []
        for i, x in enumerate(features):
            x = self.stems[i](x)
            cls, reg = self.cls_convs[i](x), self.reg_convs[i](x)
            maps = self.reg_preds[i](reg), self.obj_preds[i](reg).sigmoid(), self.cls_preds[i](cls).sigmoid()
            out.append(torch.cat(maps, 1).flatten(2))
        return torch.cat(out, 2).transpose(1, 2)


class TorchYOLOX(nn.Module):
    """Images ``[B, 3, H, W]`` (BGR, 0..255) to ``[B, N, 5 + C]``: raw box, then probabilities."""

    def __init__(self, classes: int, *, width: int, n: int, depthwise: bool, folded: bool) -> None:
        super().__init__()
        kit = Kit(depthwise, folded)
        self.backbone, self.head = PAFPN(width, n, kit), Head(width, classes, kit)

    def forward(self, x):
        return self.head(self.backbone(x))
