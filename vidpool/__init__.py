"""Video action recognition with PyTorch Lightning, where every pooling layer can be a SoftPool.

Everything in ``vidpool.__all__`` is imported on first use, so that ``import vidpool`` takes
milliseconds and does not import PyTorch.

Examples:
    >>> import torch
    >>> import vidpool
    >>> pool = vidpool.SoftPool3d(kernel_size=3, stride=2, padding=1)
    >>> pool(torch.rand(1, 64, 8, 56, 56)).shape
    torch.Size([1, 64, 4, 28, 28])
    >>> network = vidpool.create_model("r3d_18", num_classes=101, pooling="soft")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vidpool.lazy import import_on_use

__version__ = "0.1.0"

_MODULES = {
    "vidpool.errors": ("VidpoolError",),
    "vidpool.plugins": ("load_plugin",),
    "vidpool.ops": (
        "adaptive_soft_pool1d",
        "adaptive_soft_pool2d",
        "adaptive_soft_pool3d",
        "soft_pool1d",
        "soft_pool2d",
        "soft_pool3d",
    ),
    "vidpool.nn": (
        "AdaptiveSoftPool1d",
        "AdaptiveSoftPool2d",
        "AdaptiveSoftPool3d",
        "SoftPool1d",
        "SoftPool2d",
        "SoftPool3d",
        "register_pooling",
        "swap_pooling",
    ),
    "vidpool.models": (
        "create_model",
        "list_models",
        "load_weights",
        "model_info",
        "register_model",
    ),
    "vidpool.video": ("open_video",),
    "vidpool.data": (
        "Augmentation",
        "HACSDataModule",
        "ImageFolderDataModule",
        "Kinetics700DataModule",
        "ShardDataModule",
        "UCF101DataModule",
        "VideoDataModule",
        "VideoFolderDataModule",
        "register_datamodule",
    ),
    "vidpool.train": ("VideoClassifier", "default_callbacks", "make_trainer"),
    "vidpool.inference": ("Prediction", "Predictor"),
}
"""The public names, by the module that provides them."""

__all__ = [
    "AdaptiveSoftPool1d",
    "AdaptiveSoftPool2d",
    "AdaptiveSoftPool3d",
    "Augmentation",
    "HACSDataModule",
    "ImageFolderDataModule",
    "Kinetics700DataModule",
    "Prediction",
    "Predictor",
    "ShardDataModule",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "UCF101DataModule",
    "VideoClassifier",
    "VideoDataModule",
    "VideoFolderDataModule",
    "VidpoolError",
    "__version__",
    "adaptive_soft_pool1d",
    "adaptive_soft_pool2d",
    "adaptive_soft_pool3d",
    "create_model",
    "default_callbacks",
    "list_models",
    "load_plugin",
    "load_weights",
    "make_trainer",
    "model_info",
    "open_video",
    "register_datamodule",
    "register_model",
    "register_pooling",
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
    "swap_pooling",
]

if TYPE_CHECKING:
    from vidpool.data import (
        Augmentation,
        HACSDataModule,
        ImageFolderDataModule,
        Kinetics700DataModule,
        ShardDataModule,
        UCF101DataModule,
        VideoDataModule,
        VideoFolderDataModule,
        register_datamodule,
    )
    from vidpool.errors import VidpoolError
    from vidpool.inference import Prediction, Predictor
    from vidpool.models import create_model, list_models, load_weights, model_info, register_model
    from vidpool.nn import (
        AdaptiveSoftPool1d,
        AdaptiveSoftPool2d,
        AdaptiveSoftPool3d,
        SoftPool1d,
        SoftPool2d,
        SoftPool3d,
        register_pooling,
        swap_pooling,
    )
    from vidpool.ops import (
        adaptive_soft_pool1d,
        adaptive_soft_pool2d,
        adaptive_soft_pool3d,
        soft_pool1d,
        soft_pool2d,
        soft_pool3d,
    )
    from vidpool.plugins import load_plugin
    from vidpool.train import VideoClassifier, default_callbacks, make_trainer
    from vidpool.video import open_video

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
