"""Networks as the settings of a training describe them: built, pooling swapped, compiled."""

from typing import Any

from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, model_info, replace_pooling

ARCHITECTURE = (
    "backbone",
    "num_classes",
    "width",
    "backbone_options",
    "pooling",
    "pooling_options",
)
"""The settings that determine a network's parameters and what it computes."""
RECOMPILATIONS = 64
"""Multigrid training has up to 12 clip sizes, and evaluation compiles again."""


def build(
    name: str,
    num_classes: int,
    width: int | None,
    dropout: float | None,
    gradient_checkpointing: bool,
    further: dict[str, Any] | None,
) -> nn.Module:
    """Build a network, given only the options that were set: not every network has all of them.

    Args:
        name: One of :func:`vidpool.models.list_models`.
        num_classes: Classes.
        width: Channels of the first stage.
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        further: Further options of the network.

    Raises:
        ConfigError: The network does not have an option, or its value cannot work.
    """
    options = dict(further or {})
    for other in ("num_classes", "width", "dropout", "gradient_checkpointing"):
        if other in options:
            raise ConfigError(f"model.backbone_options: give {other} as model.{other}")
    if width is not None:
        options["width"] = width
    if dropout is not None:
        options["dropout"] = dropout
    if gradient_checkpointing:
        options["gradient_checkpointing"] = True
    return create_model(name, num_classes=num_classes, **options)


def exchange_pooling(
    model: nn.Module, name: str, channels: int, pooling: str | None, options: dict[str, Any]
) -> None:
    """Replace the pooling of a network.

    An example clip shows the number of channels to pooling layers that learn weights by channel.

    Args:
        model: The network, changed in place.
        name: Name of the network.
        channels: C of the clips.
        pooling: Method of pooling, see :func:`vidpool.nn.swap_pooling`; None keeps the network's.
        options: Options of ``swap_pooling`` and of the new layers.

    Raises:
        ConfigError: The network has no pooling to replace, or an option cannot work.
    """
    example = model_info(name).example_shape(channels)
    replace_pooling(model, pooling, options, name=name, example=example)


def compile_network(model: nn.Module, backend: str | None = None) -> None:
    """Compile a network in place, once per clip size.

    Clips have to go through :func:`mark_dynamic_batch`.

    A batch of a single clip is compiled separately. On CPUs, convolutions of 16 clips or more and a
    batch larger than the ones before it are compiled separately, too. The smaller last batch of an
    epoch is not.

    PyTorch gives up after 8 compilations and continues uncompiled, with only a warning. The limit
    is raised so that it holds all sizes of multigrid training.

    Args:
        model: The network; a compiled one is left as it is. The state-dict keys stay.
        backend: Backend of ``torch.compile``. Defaults to PyTorch's own default.
    """
    if model._compiled_call_impl is not None:
        return
    from torch._dynamo import config  # takes a second to import

    config.recompile_limit = max(config.recompile_limit, RECOMPILATIONS)
    model.compile(**({} if backend is None else {"backend": backend}))


def mark_dynamic_batch(clip: Tensor) -> Tensor:
    """Compile for batches of any size, but for fixed T, H and W.

    Args:
        clip: (N, C, T, H, W), the input of a compiled network.

    Returns:
        The clip itself.
    """
    from torch._dynamo import mark_static, maybe_mark_dynamic

    maybe_mark_dynamic(clip, 0)  # "maybe": sub-batch norm has its number of groups compiled in
    mark_static(clip, [1, 2, 3, 4])
    return clip
