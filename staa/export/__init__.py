"""How a trained run leaves this machine."""

from staa.export.graph import to_nir
from staa.export.onnx import to_onnx
from staa.export.program import to_program

__all__ = ["to_nir", "to_onnx", "to_program"]
