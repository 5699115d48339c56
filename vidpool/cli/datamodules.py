"""The datamodules that configs may name by their class alone."""

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.sets.hacs import HACSDataModule
from vidpool.data.sets.kinetics import Kinetics700DataModule
from vidpool.data.sets.ucf101 import UCF101DataModule
from vidpool.data.sets.video_folder import VideoFolderDataModule
from vidpool.data.shards import ShardDataModule

__all__ = [
    "HACSDataModule",
    "Kinetics700DataModule",
    "ShardDataModule",
    "UCF101DataModule",
    "VideoDataModule",
    "VideoFolderDataModule",
]
