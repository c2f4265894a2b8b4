"""The way out: detectors as files for other programs, and running such files here.

`to_stablehlo` and `to_onnx` give the content of a file, and `load_exported` a detector record that runs one:

    content = to_onnx(detector, variables, ExportSettings(batch=None))
    detector, variables = load_exported("yolov8.onnx", runtime="openvino")
"""

from yolojax.export.onnx_file import to_onnx
from yolojax.export.running import Runtime, load_exported
from yolojax.export.settings import Description, ExportSettings
from yolojax.export.stablehlo import to_stablehlo

__all__ = ["Description", "ExportSettings", "Runtime", "load_exported", "to_onnx", "to_stablehlo"]
