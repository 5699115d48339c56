"""MF-Net, with convolutions in sixteen separate fibers and the keys of published checkpoints.

"Multi-Fiber Networks for Video Recognition" (Chen et al., ECCV 2018).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from vidpool.models.common import Chain, VideoNet, initialise, run_block
from vidpool.models.registry import register_model

DEPTHS = (3, 4, 6, 3)
"""Units of the four stages."""


class MFNet(VideoNet):
    """Multi-fiber network over clips: convolution, max pool, four stages, global average.

    T is halved by the first stage, H and W by the first convolution, the pool and the later three
    stages; sizes round up, so any clip is large enough. The published network averages windows of
    (8, 7, 7) cells, the whole map for clips of 16 x 224 x 224, and supports no other size; this one
    averages the whole map of any clip.

    Args:
        num_classes: Number of logits.
        width: Number of fibers, and planes of the first convolution; the four stages have 6, 12,
            24 and 48 times as many planes.
        in_channels: Channels of the clips.
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: See :class:`~vidpool.models.common.VideoNet`, which also lists the
            exceptions.
    """

    head = "classifier"

    def __init__(
        self,
        *,
        num_classes: int = 400,
        width: int = 16,
        in_channels: int = 3,
        dropout: float = 0.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            width=width,
            in_channels=in_channels,
            dropout=dropout,
            gradient_checkpointing=gradient_checkpointing,
        )
        conv = nn.Conv3d(
            in_channels, width, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2), bias=False
        )
        self.conv1 = nn.Sequential(
            OrderedDict(conv=conv, bn=nn.BatchNorm3d(width), relu=nn.ReLU(inplace=True))
        )
        self.maxpool = nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.conv2 = _stage(DEPTHS[0], width, 6 * width, (2, 1, 1), width)
        self.conv3 = _stage(DEPTHS[1], 6 * width, 12 * width, (1, 2, 2), width)
        self.conv4 = _stage(DEPTHS[2], 12 * width, 24 * width, (1, 2, 2), width)
        self.conv5 = _stage(DEPTHS[3], 24 * width, 48 * width, (1, 2, 2), width)
        self.tail = nn.Sequential(
            OrderedDict(bn=nn.BatchNorm3d(48 * width), relu=nn.ReLU(inplace=True))
        )
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(48 * width, num_classes)
        self.apply(initialise)

    def _embed(self, x: Tensor) -> Tensor:
        """Average over T, H and W: (N, 48 * width)."""
        x = self.maxpool(
            run_block(self.conv1, x, gradient_checkpointing=self.gradient_checkpointing)
        )
        for stage in (self.conv2, self.conv3, self.conv4, self.conv5):
            x = stage(x, self.gradient_checkpointing)
        return self.avgpool(self.tail(x)).flatten(1)


class MultiFiberUnit(nn.Module):
    """Multiplexer and two grouped convolutions with a shortcut around them.

    The multiplexer, two 1x1x1 convolutions with their own shortcut, exchanges information between
    the fibers. The first grouped convolution is 3x3x3, the second 1x3x3. In a unit that changes the
    shape, the second is a plain 1x1x1 convolution, and the shortcut is a projection.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output and between the grouped convolutions.
        stride: Stride of the first grouped convolution along T, H and W.
        fibers: Number of groups.
        project: Whether the unit changes the shape.
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: tuple[int, int, int],
        fibers: int,
        *,
        project: bool,
    ) -> None:
        super().__init__()
        bottleneck = planes // 4
        self.conv_i1 = PreActivated(in_planes, bottleneck, (1, 1, 1))
        self.conv_i2 = PreActivated(bottleneck, in_planes, (1, 1, 1))
        self.conv_m1 = PreActivated(in_planes, planes, (3, 3, 3), stride, fibers)
        if project:
            self.conv_m2 = PreActivated(planes, planes, (1, 1, 1))
            self.conv_w1: nn.Module = PreActivated(in_planes, planes, (1, 1, 1), stride)
        else:
            self.conv_m2 = PreActivated(planes, planes, (1, 3, 3), groups=fibers)
            self.conv_w1 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        mixed = x + self.conv_i2(self.conv_i1(x))
        return self.conv_m2(self.conv_m1(mixed)) + self.conv_w1(x)


class PreActivated(nn.Module):
    """Batch norm, ReLU and a convolution whose padding keeps the size up to the stride.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output.
        kernel_size: Size of the kernel along T, H and W, odd.
        stride: Stride along T, H and W.
        groups: Number of groups of the convolution.
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        kernel_size: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        groups: int = 1,
    ) -> None:
        super().__init__()
        t, h, w = kernel_size
        self.bn = nn.BatchNorm3d(in_planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv3d(
            in_planes,
            planes,
            kernel_size,
            stride=stride,
            padding=(t // 2, h // 2, w // 2),
            groups=groups,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        return self.conv(self.relu(self.bn(x)))


def _stage(
    depth: int, in_planes: int, planes: int, stride: tuple[int, int, int], fibers: int
) -> Chain:
    """Chain `depth` units named B01, B02 and so on; the first has the stride."""
    units = [MultiFiberUnit(in_planes, planes, stride, fibers, project=True)]
    for _ in range(depth - 1):
        units.append(MultiFiberUnit(planes, planes, (1, 1, 1), fibers, project=False))
    return Chain(OrderedDict((f"B{i:02d}", unit) for i, unit in enumerate(units, start=1)))


@register_model
def mfnet(**options: Any) -> MFNet:
    """MF-Net; options as for :class:`MFNet`."""
    return MFNet(**options)
