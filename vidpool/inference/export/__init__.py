"""Trained networks as files for others to run: weights, torch.export programs, ONNX."""

from vidpool.inference.export.writing import FORMATS, Exported, export

__all__ = ["FORMATS", "Exported", "export"]
