"""The datamodules that configs may name by their class alone."""

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.datasets.hacs import HACSDataModule
from vidpool.data.datasets.kinetics import Kinetics700DataModule
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.data.shards.datamodule import ShardDataModule

__all__ = [
    "HACSDataModule",
    "Kinetics700DataModule",
    "ShardDataModule",
    "UCF101DataModule",
    "VideoDataModule",
    "VideoFolderDataModule",
]
