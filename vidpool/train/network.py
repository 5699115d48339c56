"""Networks as the settings of a training describe them: built, pooling swapped, compiled."""

from typing import Any

from torch import Tensor, nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.models import check_network, create_model, model_info, replace_pooling
from vidpool.models.common import first_convolution
from vidpool.train.checkpoints import CLASS, class_name

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
    network: str | nn.Module,
    num_classes: int,
    width: int | None,
    dropout: float | None,
    gradient_checkpointing: bool,
    further: dict[str, Any] | None,
) -> nn.Module:
    """Build a network, given only the options that were set: not every network has all of them.

    Args:
        network: One of :func:`vidpool.models.list_models`, or a module, which is returned.
        num_classes: Classes.
        width: Channels of the first stage.
        dropout: Probability of dropping a feature before the classifier.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        further: Further options of the network.

    Raises:
        ConfigError: The network does not have an option, or its value cannot work.
        CheckpointError: The name stands for a module, which has to be given again.
    """
    options = dict(further or {})
    own = "num_classes", "width", "dropout", "gradient_checkpointing", "pooling", "pooling_options"
    for other in own:
        if other in options:
            raise ConfigError(
                f"backbone_options: give {other} as {other}", argument="backbone_options"
            )
    if width is not None:
        options["width"] = width
    if dropout is not None:
        options["dropout"] = dropout
    if gradient_checkpointing:
        options["gradient_checkpointing"] = True
    if isinstance(network, type) or not isinstance(network, str | nn.Module):
        hint = f"; make an instance: {network.__name__}(…)" if isinstance(network, type) else ""
        raise ConfigError(
            f"backbone must be the name of a network or a torch.nn.Module, got {network!r}{hint}",
            argument="backbone",
        )
    if isinstance(network, nn.Module):
        _check_module(network, num_classes, options)
        return network
    if network.startswith(CLASS):
        name = network.removeprefix(CLASS)
        raise CheckpointError(
            f"the checkpoint is of a network of the class {name}, and checkpoints store no code: "
            f"pass a module of this class, as network={name.rpartition('.')[2]}(…)",
            argument="network",
        )
    try:
        return create_model(network, num_classes=num_classes, **options)
    except ConfigError as error:
        if error.argument == "name":
            error.argument = "backbone"
        elif error.argument in (further or {}):
            error.argument = "backbone_options"
        raise


def name_of(network: str | nn.Module) -> str:
    """Return the name of a network in hyper-parameters: ``class:`` and its class for a module."""
    return network if isinstance(network, str) else class_name(type(network))


def is_image_network(network: str | nn.Module) -> bool:
    """Return True if a network takes images: a module whose first convolution is 2D."""
    if isinstance(network, str):
        return model_info(network).modality == "image"
    return isinstance(first_convolution(network), nn.Conv2d)


def exchange_pooling(
    model: nn.Module,
    network: str | nn.Module,
    channels: int | None,
    pooling: str | None,
    options: dict[str, Any],
) -> None:
    """Replace the pooling of a network.

    An example clip shows the number of channels to pooling layers that learn weights by channel.

    Args:
        model: The network, changed in place.
        network: Name of the network, or the network itself.
        channels: C of the clips; None is what the first convolution takes, or else 3.
        pooling: Method of pooling, see :func:`vidpool.nn.swap_pooling`; None keeps the network's.
        options: Options of ``swap_pooling`` and of the new layers.

    Raises:
        ConfigError: The network has no pooling to replace, or an option cannot work.
    """
    if pooling is not None and not isinstance(pooling, str):
        raise ConfigError(
            f"pooling must be a name, got {pooling!r}: checkpoints store no code. Register the "
            "class with vidpool.register_pooling, and give its name",
            argument="pooling",
        )
    channels = input_channels(model) if channels is None else channels
    example = model_info(network).example_shape(channels) if isinstance(network, str) else None
    replace_pooling(model, pooling, options, name=name_of(network), example=example)


def input_channels(model: nn.Module) -> int:
    """Return the channels that the first convolution takes; 3 if there is none."""
    return getattr(first_convolution(model), "in_channels", 3)


def _check_module(model: nn.Module, num_classes: int, options: dict[str, Any]) -> None:
    """Refuse options of a network that is built already, and another number of classes."""
    for name in options:
        argument = name if name in ("width", "dropout") else "backbone_options"
        if name == "gradient_checkpointing":
            if hasattr(model, name):
                model.gradient_checkpointing = True  # type: ignore[assignment]
                continue
            argument = name
        raise ConfigError(
            f"{name} is an option of networks that are built by name: give it to "
            f"{type(model).__name__} itself",
            argument=argument,
        )
    check_network(model, num_classes, type(model).__name__)


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
