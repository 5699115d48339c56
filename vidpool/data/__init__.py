"""Datasets of labelled videos: datamodules, clip sampling, augmentation and data loaders.

The names below are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "Augmentation": "transforms.augmentation",
    "EvaluationViews": "dataset",
    "HACSDataModule": "datasets.hacs_kinetics",
    "ImageFolderDataModule": "datasets.image_folder",
    "Kinetics700DataModule": "datasets.hacs_kinetics",
    "ListedDataModule": "listed",
    "ShardDataModule": "shards.datamodule",
    "TrainingClips": "dataset",
    "UCF101DataModule": "datasets.ucf101",
    "VideoDataModule": "datamodule",
    "VideoFolderDataModule": "datasets.video_folder",
    "datamodules": "registry",
    "example_dataset": "datasets.example",
    "register_datamodule": "registry",
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


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
