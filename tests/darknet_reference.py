"""Darknet's layers in float64 NumPy, written from what its source computes: channels first, one image, plain loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
}


def convolve(x, kernel, stride, padding, groups):
    filters, per_group, size, _ = kernel.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:])
    out = np.zeros((filters, height, width))
    for f in range(filters):
        start = f // (filters // groups) * per_group
        for i in range(size):
            for j in range(size):
                window = x[start : start + per_group, i : i + stride * height : stride, j : j + stride * width : stride]
                out[f] += np.tensordot(kernel[f, :, i, j], window[:, :height, :width], 1)
    return out


def local(x, kernel, stride, padding):
    """``kernel [places, filters, channels, size, size]``."""
    _, filters, _, size, _ = kernel.shape
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    height, width = ((n - size) // stride + 1 for n in x.shape[1:])
    out = np.zeros((filters, height, width))
    for y in range(height):
        for z in range(width):
            window = x[:, y * stride : y * stride + size, z * stride : z * stride + size]
            out[:, y, z] = np.tensordot(kernel[y * width + z], window, 3)
    return out


def maxpool(x, size, stride, padding):
    channels, h, w = x.shape
    height, width = ((n + padding - size) // stride + 1 for n in (h, w))
    out = np.full((channels, height, width), -np.inf)
    for y in range(height):
        for z in range(width):
            for i in range(size):
                for j in range(size):
                    row, column = y * stride + i - padding // 2, z * stride + j - padding // 2
                    if 0 <= row < h and 0 <= column < w:
                        out[:, y, z] = np.maximum(out[:, y, z], x[:, row, column])
    return out


def reorg(x, stride):
    """The source's loop over flat memory."""
    channels, h, w = x.shape
    flat, out, few = x.ravel(), np.empty(x.size), channels // stride**2
    for k in range(channels):
        for j in range(h):
            for i in range(w):
                offset, c2 = k // few, k % few
                w2, h2 = i * stride + offset % stride, j * stride + offset // stride
                out[i + w * (j + h * k)] = flat[w2 + w * stride * (h2 + h * stride * c2)]
    return out.reshape(channels * stride**2, h // stride, w // stride)


def weighted_sum(inputs, factors, normalisation):
    """``factors [terms]`` or ``[terms, channels]``; terms with other channel counts than the first take part by the
    channels they share with it. Of a larger map every ``stride``-th place takes part; a smaller one is added to every
    ``sample``-th."""
    terms = len(inputs)
    if factors is None:
        factors = np.ones((terms, 1))
        normalisation = "none"
    factors = factors.reshape(terms, -1).astype(np.float64)
    if normalisation == "relu":
        factors = np.maximum(factors, 0) / (np.maximum(factors, 0).sum(0) + 1e-4)
    elif normalisation == "softmax":
        e = np.exp(factors - factors.max(0))
        factors = e / (e.sum(0) + 1e-4)
    out = np.zeros_like(inputs[0])
    for x, factor in zip(inputs, factors, strict=True):
        shared = min(len(x), len(out))
        own = np.broadcast_to(factor, len(out))[:shared]
        (h1, w1), (h2, w2) = x.shape[1:], out.shape[1:]
        stride, sample = max(1, w1 // w2), max(1, w2 // w1)
        for j in range(min(h1, h2)):  # the loops of Darknet's shortcut_cpu
            for i in range(min(w1, w2)):
                out[:shared, j * sample, i * sample] += x[:shared, j * stride, i * stride] * own
    return out


def run(cfg, arrays, image: np.ndarray, epsilon: float) -> list[np.ndarray]:
    """Every layer's output ``[C, H, W]`` for an image ``[H, W, 3]``; a prediction layer passes on what it gets."""
    outputs: list[np.ndarray] = []
    previous = image.astype(np.float64).transpose(2, 0, 1)
    for number, layer in enumerate(cfg.layers):
        kind, x = type(layer).__name__, previous
        own = {name: value.astype(np.float64) for name, value in arrays.get(number, {}).items()}
        if kind == "Convolutional":
            x = convolve(x, own["kernel"], layer.stride, layer.padding, layer.groups)
            if layer.batch_normalize:
                x = (x - own["mean"][:, None, None]) / np.sqrt(own["var"] + epsilon)[:, None, None]
                x = x * own["scale"][:, None, None]
            x = ACTIVATIONS[layer.activation](x + own["bias"][:, None, None])
        elif kind == "Connected":
            x = own["kernel"] @ x.ravel()
            if layer.batch_normalize:
                x = (x - own["mean"]) / np.sqrt(own["var"] + epsilon) * own["scale"]
            x = ACTIVATIONS[layer.activation](x + own["bias"])[:, None, None]
        elif kind == "Local":
            x = local(x, own["kernel"], layer.stride, layer.padding) + own["bias"]
            x = ACTIVATIONS[layer.activation](x)
        elif kind == "Crop":
            x = x if layer.noadjust else x * 2 - 1
        elif kind == "Shortcut":
            x = weighted_sum([x, *(outputs[s] for s in layer.sources)], own.get("factors"), layer.normalisation)
            x = ACTIVATIONS[layer.activation](x)
        elif kind == "Route":
            parts = [outputs[s] for s in layer.sources]
            sizes = [len(p) // layer.groups for p in parts]
            x = np.concatenate([p[layer.group_id * n : (layer.group_id + 1) * n] for p, n in zip(parts, sizes)])  # noqa: B905
        elif kind == "Upsample":
            x = layer.scale * x.repeat(layer.stride, 1).repeat(layer.stride, 2)
        elif kind == "Maxpool":
            x = maxpool(x, layer.size, layer.stride, layer.padding)
        elif kind == "Avgpool":
            x = x.mean((1, 2), keepdims=True)
        elif kind == "Reorg":
            x = reorg(x, layer.stride)
        elif kind in ("ScaleChannels", "Sam"):
            x = ACTIVATIONS[layer.activation](x * outputs[layer.source])
        outputs.append(x)
        previous = x
    return outputs
