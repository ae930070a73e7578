"""How a trained run leaves this machine."""

from staa.export.onnx import to_onnx
from staa.export.program import to_program

__all__ = ["to_onnx", "to_program"]
