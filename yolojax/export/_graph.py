"""Building an ONNX graph node by node, and cleaning it up."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

OPSET = 17
"""The version of ONNX's operators: read by onnxruntime from 1.12 and OpenVINO from 2022.3."""

IR_VERSION = 8


class GraphBuilder:
    """Nodes and constants of a graph, in the order in which they were made; every value has a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    def name(self, hint: str) -> str:
        """A name that no other value has."""
        self._count += 1
        return f"{hint}_{self._count}"

    def op(self, kind: str, *inputs: str, outputs: int | list[str] = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of names where there are several.

        ``outputs`` is their number, or the names that they get.
        """
        names = outputs if isinstance(outputs, list) else [self.name(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(self.nodes)}", **attributes))
        return names[0] if len(names) == 1 else names

    def const(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant; equal small ones are stored once."""
        array = np.ascontiguousarray(np.asarray(value, dtype))
        array = array.reshape(np.shape(value))  # ascontiguousarray makes a vector of a scalar
        key = (str(array.dtype), array.shape, array.tobytes()) if array.size <= 64 else None
        if key is not None and key in self._names:
            return self._names[key]
        name = self.name("const")
        self.constants[name] = array
        if key is not None:
            self._names[key] = name
        return name

    def ints(self, *values: int) -> str:
        """The name of a constant vector of int64."""
        return self.const(np.array(values, np.int64))

    def cast(self, name: str, dtype: Any) -> str:
        """The value in another type."""
        return self.op("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def rename(self, name: str, new: str) -> None:
        """Gives a value another name, by which users of the graph ask for it."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, own in enumerate(names):
                    if own == name:
                        names[place] = new

    def finish(self, name: str, inputs: list[Any], outputs: list[Any]) -> Any:
        """The graph, with biases moved into convolutions, without nodes and constants that nothing reads."""
        kept = {value.name for value in outputs}
        self._fuse_biases(kept)
        self._drop_unused(kept)
        tensors = [_tensor(array, name) for name, array in self.constants.items()]
        return helper.make_graph(self.nodes, name, inputs, outputs, tensors)

    def _fuse_biases(self, kept: set[str]) -> None:
        uses = Counter(name for node in self.nodes for name in node.input)
        makers = {node.output[0]: node for node in self.nodes if node.op_type == "Conv" and len(node.input) == 2}
        rest: list[NodeProto] = []
        for node in self.nodes:
            conv = None
            if node.op_type == "Add":
                conv = next((makers[name] for name in node.input if name in makers), None)
            if conv is not None and uses[conv.output[0]] == 1 and conv.output[0] not in kept:
                other = next(name for name in node.input if name != conv.output[0])
                bias, features = self.constants.get(other), self.constants[conv.input[1]].shape[0]
                if bias is not None and bias.shape == (1, features, 1, 1):
                    conv.input.append(self.const(bias.reshape(features)))
                    conv.output[0] = node.output[0]
                    continue
            rest.append(node)
        self.nodes = rest

    def _drop_unused(self, kept: set[str]) -> None:
        needed, rest = set(kept), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                rest.append(node)
        self.nodes = rest[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in needed}


def _tensor(array: np.ndarray, name: str) -> TensorProto:
    return numpy_helper.from_array(array, name)
