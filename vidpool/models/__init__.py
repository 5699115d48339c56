"""Backbones, built by name."""

from vidpool.models import csn, srtg  # noqa: F401  (which register their models)
from vidpool.models.i3d import I3D
from vidpool.models.mfnet import MFNet
from vidpool.models.registry import create_model, list_models, register_model
from vidpool.models.resnet3d import ResNet3d

__all__ = ["I3D", "MFNet", "ResNet3d", "create_model", "list_models", "register_model"]
