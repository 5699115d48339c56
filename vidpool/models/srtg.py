"""SRTG networks: the residual networks with squeeze and recursion at the end of every block.

"Learn to cycle: Time-consistent feature discovery for action recognition" (Stergiou and Poppe,
Pattern Recognition Letters 141, 2021); keys as in the checkpoints published with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from vidpool.models.recursion import SqueezeRecursion
from vidpool.models.registry import register_model
from vidpool.models.resnet3d import (
    DEPTHS,
    BasicBlock,
    Bottleneck,
    ResNet3d,
    stem_2plus1d,
    stem_3d,
)


class _Recursive(nn.Module):
    """Weighs a block's output by squeeze and recursion: a base to name before the block's class.

    Arguments are those of the block and:

    Args:
        gate: Whether only cycle-consistent clips are weighed.
    """

    def __init__(
        self,
        in_planes: int,
        planes: int,
        stride: int,
        *,
        factorised: bool = False,
        gate: bool = False,
    ) -> None:
        super().__init__(in_planes, planes, stride, factorised=factorised)
        self.sar = SqueezeRecursion(planes, gate=gate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_planes, T, H, W) to (N, planes, T', H', W'), sizes over stride rounded up."""
        return self.sar(super().forward(x))


class RecursiveBasicBlock(_Recursive, BasicBlock):
    """Basic block whose output is weighed by squeeze and recursion."""


class RecursiveBottleneck(_Recursive, Bottleneck):
    """Bottleneck whose output is weighed by squeeze and recursion."""


def _srtg(depth: int, *, factorised: bool, gate: bool, **options: Any) -> ResNet3d:
    """Build the network of `depth` layers with 3D or (2+1)D convolutions.

    Its activations shrink from block to block until training has taught the LSTMs otherwise: in
    evaluation mode with fresh weights the features of srtg_r3d_50 are of the order of 1e-27. In
    training batch norm brings them back, so the gradients of fresh weights grow as fast: on clips
    of 8 x 64 x 64 the stem's norm is 2e2 in srtg_r3d_50, 7e8 in srtg_r2plus1d_101 and 6e17 in
    srtg_r2plus1d_200, which does not survive its first step unless they are clipped
    (`--trainer.gradient_clip_val 1`).
    """
    block = partial(
        RecursiveBasicBlock if depth < 50 else RecursiveBottleneck,
        factorised=factorised,
        gate=gate,
    )
    stem = stem_2plus1d if factorised else stem_3d
    return ResNet3d(DEPTHS[depth], block, stem, **options)


@register_model
def srtg_r3d_18(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-18, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(18, factorised=False, gate=gate, **options)


@register_model
def srtg_r3d_34(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-34, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(34, factorised=False, gate=gate, **options)


@register_model
def srtg_r3d_50(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-50, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(50, factorised=False, gate=gate, **options)


@register_model
def srtg_r3d_101(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-101, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(101, factorised=False, gate=gate, **options)


@register_model
def srtg_r3d_152(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-152, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(152, factorised=False, gate=gate, **options)


@register_model
def srtg_r3d_200(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG 3D ResNet-200, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(200, factorised=False, gate=gate, **options)


@register_model
def srtg_r2plus1d_18(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-18, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(18, factorised=True, gate=gate, **options)


@register_model
def srtg_r2plus1d_34(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-34, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(34, factorised=True, gate=gate, **options)


@register_model
def srtg_r2plus1d_50(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-50, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(50, factorised=True, gate=gate, **options)


@register_model
def srtg_r2plus1d_101(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-101, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(101, factorised=True, gate=gate, **options)


@register_model
def srtg_r2plus1d_152(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-152, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(152, factorised=True, gate=gate, **options)


@register_model
def srtg_r2plus1d_200(*, gate: bool = False, **options: Any) -> ResNet3d:
    """SRTG R(2+1)D-200, whose blocks may have a gate; options as for :class:`ResNet3d`."""
    return _srtg(200, factorised=True, gate=gate, **options)
