"""Operations of detectors, translated to ONNX and run by onnxruntime, against JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from yolojax.errors import ConfigError
from yolojax.models.blocks import space_to_depth, upsample_nearest
from yolojax.models.layers import ACTIVATIONS
from yolojax.nms import batched_nms, nms
from yolojax.processor.platform import traced_for

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

H, W, C = 6, 8, 4


def translated(function, x: np.ndarray, *, open_batch: bool) -> bytes:
    """The function of an array ``[B, ...]`` as a file."""
    from onnx import TensorProto, helper

    from yolojax.export._graph import GraphBuilder
    from yolojax.export._translate import Translator
    from yolojax.export._values import Value

    graph = GraphBuilder()
    batch: Any = x.shape[0]
    name = None
    if open_batch:
        (batch,) = export.symbolic_shape("b")
        name = graph.op("Slice", graph.op("Shape", "x"), graph.ints(0), graph.ints(1))
    shape = (batch, *x.shape[1:])
    with traced_for("other"):
        traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, x.dtype))
    translator = Translator(graph, name)
    (value,) = translator.run(traced.jaxpr, traced.consts, [Value(shape, x.dtype, plain="x")])
    graph.op("Identity", translator.full(value), outputs=["y"])
    sides = ["b" if open_batch else x.shape[0], *x.shape[1:]]
    inputs = [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), sides)]
    outputs = [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype)), None)]
    made = helper.make_model(graph.finish("test", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    assert isinstance(made.graph.node[0].name, str) and TensorProto.FLOAT == 1
    return made.SerializeToString()


def run(function, x: np.ndarray, *, open_batch: bool) -> np.ndarray:
    """The function's file, run by onnxruntime."""
    file = translated(function, x, open_batch=open_batch)
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


KERNEL = np.random.default_rng(1).normal(size=(3, 3, C, 5)).astype(np.float32)
DEPTHWISE = np.random.default_rng(2).normal(size=(3, 3, 1, C)).astype(np.float32)
MATRIX = np.random.default_rng(3).normal(size=(C, 7)).astype(np.float32)


def conv(x, kernel, stride=1, groups=1, padding=((1, 1), (1, 1))):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def pooled(x, k, stride):
    pads = ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, k, k, 1), (1, stride, stride, 1), pads)


def attention(x):
    flat = x.reshape(x.shape[0], H * W, 2, C // 2)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", flat, flat), -1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, flat).reshape(x.shape)


def looked_up_rows(x):
    """Indices that have two axes in common with the array, as deformable attention has them."""
    rows = x.reshape(x.shape[0], H, W * C)
    return jnp.take_along_axis(rows, lax.top_k(rows, 5)[1][:, :, ::-1], 2)


def boxes_of(x):
    corner = 4 * x[..., :2]
    return jnp.concatenate([corner, corner + 1 + jnp.abs(x[..., 2:])], -1)


def suppressed(x, classes):
    """What is left of an image's boxes, some of them not considered, and more places than boxes."""

    def one(x):
        kept = batched_nms(boxes_of(x), x[:, 0], classes, 0.2, 60, valid=x[:, 1] < 2)
        return jnp.where(kept.valid[:, None], boxes_of(x)[kept.indices], -1.0)

    return jax.vmap(one)(x.reshape(x.shape[0], H * W, C))


def suppressed_all(x):
    """Boxes of any class, all of them considered, and fewer places than boxes."""
    rows = x.reshape(x.shape[0], H * W, C)
    return jax.vmap(lambda x: nms(boxes_of(x), x[:, 0], 0.2, 5).indices)(rows).astype(jnp.float32)


CASES = {
    "strided": lambda x: conv(x, KERNEL, 2),
    "lopsided": lambda x: conv(x, KERNEL, 1, padding=((0, 2), (1, 0))),
    "biased": lambda x: conv(x, KERNEL) + jnp.arange(5.0).reshape(1, 1, 1, -1),
    "depthwise": lambda x: conv(x, DEPTHWISE, 1, C),
    "pool": lambda x: pooled(conv(x, KERNEL), 5, 1),
    "pool2": lambda x: pooled(x, 3, 2),
    "upsample": lambda x: upsample_nearest(jax.nn.silu(conv(x, KERNEL))),
    "upsample_plain": upsample_nearest,
    "space_to_depth": lambda x: space_to_depth(conv(x, KERNEL)),
    "concatenate": lambda x: jnp.concatenate([conv(x, KERNEL), x, x * 2], -1),
    "parts": lambda x: jnp.concatenate(
        [part * i for i, part in enumerate(jnp.split(conv(x, KERNEL[..., :4]), 2, -1))], -1
    ),
    "slices": lambda x: conv(x, KERNEL)[:, 1:, 2:, 1:3] + x[:, :-1, :-2, 0:1],
    "every_other": lambda x: conv(x, KERNEL)[:, ::2] + conv(x, KERNEL)[:, 1::2],
    "reverse": lambda x: conv(x, KERNEL)[..., ::-1],
    "padded": lambda x: jnp.pad(conv(x, KERNEL), ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=3),
    "mean": lambda x: conv(x, KERNEL).mean((1, 2), keepdims=True) * conv(x, KERNEL),
    "sum_rows": lambda x: conv(x, KERNEL).sum(1),
    "max_channels": lambda x: conv(x, KERNEL).max(-1),
    "softmax": lambda x: jax.nn.softmax(conv(x, KERNEL).reshape(x.shape[0], -1, 5), -1),
    "matrix": lambda x: jax.nn.relu(x @ MATRIX),
    "expectation": lambda x: jax.nn.softmax(x, -1) @ jnp.arange(4.0),
    "attention": attention,
    "power": lambda x: (x**2 + jnp.abs(x) ** 1.5 + x**3) / (1 + jnp.exp(-x)) - lax.rsqrt(x * x + 1),
    "chosen": lambda x: jnp.where(x > 0, x, 0.1 * x) + jnp.clip(x, -0.5, 0.5),
    "broadcast": lambda x: jnp.broadcast_to(x[:, :1], x.shape) + jnp.arange(8.0)[None, None, :, None],
    "taken": lambda x: jnp.take(x, jnp.array([3, 0, 0]), axis=-1) + x[..., 1][..., None],
    "transpose": lambda x: conv(x, KERNEL).transpose(0, 3, 1, 2).reshape(x.shape[0], 5, H * W).swapaxes(1, 2),
    "best": lambda x: jnp.concatenate([lax.top_k(x, 3)[0], lax.top_k(x, 2)[1].astype(jnp.float32)], -1),
    "looked_up": lambda x: jnp.take_along_axis(x, lax.top_k(x[..., :1].reshape(-1, H * W), 3)[1][:, :, None, None], 1),
    "looked_up_rows": looked_up_rows,
    "from_a_table": lambda x: jnp.asarray(MATRIX)[lax.top_k(x, 2)[1]],
    "from_a_tables_columns": lambda x: jnp.take(MATRIX, lax.top_k(x, 2)[1], axis=1, mode="clip"),
    "beyond_the_table": lambda x: jnp.take(MATRIX, lax.top_k(x, 2)[1] * 2, axis=0, mode="fill", fill_value=7),
    "every_other_pixel": lambda x: conv(x, KERNEL)[:, ::2, ::2],
    "stacked": lambda x: jnp.stack([x, x * 2], 1).reshape(x.shape[0], -1, W, C),
    "tiled": lambda x: jnp.tile(x, (1, 2, 1, 1)),
    "all_and_any": lambda x: jnp.where((x > 0).all(-1, keepdims=True), x, 2 * x) + (x > 1).any((1, 2), keepdims=True),
    "remainder": lambda x: (lax.top_k(x, 2)[1] % 3 - lax.rem(lax.top_k(x, 2)[1] - 2, 3)).astype(jnp.float32),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "suppressed": lambda x: suppressed(x, jnp.zeros(H * W, int)),
    "suppressed_by_class": lambda x: suppressed(x, jnp.arange(H * W) % 3),
    "suppressed_all": suppressed_all,
    "filled": lambda x: jnp.concatenate([x, jnp.ones((x.shape[0], H, W, 1))], -1),
    **{name: ACTIVATIONS[name] for name in ACTIVATIONS},
}


@pytest.mark.parametrize("open_batch", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_the_same(case, open_batch):
    x = np.random.default_rng(0).normal(size=(2, H, W, C)).astype(np.float32) * 2
    function = CASES[case]
    want = np.asarray(function(jnp.asarray(x)))
    got = run(function, x, open_batch=open_batch)
    assert got.shape == want.shape and got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_bytes_become_numbers():
    x = np.random.default_rng(0).integers(0, 256, (2, H, W, 3)).astype(np.uint8)
    got = run(lambda x: x.astype(jnp.float32)[..., ::-1] / 255, x, open_batch=True)
    np.testing.assert_allclose(got, x[..., ::-1].astype(np.float32) / 255, rtol=1e-6)


def test_an_operation_without_translation_is_named():
    x = np.zeros((2, H, W, C), np.float32)
    with pytest.raises(ConfigError, match=r"the operation sort .* has no translation"):
        translated(lambda x: jnp.sort(x, -1), x, open_batch=False)


def test_a_constant_that_is_repeated_is_written_once():
    x = np.random.default_rng(0).normal(size=(3, 400, 4, 16)).astype(np.float32)
    bins = np.arange(16, dtype=np.float32)

    def expected(x):  # the expectation of a distribution over bins, as heads decode it
        return jnp.sum(x * jnp.broadcast_to(jnp.asarray(bins) + 1, x.shape), -1)

    assert len(translated(expected, x, open_batch=False)) < x.nbytes / 20
    np.testing.assert_allclose(run(expected, x, open_batch=False), (x * (bins + 1)).sum(-1), rtol=1e-4, atol=1e-4)
