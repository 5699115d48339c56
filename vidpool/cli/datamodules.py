"""The datamodules that configs may name by their class alone."""

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.hacs import HACSDataModule
from vidpool.data.kinetics import Kinetics700DataModule
from vidpool.data.shards import ShardDataModule
from vidpool.data.ucf101 import UCF101DataModule
from vidpool.data.video_folder import VideoFolderDataModule

__all__ = [
    "HACSDataModule",
    "Kinetics700DataModule",
    "ShardDataModule",
    "UCF101DataModule",
    "VideoDataModule",
    "VideoFolderDataModule",
]
