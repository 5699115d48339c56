"""Base class of the networks, option checks, weight initialization, gradient checkpointing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from vidpool.errors import ConfigError


class VideoNet(nn.Module, ABC):
    """A network over clips: a backbone, dropout and a classifier.

    Subclasses create the layers, including `dropout` and the classifier that `head` names, and
    implement the backbone's forward pass in `_embed`.

    Args:
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: Recompute the activations inside each block in the backward pass
            instead of storing them. The attribute of this name may be changed at any time.
        **counts: Options that must be at least 1, such as `num_classes` and `width`.

    Raises:
        ConfigError: If a count is below 1, or `dropout` is outside [0, 1).
    """

    head: str
    """Dotted name of the layer that computes the logits."""
    input_convolutions: tuple[str, ...] = ()
    """Dotted names of the convolutions that take the clip; empty means the first convolution."""
    dropout: nn.Module

    def __init__(self, *, dropout: float, gradient_checkpointing: bool, **counts: int) -> None:
        super().__init__()
        check_options(dropout=dropout, **counts)
        self.gradient_checkpointing = gradient_checkpointing

    @property
    def heads(self) -> tuple[str, ...]:
        """Dotted names of all layers that depend on the number of classes, `head` first."""
        return (self.head,)

    def forward_features(self, x: Tensor) -> Tensor:
        """Embed clips.

        Args:
            x: (N, C, T, H, W) clips.

        Returns:
            (N, features): the classifier's input before dropout.

        Raises:
            ValueError: If x does not have five dimensions.
        """
        check_clips(x)
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
        """Return the features (N, features) of clips (N, C, T, H, W)."""

    def _classify(self, features: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of features (N, features)."""
        return self.get_submodule(self.head)(features)


@fx.wrap
def check_clips(x: Tensor) -> None:
    """Check that x has the five dimensions of clips (N, C, T, H, W).

    Raises:
        ValueError: If x has another number of dimensions.
    """
    if x.ndim != 5:
        raise ValueError(f"expected clips (N, C, T, H, W), but got shape {tuple(x.shape)}")


def check_options(*, dropout: float, **counts: int) -> None:
    """Check the options of a network's constructor.

    Raises:
        ConfigError: If a count is below 1, or `dropout` is outside [0, 1).
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} must be at least 1, but is {count}", name)
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be in [0, 1), but is {dropout}", "dropout")


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a copy on the meta device in evaluation mode."""
    tensors: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        empty = tensor.detach().to("meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        tensors[id(tensor)] = nn.Parameter(empty, False) if is_parameter else empty
    return deepcopy(model, tensors).eval()


def first_convolution(model: nn.Module) -> nn.Conv2d | nn.Conv3d | None:
    """Return the first 2D or 3D convolution of a network; None if there is none."""
    convolutions = (each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Conv3d))
    return next(convolutions, None)


def initialise(module: nn.Module) -> None:
    """Initialize the weights of one layer; batch norm and LSTM keep PyTorch's initialization."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def run_block(block: nn.Module, x: Any, *, gradient_checkpointing: bool) -> Any:
    """Apply a block to x, a tensor or a list of tensors.

    With `gradient_checkpointing`, the activations inside the block are recomputed in the backward
    pass instead of stored. Outputs, gradients and running statistics are the same; training takes
    less memory and about a third more time. Without gradients, the option has no effect.
    """
    if gradient_checkpointing and torch.is_grad_enabled():
        # checkpoint() has an argument for contexts, but torch.compile cannot trace these contexts
        return checkpoint(_updating_buffers_once(block), x, use_reentrant=False)
    return block(x)


class Chain(nn.Sequential):
    """Sequence of blocks with gradient checkpointing and the keys of `torch.nn.Sequential`."""

    def forward(self, x: Tensor, gradient_checkpointing: bool = False) -> Tensor:
        """Apply every module by :func:`run_block`."""
        for block in self:
            x = run_block(block, x, gradient_checkpointing=gradient_checkpointing)
        return x


def _updating_buffers_once(block: nn.Module) -> Callable[[Any], Any]:
    """Return a function that applies a block and updates its buffers only in the first call.

    Batch norm updates its running statistics in the forward pass: recomputing the block must not
    update them a second time. A compiled block is traced once and needs no such protection.
    """
    called = False

    def apply(x: Any) -> Any:
        nonlocal called
        if isinstance(x, list):  # blocks with two pathways may modify the list
            x = list(x)
        if torch.compiler.is_compiling():
            return block(x)
        with _scratch_buffers(block) if called else nullcontext():
            called = True
            return block(x)

    return apply


@contextmanager
def _scratch_buffers(block: nn.Module) -> Iterator[None]:
    """Let a block update copies of its buffers, which are discarded at the end."""
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
