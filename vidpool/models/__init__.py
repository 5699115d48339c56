"""Networks, their registry, and loading weights into them."""

from vidpool.models import csn, srtg  # noqa: F401 - they register their models
from vidpool.models.heads import check_network, features_of, heads_of
from vidpool.models.i3d import I3D
from vidpool.models.mfnet import MFNet
from vidpool.models.pooling import replace_pooling
from vidpool.models.pytorchvideo_models import PyTorchVideoNet
from vidpool.models.registry import (
    ModelInfo,
    create_model,
    find_models,
    list_models,
    model_info,
    register_model,
)
from vidpool.models.resnet3d import ResNet3d
from vidpool.models.torchvision_models import TorchvisionNet
from vidpool.models.weights import load_weights

__all__ = [
    "I3D",
    "MFNet",
    "ModelInfo",
    "PyTorchVideoNet",
    "ResNet3d",
    "TorchvisionNet",
    "check_network",
    "create_model",
    "features_of",
    "find_models",
    "heads_of",
    "list_models",
    "load_weights",
    "model_info",
    "register_model",
    "replace_pooling",
]
