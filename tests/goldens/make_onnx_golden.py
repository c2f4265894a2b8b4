"""A golden ONNX model with initialisers of every way of storing numbers. Run: python tests/goldens/make_onnx_golden.py

Written with onnx 1.23.2 from random numbers: raw and listed numbers of many types, nodes, and the metadata that
exporters of detectors write. ``onnx_expected.npz`` has the numbers as raw bytes, as NumPy's format has no bfloat16.
"""

import json
import pathlib

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

folder = pathlib.Path(__file__).parent
rng = np.random.default_rng(20261128)

kinds = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int16": TensorProto.INT16,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}
initialisers, expected, shapes = [], {}, {}
for name, kind in kinds.items():
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    array = (rng.normal(0, 40, (2, 3)) if dtype.kind != "u" else rng.integers(0, 200, (2, 3))).astype(dtype)
    for way in ("raw", "listed"):
        values = array.tobytes() if way == "raw" else array.ravel().tolist()
        initialisers.append(helper.make_tensor(f"{name}.{way}", kind, array.shape, values, raw=way == "raw"))
        expected[f"{name}.{way}"] = np.frombuffer(array.tobytes(), np.uint8)
        shapes[f"{name}.{way}"] = [name, list(array.shape)]
initialisers.append(numpy_helper.from_array(np.float32(2.5), "scalar"))
initialisers.append(numpy_helper.from_array(np.zeros((0, 4), np.float32), "empty"))
expected |= {"scalar": np.frombuffer(np.float32(2.5).tobytes(), np.uint8), "empty": np.zeros(0, np.uint8)}
shapes |= {"scalar": ["float32", []], "empty": ["float32", [0, 4]]}

image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 96])
output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 126])
nodes = [
    helper.make_node("Conv", ["images", "float32.raw"], ["features"], name="/model.0/conv/Conv"),
    helper.make_node("Relu", ["features"], ["output0"]),
]
model = helper.make_model(helper.make_graph(nodes, "detector", [image], [output], initialisers), producer_name="maker")
properties = {"names": repr({0: "cat", 1: "dog's"}), "imgsz": "[64, 96]", "stride": "32"}
helper.set_model_props(model, properties | {"task": "detect", "date": "2026-11-28"})
onnx.save(model, folder / "onnx_initialisers.onnx")
np.savez(folder / "onnx_expected.npz", kinds=json.dumps(shapes), **expected)
