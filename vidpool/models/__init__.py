"""Backbones, built by name."""

from vidpool.models.registry import create_model, list_models, register_model
from vidpool.models import srtg  # noqa: F401
from vidpool.models.resnet3d import ResNet3d

__all__ = ["ResNet3d", "create_model", "list_models", "register_model"]
