"""SRTG networks: residual networks whose blocks end with squeeze and recursion.

"Learn to cycle: Time-consistent feature discovery for action recognition" (Stergiou and Poppe,
Pattern Recognition Letters 141, 2021); keys as in the checkpoints published with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vidpool.models.registry import register_model
from vidpool.models.resnet3d import (
    DEPTHS,
    BasicBlock,
    Bottleneck,
    ResNet3d,
    stem_2plus1d,
    stem_3d,
)


class SqueezeRecursion(nn.Module):
    """Squeeze and recursion: multiply a feature map by the output of an LSTM over time.

    The map is averaged over H and W, the sequence of averages passes through an LSTM with as many
    hidden units as channels, and the map is multiplied by its output. Training and evaluation are
    the same.

    The published networks have no gate. With a gate, a clip is multiplied only if its averages and
    the LSTM's output are cycle-consistent (see :func:`cycle_consistent`); other clips of the batch
    stay unchanged.

    `torch.compile` breaks the graph at PyTorch's LSTM; with `torch._dynamo.config.allow_rnn`, it
    traces one graph with the steps of the LSTM unrolled.

    Args:
        channels: Channels of the map.
        layers: Number of stacked LSTM layers.
        gate: Multiply cycle-consistent clips only.
    """

    def __init__(self, channels: int, *, layers: int = 2, gate: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers=layers)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (N, C, T, H, W) by the LSTM's output; shape and dtype stay."""
        squeezed = x.mean(dim=(3, 4)).permute(2, 0, 1)
        if not torch.jit.is_scripting():
            squeezed = _cast_for_autocast(squeezed)
        recurred, _ = self.lstm(squeezed)
        weights = recurred.permute(1, 2, 0)
        if self.gate:
            consistent = cycle_consistent(squeezed.transpose(0, 1), recurred.transpose(0, 1))
            weights = weights.where(consistent[:, None, None], 1)
        return x * weights[..., None, None].to(x.dtype)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"gate={self.gate}"


@torch.fx.wrap  # autocast's state is read when a traced network runs
def _cast_for_autocast(x: Tensor) -> Tensor:
    """Cast to the dtype that autocast computes in; without autocast, return x itself.

    Autocast would cast the input of an LSTM only after PyTorch has chosen an implementation by the
    input's dtype: on CPUs without bfloat16 or float16 instructions, one that refuses them.
    """
    device = x.device.type
    # a device such as "meta" has no autocast
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


def cycle_consistent(first: Tensor, second: Tensor) -> Tensor:
    """Return which pairs of sequences are cycle-consistent.

    Step i of `first` has a nearest neighbor j in `second` (Euclidean distance), and j has a nearest
    neighbor in `first`. The two sequences are cycle-consistent if the latter is i for every i. If
    their lengths are equal, the order of the two does not matter. Ties are broken, so sequences
    with repeated steps are not consistent. No gradient flows through the decision.

    Args:
        first: (N, T, C) sequences.
        second: (N, T', C) sequences.

    Returns:
        (N,) booleans.
    """
    # bfloat16 and float16 cannot tell steps apart that are close
    dtype = torch.promote_types(first.dtype, torch.float32)
    distances = torch.cdist(
        first.detach().to(dtype),
        second.detach().to(dtype),
        compute_mode="donot_use_mm_for_euclid_dist",  # matrix products cancel if steps are close
    )
    back = distances.argmin(dim=1).gather(1, distances.argmin(dim=2))
    return (back == torch.arange(first.shape[1], device=first.device)).all(dim=1)


class _Recursive(nn.Module):
    """Mixin that applies squeeze and recursion to a block's output; the block's class comes second.

    Takes the arguments of the block and:

    Args:
        gate: Apply it to cycle-consistent clips only.
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
    """Basic block followed by squeeze and recursion."""


class RecursiveBottleneck(_Recursive, Bottleneck):
    """Bottleneck followed by squeeze and recursion."""


def _srtg(depth: int, *, factorised: bool, gate: bool, **options: Any) -> ResNet3d:
    """Build the network of `depth` layers with 3D or (2+1)D convolutions.

    Before training, the LSTMs make activations shrink from block to block: in evaluation mode with
    initial weights, the features of srtg_r3d_50 are of the order of 1e-27. In training mode, batch
    norm rescales them, so the gradients of initial weights grow as fast: on clips of 8 x 64 x 64,
    the gradient norm of the stem is 2e2 in srtg_r3d_50, 7e8 in srtg_r2plus1d_101 and 6e17 in
    srtg_r2plus1d_200. The latter diverges in the first step unless gradients are clipped
    (`gradient_clip_val=1` of the trainer).
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
