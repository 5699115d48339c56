"""Channel-separated residual networks whose bottlenecks do not expand, as in the SRTG family.

"Video Classification with Channel-Separated Convolutional Networks" (Tran et al., ICCV 2019) with
the stem, pool and planes of :mod:`vidpool.models.resnet3d`. Table 7 of the SoftPool paper lists
this network as "ir-CSN-101" with 17.26 G multiply-adds; the network of the CSN paper, whose
bottlenecks expand by four, has 22 M parameters.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from vidpool.models.registry import register_model
from vidpool.models.resnet3d import DEPTHS, Bottleneck, ResNet3d, stem_3d


class ChannelSeparatedBottleneck(Bottleneck):
    """Bottleneck whose 3x3x3 convolution is depthwise: it does not mix channels.

    Args:
        in_planes: Channels of the input.
        planes: Channels of the output and between the convolutions.
        stride: Stride of the 3x3x3 convolution along T, H and W.
        preserving: Preserve the channel interactions by a 1x1x1 convolution with batch norm before
            the depthwise convolution (ip-CSN), or reduce them (ir-CSN).
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, *, preserving: bool = False
    ) -> None:
        super().__init__(in_planes, planes, stride)
        depthwise = nn.Conv3d(
            planes, planes, kernel_size=3, stride=stride, padding=1, groups=planes, bias=False
        )
        mixing = (
            [nn.Conv3d(planes, planes, kernel_size=1, bias=False), nn.BatchNorm3d(planes)]
            if preserving
            else []
        )
        self.conv2[0] = nn.Sequential(*mixing, depthwise)


def _csn(depth: int, *, preserving: bool, **options: Any) -> ResNet3d:
    """Build the network of `depth` layers."""
    block = partial(ChannelSeparatedBottleneck, preserving=preserving)
    return ResNet3d(DEPTHS[depth], block, stem_3d, **options)


@register_model
def ir_csn_50(**options: Any) -> ResNet3d:
    """Interaction-reduced CSN-50 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(50, preserving=False, **options)


@register_model
def ir_csn_101(**options: Any) -> ResNet3d:
    """Interaction-reduced CSN-101 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(101, preserving=False, **options)


@register_model
def ir_csn_152(**options: Any) -> ResNet3d:
    """Interaction-reduced CSN-152 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(152, preserving=False, **options)


@register_model
def ir_csn_200(**options: Any) -> ResNet3d:
    """Interaction-reduced CSN-200 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(200, preserving=False, **options)


@register_model
def ip_csn_50(**options: Any) -> ResNet3d:
    """Interaction-preserved CSN-50 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(50, preserving=True, **options)


@register_model
def ip_csn_101(**options: Any) -> ResNet3d:
    """Interaction-preserved CSN-101 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(101, preserving=True, **options)


@register_model
def ip_csn_152(**options: Any) -> ResNet3d:
    """Interaction-preserved CSN-152 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(152, preserving=True, **options)


@register_model
def ip_csn_200(**options: Any) -> ResNet3d:
    """Interaction-preserved CSN-200 at expansion 1; options as for :class:`ResNet3d`."""
    return _csn(200, preserving=True, **options)
