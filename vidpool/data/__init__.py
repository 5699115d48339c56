"""Datasets of labelled videos: datamodules, clip sampling, augmentation and data loaders.

The names below are imported on first use.
"""

from typing import TYPE_CHECKING

from vidpool.lazy import import_on_use

if TYPE_CHECKING:
    from vidpool.data.datamodule import VideoDataModule
    from vidpool.data.dataset import EvaluationViews, TrainingClips
    from vidpool.data.datasets.example import example_dataset
    from vidpool.data.datasets.hacs_kinetics import HACSDataModule, Kinetics700DataModule
    from vidpool.data.datasets.image_folder import ImageFolderDataModule
    from vidpool.data.datasets.ucf101 import UCF101DataModule
    from vidpool.data.datasets.video_folder import VideoFolderDataModule
    from vidpool.data.listed import ListedDataModule
    from vidpool.data.registry import datamodules, register_datamodule
    from vidpool.data.shards.datamodule import ShardDataModule
    from vidpool.data.transforms.augmentation import Augmentation

_MODULES = {
    "vidpool.data.transforms.augmentation": ("Augmentation",),
    "vidpool.data.dataset": (
        "EvaluationViews",
        "TrainingClips",
    ),
    "vidpool.data.datasets.hacs_kinetics": (
        "HACSDataModule",
        "Kinetics700DataModule",
    ),
    "vidpool.data.datasets.image_folder": ("ImageFolderDataModule",),
    "vidpool.data.listed": ("ListedDataModule",),
    "vidpool.data.shards.datamodule": ("ShardDataModule",),
    "vidpool.data.datasets.ucf101": ("UCF101DataModule",),
    "vidpool.data.datamodule": ("VideoDataModule",),
    "vidpool.data.datasets.video_folder": ("VideoFolderDataModule",),
    "vidpool.data.registry": (
        "datamodules",
        "register_datamodule",
    ),
    "vidpool.data.datasets.example": ("example_dataset",),
}

__all__ = [
    "Augmentation",
    "EvaluationViews",
    "HACSDataModule",
    "ImageFolderDataModule",
    "Kinetics700DataModule",
    "ListedDataModule",
    "ShardDataModule",
    "TrainingClips",
    "UCF101DataModule",
    "VideoDataModule",
    "VideoFolderDataModule",
    "datamodules",
    "example_dataset",
    "register_datamodule",
]

__getattr__, __dir__ = import_on_use(__name__, _MODULES)
