"""The squeeze-and-recursion block, with the temporal gate of the SRTG networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SqueezeRecursion(nn.Module):
    """Weigh every step and channel of a clip with the output of an LSTM over the clip's time.

    The map is averaged over H and W, the sequence of averages goes through an LSTM with as many
    hidden units as channels, and its output multiplies the map ("Learn to cycle: Time-consistent
    feature discovery for action recognition", Stergiou and Poppe, Pattern Recognition Letters 141,
    2021). Training and evaluation are the same.

    The public networks have no gate. With it, a clip is multiplied only if its averages and the
    LSTM's output are cycle-consistent, as :func:`cycle_consistent` has it; the other clips of the
    batch pass as they are.

    The LSTM is PyTorch's own, where `torch.compile` breaks the graph; with
    `torch._dynamo.config.allow_rnn` there is one graph with the steps of the LSTM unrolled.

    Args:
        channels: Channels of the map.
        layers: Number of LSTMs on top of each other.
        gate: Whether cycle consistency decides.
    """

    def __init__(self, channels: int, *, layers: int = 2, gate: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, num_layers=layers)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Weigh (N, C, T, H, W); shape and dtype stay."""
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
        """Return what `repr` shows beside the LSTM."""
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
    """Whether the nearest neighbours of a sequence's steps, in another, lead back to the steps.

    Step i of `first` has a nearest neighbour j in `second` (Euclidean distance), and j has one in
    `first`: the two sequences are cycle-consistent if that is i, for every i. For sequences of one
    length it is the same from `second`'s side. Of steps that are equally near, one is taken, so
    steps that repeat are not consistent. No gradient flows through the decision.

    Args:
        first: (N, T, C) sequences.
        second: (N, T', C) sequences.

    Returns:
        (N,) booleans.
    """
    # bfloat16 and float16 would make neighbours of steps that are merely close
    dtype = torch.promote_types(first.dtype, torch.float32)
    distances = torch.cdist(
        first.detach().to(dtype),
        second.detach().to(dtype),
        compute_mode="donot_use_mm_for_euclid_dist",  # which cancels where steps are close
    )
    back = distances.argmin(dim=1).gather(1, distances.argmin(dim=2))
    return (back == torch.arange(first.shape[1], device=first.device)).all(dim=1)
