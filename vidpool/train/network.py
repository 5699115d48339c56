"""Networks as the settings of a training describe them."""

from typing import Any

from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model, model_info
from vidpool.nn import swap_pooling


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
    model: nn.Module, name: str, channels: int, pooling: str, options: dict[str, Any]
) -> None:
    """Replace a network's pooling; an example clip tells what learns by channel how many.

    Args:
        model: The network, changed in place.
        name: Its name.
        channels: C of its clips.
        pooling: As for :func:`vidpool.nn.swap_pooling`, like ``options``.
        options: Of the swap and of the new layers.

    Raises:
        ConfigError: There is nothing to replace, or an option cannot work.
    """
    info = model_info(name)
    small = (64, 64) if info.modality == "image" else (8, 64, 64)
    size = info.size if info.fixed else map(max, info.smallest, small)
    example = (1, channels, *size)
    try:
        swap_pooling(model, pooling, **({"example": example} | options))
    except ConfigError as error:
        raise ConfigError(
            f"model.pooling {pooling} of {name}: {error}; null keeps the network's own pooling"
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"model.pooling_options {options}: {error}") from error
