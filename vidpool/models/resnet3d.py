"""3D and (2+1)D residual networks with the keys of the SRTG family's checkpoints.

"Refining activation downsampling with SoftPool" (ICCV 2021) compares these networks in Table 7.
Their bottleneck does not expand: each of its three convolutions has the planes of the stage.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn

from vidpool.models.common import Chain, VideoNet, initialise, run_block
from vidpool.models.registry import register_model

BlockFactory: TypeAlias = Callable[[int, int, int], nn.Module]
"""Function of input planes, output planes and stride that returns a block."""
StemFactory: TypeAlias = Callable[[int, int], nn.Module]
"""Function of the clip's channels and the output planes that returns a stem."""

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Blocks of the four stages by depth: basic blocks below 50 layers, bottlenecks from 50 on."""


class ResNet3d(VideoNet):
    """Residual network over clips: stem, max pool, four stages, global average, linear classifier.

    The stem halves H and W, the pool and stages 2 to 4 halve T, H and W; sizes round up, so any
    clip is large enough.

    Args:
        depths: Number of blocks of each of the four stages.
        block: Function that returns a block.
        stem: Function that returns the layers before the pool.
        num_classes: Number of logits.
        width: Planes of the stem and the first stage; the later stages have 2, 4 and 8 times as
            many planes.
        in_channels: Channels of the clips.
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: See :class:`~vidpool.models.common.VideoNet`, which also lists the
            exceptions.
    """

    head = "fc"

    def __init__(
        self,
        depths: tuple[int, int, int, int],
        block: BlockFactory,
        stem: StemFactory,
        *,
        num_classes: int = 400,
        width: int = 64,
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
        self.stem = stem(in_channels, width)
        self.pool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, depths[0], width, width, stride=1)
        self.layer2 = _stage(block, depths[1], width, 2 * width, stride=2)
        self.layer3 = _stage(block, depths[2], 2 * width, 4 * width, stride=2)
        self.layer4 = _stage(block, depths[3], 4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width, num_classes)
        self.apply(initialise)

    def _embed(self, x: Tensor) -> Tensor:
        """Average over T, H and W: (N, 8 * width)."""
        x = self.pool(run_block(self.stem, x, gradient_checkpointing=self.gradient_checkpointing))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x, self.gradient_checkpointing)
        return self.avgpool(x).flatten(1)


class BasicBlock(nn.Module):
    """Two 3x3x3 convolutions with a shortcut around them.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output and between the convolutions.
        stride: Stride of the first convolution along T, H and W.
        factorised: Factorize the 3x3x3 convolutions into (2+1)D.
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, *, factorised: bool = False
    ) -> None:
        super().__init__()
        middle = _middle_planes(in_planes, planes) if factorised else None
        self.conv1 = nn.Sequential(
            _conv3x3x3(in_planes, planes, stride, middle),
            nn.BatchNorm3d(planes),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            _conv3x3x3(planes, planes, 1, middle),
            nn.BatchNorm3d(planes),
        )
        self.downsample = _shortcut(in_planes, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        return self.relu(self.conv2(self.conv1(x)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A 1x1x1, a 3x3x3 and a 1x1x1 convolution with a shortcut around them.

    It does not expand: the output has as many channels as the 3x3x3 convolution.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output and between the convolutions.
        stride: Stride of the 3x3x3 convolution along T, H and W.
        factorised: Factorize the 3x3x3 convolution into (2+1)D.
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, *, factorised: bool = False
    ) -> None:
        super().__init__()
        middle = _middle_planes(in_planes, planes) if factorised else None
        self.conv1 = nn.Sequential(
            nn.Conv3d(in_planes, planes, kernel_size=1, bias=False),
            nn.BatchNorm3d(planes),
            nn.ReLU(inplace=True),
        )
        self.conv2 = nn.Sequential(
            _conv3x3x3(planes, planes, stride, middle),
            nn.BatchNorm3d(planes),
            nn.ReLU(inplace=True),
        )
        self.conv3 = nn.Sequential(
            nn.Conv3d(planes, planes, kernel_size=1, bias=False),
            nn.BatchNorm3d(planes),
        )
        self.downsample = _shortcut(in_planes, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        return self.relu(self.conv3(self.conv2(self.conv1(x))) + self.downsample(x))


def stem_3d(in_channels: int, planes: int) -> nn.Sequential:
    """Return a 3x7x7 convolution that halves H and W, with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv3d(in_channels, planes, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNorm3d(planes),
        nn.ReLU(inplace=True),
    )


def stem_2plus1d(in_channels: int, planes: int) -> nn.Sequential:
    """Return a 1x7x7 convolution that halves H and W and a 3x1x1, with batch norm and ReLU each."""
    middle = max(1, 45 * planes // 64)
    return nn.Sequential(
        nn.Conv3d(in_channels, middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, planes, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNorm3d(planes),
        nn.ReLU(inplace=True),
    )


def _stage(block: BlockFactory, depth: int, in_planes: int, planes: int, stride: int) -> Chain:
    """Chain `depth` blocks; the first has the stride."""
    rest = (block(planes, planes, 1) for _ in range(depth - 1))
    return Chain(block(in_planes, planes, stride), *rest)


def _conv3x3x3(in_planes: int, planes: int, stride: int, middle: int | None) -> nn.Sequential:
    """Return a 3x3x3 convolution, or, given `middle` planes, a 1x3x3 and a 3x1x1 convolution."""
    if middle is None:
        return nn.Sequential(
            nn.Conv3d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        )
    return nn.Sequential(
        nn.Conv3d(
            in_planes, middle, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1), bias=False
        ),
        nn.BatchNorm3d(middle),
        nn.ReLU(inplace=True),
        nn.Conv3d(middle, planes, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
    )


def _middle_planes(in_planes: int, planes: int) -> int:
    """Return the planes between the two halves of a (2+1)D convolution.

    With these planes, the halves have as many weights as a 3D convolution: equation in section 3.5
    of "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (CVPR 2018). As in the
    published checkpoints, it uses the input planes of the block for all convolutions of a block.
    """
    return (27 * in_planes * planes) // (9 * in_planes + 3 * planes)


def _shortcut(in_planes: int, planes: int, stride: int) -> nn.Module:
    """Return a projection if the block changes the shape, else an Identity, which has no keys."""
    if stride == 1 and in_planes == planes:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv3d(in_planes, planes, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm3d(planes),
    )


def _resnet(depth: int, *, factorised: bool, **options: Any) -> ResNet3d:
    """Build the network of `depth` layers with 3D or (2+1)D convolutions."""
    block = partial(BasicBlock if depth < 50 else Bottleneck, factorised=factorised)
    stem = stem_2plus1d if factorised else stem_3d
    return ResNet3d(DEPTHS[depth], block, stem, **options)


@register_model
def r3d_18(**options: Any) -> ResNet3d:
    """3D ResNet-18; options as for :class:`ResNet3d`."""
    return _resnet(18, factorised=False, **options)


@register_model
def r3d_34(**options: Any) -> ResNet3d:
    """3D ResNet-34; options as for :class:`ResNet3d`."""
    return _resnet(34, factorised=False, **options)


@register_model
def r3d_50(**options: Any) -> ResNet3d:
    """3D ResNet-50; options as for :class:`ResNet3d`."""
    return _resnet(50, factorised=False, **options)


@register_model
def r3d_101(**options: Any) -> ResNet3d:
    """3D ResNet-101; options as for :class:`ResNet3d`."""
    return _resnet(101, factorised=False, **options)


@register_model
def r3d_152(**options: Any) -> ResNet3d:
    """3D ResNet-152; options as for :class:`ResNet3d`."""
    return _resnet(152, factorised=False, **options)


@register_model
def r3d_200(**options: Any) -> ResNet3d:
    """3D ResNet-200; options as for :class:`ResNet3d`."""
    return _resnet(200, factorised=False, **options)


@register_model
def r2plus1d_18(**options: Any) -> ResNet3d:
    """R(2+1)D-18; options as for :class:`ResNet3d`."""
    return _resnet(18, factorised=True, **options)


@register_model
def r2plus1d_34(**options: Any) -> ResNet3d:
    """R(2+1)D-34; options as for :class:`ResNet3d`."""
    return _resnet(34, factorised=True, **options)


@register_model
def r2plus1d_50(**options: Any) -> ResNet3d:
    """R(2+1)D-50; options as for :class:`ResNet3d`."""
    return _resnet(50, factorised=True, **options)


@register_model
def r2plus1d_101(**options: Any) -> ResNet3d:
    """R(2+1)D-101; options as for :class:`ResNet3d`."""
    return _resnet(101, factorised=True, **options)


@register_model
def r2plus1d_152(**options: Any) -> ResNet3d:
    """R(2+1)D-152; options as for :class:`ResNet3d`."""
    return _resnet(152, factorised=True, **options)


@register_model
def r2plus1d_200(**options: Any) -> ResNet3d:
    """R(2+1)D-200; options as for :class:`ResNet3d`."""
    return _resnet(200, factorised=True, **options)
