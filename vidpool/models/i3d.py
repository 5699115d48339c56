"""I3D: Inception-v1 inflated to 3D, with the keys of the public PyTorch ports.

"Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset" (CVPR 2017). The network was
published in TensorFlow with "SAME" padding: a convolution or pooling layer with stride s maps n
cells to ceil(n / s); the padding for this is split evenly, with an odd cell at the end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from vidpool.models.common import VideoNet, initialise, run_block
from vidpool.models.registry import register_model


class Planes(NamedTuple):
    """Output channels of an Inception module's convolutions, by their names in the checkpoints."""

    b0: int
    b1a: int
    b1b: int
    b2a: int
    b2b: int
    b3b: int

    def total(self) -> int:
        """Return the number of channels of the four branches together."""
        return self.b0 + self.b1b + self.b2b + self.b3b


MIXED = {
    "3b": Planes(64, 96, 128, 16, 32, 32),
    "3c": Planes(128, 128, 192, 32, 96, 64),
    "4b": Planes(192, 96, 208, 16, 48, 64),
    "4c": Planes(160, 112, 224, 24, 64, 64),
    "4d": Planes(128, 128, 256, 24, 64, 64),
    "4e": Planes(112, 144, 288, 32, 64, 64),
    "4f": Planes(256, 160, 320, 32, 128, 128),
    "5b": Planes(256, 160, 320, 32, 128, 128),
    "5c": Planes(384, 192, 384, 48, 128, 128),
}
"""The nine Inception modules at width 64 (table 1 of "Going Deeper with Convolutions")."""

BODY = (
    "Conv3d_1a_7x7",
    "MaxPool3d_2a_3x3",
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    "MaxPool3d_3a_3x3",
    "Mixed_3b",
    "Mixed_3c",
    "MaxPool3d_4a_3x3",
    "Mixed_4b",
    "Mixed_4c",
    "Mixed_4d",
    "Mixed_4e",
    "Mixed_4f",
    "MaxPool3d_5a_2x2",
    "Mixed_5b",
    "Mixed_5c",
)
"""Layers before the head, in order, by their names in the checkpoints."""


class I3D(VideoNet):
    """Inception-v1 over clips.

    T is halved by the first convolution and by two of the four poolings, H and W by all five;
    sizes round up, so any clip is large enough. The head averages windows of (2, 7, 7) cells, or
    the whole map along an axis that is smaller, and then the windows: this gives the features of
    the published network's logits, averaged over time. Dropout applies to the features of the clip,
    in the published network to those of each window.

    Every max pooling layer is a :class:`torch.nn.MaxPool3d` that `swap_pooling` can replace, and
    its padding has no weight in any pooling method. The published network pads with zeros, which
    gives the same maxima after ReLU but would change other pooling methods.

    Args:
        num_classes: Number of logits.
        width: Planes of the first convolution, 64 in the paper; all others scale with it.
        in_channels: Channels of the clips.
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: See :class:`~vidpool.models.common.VideoNet`, which also lists the
            exceptions.
    """

    head = "logits.conv3d"

    def __init__(
        self,
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
        mixed = {
            name: Planes(*(_scaled(planes, width) for planes in full))
            for name, full in MIXED.items()
        }
        after_2c = _scaled(192, width)
        self.Conv3d_1a_7x7 = Unit(in_channels, width, 7, stride=2)
        self.MaxPool3d_2a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit(width, width, 1)
        self.Conv3d_2c_3x3 = Unit(width, after_2c, 3)
        self.MaxPool3d_3a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Inception(after_2c, mixed["3b"])
        self.Mixed_3c = Inception(mixed["3b"].total(), mixed["3c"])
        self.MaxPool3d_4a_3x3 = SamePool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Inception(mixed["3c"].total(), mixed["4b"])
        self.Mixed_4c = Inception(mixed["4b"].total(), mixed["4c"])
        self.Mixed_4d = Inception(mixed["4c"].total(), mixed["4d"])
        self.Mixed_4e = Inception(mixed["4d"].total(), mixed["4e"])
        self.Mixed_4f = Inception(mixed["4e"].total(), mixed["4f"])
        # windows of two cells do not overlap, so ceil_mode equals SAME padding
        self.MaxPool3d_5a_2x2 = nn.MaxPool3d(kernel_size=2, stride=2, ceil_mode=True)
        self.Mixed_5b = Inception(mixed["4f"].total(), mixed["5b"])
        self.Mixed_5c = Inception(mixed["5b"].total(), mixed["5c"])
        self.avg_pool = WindowAverage((2, 7, 7))
        self.dropout = nn.Dropout(dropout)
        classifier = nn.Conv3d(mixed["5c"].total(), num_classes, kernel_size=1)
        self.logits = nn.Sequential(OrderedDict(conv3d=classifier))
        self.apply(initialise)
        nn.init.normal_(classifier.weight, std=0.01)

    def _embed(self, x: Tensor) -> Tensor:
        """Average over T, H and W: (N, 16 * width)."""
        for name in BODY:
            x = run_block(
                self.get_submodule(name), x, gradient_checkpointing=self.gradient_checkpointing
            )
        return self.avg_pool(x).mean(dim=(2, 3, 4))

    def _classify(self, features: Tensor) -> Tensor:
        return self.logits(features[..., None, None, None]).flatten(1)


class Unit(nn.Module):
    """Convolution with "SAME" padding, batch norm and ReLU.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output.
        kernel_size: Size of the kernel along T, H and W, odd.
        stride: Stride along T, H and W.
    """

    def __init__(self, in_planes: int, planes: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = SameConv3d(in_planes, planes, kernel_size, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(planes, eps=1e-3, momentum=0.01)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        return self.relu(self.bn(self.conv3d(x)))


class Inception(nn.Module):
    """Four parallel branches: 1x1x1, twice 1x1x1 and 3x3x3, and pooling and 1x1x1.

    Args:
        in_planes: Channels of the input.
        planes: Output channels of the convolutions.
    """

    def __init__(self, in_planes: int, planes: Planes) -> None:
        super().__init__()
        self.b0 = Unit(in_planes, planes.b0, 1)
        self.b1a = Unit(in_planes, planes.b1a, 1)
        self.b1b = Unit(planes.b1a, planes.b1b, 3)
        self.b2a = Unit(in_planes, planes.b2a, 1)
        self.b2b = Unit(planes.b2a, planes.b2b, 3)
        self.b3a = nn.MaxPool3d(kernel_size=3, stride=1, padding=1)
        self.b3b = Unit(in_planes, planes.b3b, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes.total(), T, H, W)."""
        branches = (
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3b(self.b3a(x)),
        )
        return torch.cat(branches, dim=1)


class SameConv3d(nn.Conv3d):
    """Convolution with TensorFlow's "SAME" padding; takes its base's arguments except padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to (N, C', T', H', W'), sizes over stride rounded up."""
        return super().forward(_pad_same(x, self.kernel_size, self.stride))


class SamePool(nn.Module):
    """Max pooling with "SAME" padding; each axis has size 3 and stride 2, or size 1 and stride 1.

    The pooling layer is the child `pool`, so that it can be replaced by another layer of its
    geometry. It pads one cell on both sides, which is "SAME" padding for an odd size. An even size
    must be padded at the end only: with one more cell at the start, all windows except the first
    are the required ones, and none of them contains that cell.

    Args:
        kernel_size: Size of the window along T, H and W, each 3 or 1.
        stride: Stride along T, H and W, 2 if the window has size 3.
    """

    def __init__(self, kernel_size: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        t, h, w = kernel_size
        self.pool = nn.MaxPool3d(kernel_size, stride, padding=(t // 2, h // 2, w // 2))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, H, W) to (N, C, T', H', W'), sizes over stride rounded up."""
        pooled = self.pool(_pad_even_start(x, self.stride))
        return _crop_start(pooled, x, self.stride)


class WindowAverage(nn.AvgPool3d):
    """Average pooling with stride 1 and a window that shrinks to the size of the map.

    Args:
        window: Largest size of the window along T, H and W.
    """

    def __init__(self, window: tuple[int, int, int]) -> None:
        super().__init__(window, stride=1)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Average (N, C, T, H, W) over every position of the window."""
        return _average_windows(x, self.window)


def _scaled(planes: int, width: int) -> int:
    """Return the planes of a convolution that has `planes` in the network of width 64."""
    return max(1, planes * width // 64)


# torch.fx records the wrapped functions as calls, since a traced size is not a number.


@fx.wrap
def _pad_same(x: Tensor, kernel_size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Pad (N, C, T, H, W) by zeros as TensorFlow's "SAME" padding does."""
    padding: list[int] = []
    for size, kernel, step in zip(x.shape[2:], kernel_size, stride, strict=True):
        total = max(0, (-(-size // step) - 1) * step + kernel - size)
        padding = [total // 2, total - total // 2, *padding]  # F.pad starts with the last axis
    return F.pad(x, padding) if any(padding) else x


@fx.wrap
def _pad_even_start(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Pad (N, C, T, H, W) by one zero at the start of axes of even size and stride 2."""
    t, h, w = _even_axes(x, stride)
    return F.pad(x, (w, 0, h, 0, t, 0)) if t or h or w else x


@fx.wrap
def _crop_start(pooled: Tensor, x: Tensor, stride: Sequence[int]) -> Tensor:
    """Remove the windows that `_pad_even_start` added to x, the input before its padding."""
    t, h, w = _even_axes(x, stride)
    return pooled[:, :, t:, h:, w:]


def _even_axes(x: Tensor, stride: Sequence[int]) -> tuple[int, int, int]:
    """Return 1 for each of T, H and W whose size is even and whose stride is 2, else 0."""
    sizes = zip(x.shape[2:], stride, strict=True)
    t, h, w = (int(step == 2 and size % 2 == 0) for size, step in sizes)
    return t, h, w


@fx.wrap
def _average_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """Average (N, C, T, H, W) over every position of the window, at most as large as the map."""
    cells = [min(pair) for pair in zip(window, x.shape[2:], strict=True)]
    return F.avg_pool3d(x, cells, stride=1)


@register_model
def i3d(**options: Any) -> I3D:
    """I3D, Inception-v1 inflated; options as for :class:`I3D`."""
    return I3D(**options)
