"""What the networks share: their frame, checks, initial weights, recomputation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidpool.errors import ConfigError


class VideoNet(nn.Module, ABC):
    """A network over clips: what embeds them, then dropout and a classifier.

    Subclasses make the layers, `dropout` and the one that `head` names among them, and say in
    `_embed` how the others follow each other.

    Args:
        dropout: Probability of dropping a feature before the classifier.
        checkpointing: Compute the network's blocks a second time in the backward pass instead of
            keeping what is inside them; an attribute that may be changed at any time.
        **counts: What has to be at least 1, such as `num_classes` and `width`.

    Raises:
        ConfigError: If a count is below 1, or `dropout` outside [0, 1).
    """

    head: str
    """Dotted name of the layer that makes the logits."""
    dropout: nn.Module

    def __init__(self, *, dropout: float, checkpointing: bool, **counts: int) -> None:
        super().__init__()
        check_options(dropout=dropout, **counts)
        self.checkpointing = checkpointing

    @property
    def heads(self) -> tuple[str, ...]:
        """Dotted names of all layers that depend on the number of classes, `head` first."""
        return (self.head,)

    def forward_features(self, x: Tensor) -> Tensor:
        """Embed clips.

        Args:
            x: (N, C, T, H, W) clips.

        Returns:
            (N, features): what the classifier sees, but for dropout.

        Raises:
            ValueError: If x does not have five dimensions.
        """
        if x.ndim != 5:
            raise ValueError(f"expected clips (N, C, T, H, W), but got shape {tuple(x.shape)}")
        return self._embed(x)

    def forward(self, x: Tensor) -> Tensor:
        """Classify clips.

        Args:
            x: (N, C, T, H, W) clips.

        Returns:
            (N, num_classes) logits.

        Raises:
            ValueError: If x does not have five dimensions.
        """
        return self._classify(self.dropout(self.forward_features(x)))

    @abstractmethod
    def _embed(self, x: Tensor) -> Tensor:
        """Make features (N, features) of clips (N, C, T, H, W)."""

    def _classify(self, features: Tensor) -> Tensor:
        """Make logits (N, num_classes) of features (N, features)."""
        return self.get_submodule(self.head)(features)


def check_options(*, dropout: float, **counts: int) -> None:
    """Check the options of a network's constructor.

    Raises:
        ConfigError: If one of the counts is below 1, or `dropout` outside [0, 1).
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} must be at least 1, but is {count}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be in [0, 1), but is {dropout}")


def initialise(module: nn.Module) -> None:
    """Set fresh weights of one layer; batch norm and LSTM keep PyTorch's."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def run(block: nn.Module, x: Any, *, recompute: bool) -> Any:
    """Apply a block to x, a tensor or a list of such; with `recompute`, keep nothing of its inside.

    The backward pass then computes the block a second time (gradient checkpointing): outputs,
    gradients and running statistics are the same, for less memory and about a third more time.
    Where no gradients are recorded there is nothing to save, and the block is simply applied.
    """
    if recompute and torch.is_grad_enabled():
        # checkpoint() has an argument for contexts, but torch.compile cannot trace such as these
        return checkpoint(_changing_buffers_once(block), x, use_reentrant=False)
    return block(x)


class Chain(nn.Sequential):
    """Modules one after the other, with the keys of :class:`torch.nn.Sequential`."""

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Apply all modules, each as :func:`run` does."""
        for block in self:
            x = run(block, x, recompute=recompute)
        return x


def _changing_buffers_once(block: nn.Module) -> Callable[[Any], Any]:
    """Make a function that applies a block, whose buffers keep what the first call makes of them.

    Batch norm moves its running statistics in the forward pass: computing the block again must
    not move them a second time. Compiled, the block is traced once and nothing is to be done.
    """
    called = False

    def apply(x: Any) -> Any:
        nonlocal called
        if isinstance(x, list):  # which blocks of two pathways may change
            x = list(x)
        if torch.compiler.is_compiling():
            return block(x)
        with _scratch_buffers(block) if called else nullcontext():
            called = True
            return block(x)

    return apply


@contextmanager
def _scratch_buffers(block: nn.Module) -> Iterator[None]:
    """Let a block change copies of its buffers, which are dropped at the end."""
    buffers = [
        (module, name, buffer)
        for module in block.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
