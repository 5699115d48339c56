"""The heads of any network, and the features that enter them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.models.common import meta_copy


def heads_of(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the layers that compute logits.

    A network names them in its attribute `heads`, a tuple or list of strings. In a network without
    this attribute, the head is the last `torch.nn.Linear`.

    Args:
        model: Any network.

    Returns:
        Names of layers, the head that features enter first; empty if there is no head.

    Raises:
        ConfigError: If `heads` names a layer that the network does not have.

    Examples:
        >>> from torchvision.models import resnet18
        >>> from vidpool.models import heads_of
        >>> heads_of(resnet18())
        ('fc',)
    """
    heads = getattr(model, "heads", None)
    # torchvision's ViT has a module of that name
    if not isinstance(heads, (tuple, list)) or not all(isinstance(head, str) for head in heads):
        linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        return tuple(name for name in linear[-1:] if name)
    for head in heads:
        try:
            model.get_submodule(head)
        except AttributeError as error:
            raise ConfigError(
                f"{type(model).__name__}.heads names {head!r}, but the network has no such layer"
            ) from error
    return tuple(heads)


def features_of(model: nn.Module, clip: Tensor) -> Tensor:
    """Return the features of clips: the input of the classifier.

    Features are what the network's method `forward_features` returns, if it returns (N, F). For
    other networks, they are the input of the first layer of :func:`heads_of` in a forward pass.

    Args:
        model: Any network, in the mode (training or evaluation) that is wanted.
        clip: (N, C, T, H, W) clips or (N, C, H, W) pictures, as the network takes them.

    Returns:
        (N, F) features.

    Raises:
        ConfigError: If the network has neither `forward_features` nor a head, or if its forward
            pass does not call the head.

    Examples:
        >>> import torch
        >>> from torchvision.models import resnet18
        >>> from vidpool.models import features_of
        >>> features_of(resnet18().eval(), torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 512])
    """
    forward_features = getattr(model, "forward_features", None)
    if callable(forward_features):
        features = forward_features(clip)
        # timm's networks have a method of that name that returns maps
        if isinstance(features, Tensor) and features.ndim == 2:
            return features
    heads = heads_of(model)
    kind = type(model).__name__
    if not heads:
        raise ConfigError(
            f"{kind} has no features: it has no torch.nn.Linear, whose input these would be. Give "
            "it a method forward_features, or an attribute heads with the names of the layers that "
            "compute logits",
            argument="model",
        )
    inputs: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append((*args, *kwargs.values())[0])

    handle = model.get_submodule(heads[0]).register_forward_pre_hook(record, with_kwargs=True)
    try:
        model._call_impl(clip)  # a compiled network would compile again because of the hook
    finally:
        handle.remove()
    if not inputs:
        raise ConfigError(
            f"{kind} has no features: its forward pass does not call the head {heads[0]!r}. Name "
            "the layers that compute logits in an attribute heads, or add forward_features",
            argument="model",
        )
    return inputs[-1].reshape(len(clip), -1)


def check_network(
    model: nn.Module, num_classes: int, name: str, example: Sequence[int] | None = None
) -> None:
    """Check what a network of a user returns, without running it on real data.

    The heads must have `num_classes` outputs. If the network does not name its heads, a copy of it
    also computes logits on the meta device, which takes no memory; networks that cannot run there
    are not checked further.

    Args:
        model: The network.
        num_classes: Number of logits.
        name: Name of the network for messages.
        example: Shape of a small input.

    Raises:
        ConfigError: If it is no `torch.nn.Module`, if `heads` names a layer that does not exist, or
            if it computes another number of logits.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} built {type(model).__name__}, which is no torch.nn.Module")
    for head in heads_of(model):
        layer = model.get_submodule(head)
        logits = getattr(layer, "out_features", getattr(layer, "out_channels", num_classes))
        if logits != num_classes:
            named = "head" if hasattr(model, "heads") else "last torch.nn.Linear"
            raise ConfigError(
                f"{name} has {logits} logits for num_classes = {num_classes}: its {named} is "
                f"{head!r}. Make it with num_classes outputs, or name the layers that compute the "
                "logits in an attribute heads",
                argument="num_classes",
            )
    if example is not None and not hasattr(model, "heads"):
        shape = _output_shape(model, example)
        if shape is not None and shape != (example[0], num_classes):
            raise ConfigError(
                f"{name} returns a tensor of shape {shape} for an input of shape "
                f"{tuple(example)}, not ({example[0]}, num_classes = {num_classes}) logits",
                argument="num_classes",
            )


def _output_shape(model: nn.Module, example: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of a network's output; None if that cannot be found out."""
    try:
        empty = meta_copy(model)
        dtype = next((p.dtype for p in empty.parameters() if p.is_floating_point()), None)
        with torch.no_grad():
            output = empty(torch.empty(*example, dtype=dtype, device="meta"))
    # code of a user may do anything on the meta device
    except Exception:
        return None
    return tuple(output.shape) if isinstance(output, Tensor) else None
