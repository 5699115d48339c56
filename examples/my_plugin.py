"""A plugin: a custom network, pooling, transform and dataset, used from the command line.

Run it with ``vidpool fit --plugin my_plugin.py --model.backbone tiny --model.pooling median
--data TwoFolders --data.root VIDEOS --data.transform my_plugin.darken``.
"""

from torch import Tensor, nn

import vidpool


@vidpool.register_model
def tiny(*, num_classes: int) -> nn.Module:
    """Build a network; its last linear layer is the head."""
    layers = [nn.Conv3d(3, 8, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool3d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, num_classes))


@vidpool.register_pooling("median", ndim=3)
class MedianPool3d(nn.MaxPool3d):
    """Pool by the median of each window of size k, without padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, (N, C, T, H, W)."""
        for axis in (2, 3, 4):
            x = x.unfold(axis, self.kernel_size, self.stride)
        return x.flatten(5).median(5).values


def darken(clip: Tensor) -> Tensor:
    """Halve the brightness of a clip, uint8 (T, C, H, W)."""
    return clip // 2


@vidpool.register_datamodule
class TwoFolders(vidpool.VideoFolderDataModule):
    """Videos of class folders, with other defaults."""
