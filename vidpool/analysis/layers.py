"""Layers of a classifier by name, and their feature maps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.models.registry import size_text
from vidpool.models.weights import heads_of
from vidpool.train.classifier import VideoClassifier


def find_layers(
    classifier: VideoClassifier, clip: Tensor, name: str | None = None, depth: int = 1
) -> list[str]:
    """Return a layer and those before it in the same module, from back to front.

    Args:
        classifier: Network to search.
        clip: Input that determines the sizes of the maps, (1, C, T, H, W), normalized.
        name: Name of the layer, such as ``layer4`` or ``layer4.1.conv2``. Defaults to the last
            stage that has weights and returns a feature map.
        depth: Largest number of layers; only layers with weights count. Defaults to 1.

    Raises:
        ConfigError: The layer does not exist or returns no feature map, or the network is a
            transformer.
    """
    net = classifier.model
    if any(isinstance(module, nn.LayerNorm) for module in net.modules()):
        raise ConfigError(
            f"{classifier.hparams['backbone']} is a transformer: its layers have tokens and no "
            "feature maps, and this picture needs a convolutional network"
        )
    found = _layers_with_maps(classifier, clip)
    weighted = [
        each for each in found if next(net.get_submodule(each).parameters(), None) is not None
    ]
    if not weighted:
        raise ConfigError(
            f"clips of {size_text(clip.shape[2:])} are too small: no layer of "
            f"{classifier.hparams['backbone']} makes a feature map of them"
        )
    if name is None:
        name = weighted[-1]
        # descends into a module that contains all stages, such as `features` of DenseNet
        while not _siblings(name, weighted) and any(
            each.startswith(f"{name}.") for each in weighted
        ):
            name = [each for each in weighted if each.startswith(f"{name}.")][-1]
    if name not in found:
        _raise_unusable(name, [each for each, _ in net.named_modules() if each], found, weighted)
    before = [each for each in _siblings(name, weighted) if found.index(each) < found.index(name)]
    return [name, *reversed(before)][:depth]


def feature_maps(
    classifier: VideoClassifier, clips: Tensor, names: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Return logits and the feature maps of layers, connected by autograd.

    Args:
        classifier: Network in evaluation mode.
        clips: (N, C, T, H, W), normalized.
        names: Names of layers from :func:`find_layers`.

    Returns:
        Logits (N, num_classes), and a map (N, channels, T', H', W') of each layer, or
        (N, channels, H', W') for image models.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, out: Tensor) -> Tensor:
        maps[name] = out
        return out.clone()  # because the next layer may modify it in place

    if not clips.requires_grad:
        clips = clips.detach().requires_grad_()  # otherwise frozen networks have no gradients
    # LSTMs of cuDNN, which SRTG networks contain, have gradients in training mode only
    with (
        _output_hooks(classifier.model, names, keep),
        torch.backends.cudnn.flags(enabled=_has_no_lstm(classifier)),
    ):
        logits = classifier(clips)
    return logits, [maps[name] for name in names]


def _has_no_lstm(classifier: VideoClassifier) -> bool:
    return not any(isinstance(module, nn.RNNBase) for module in classifier.modules())


def _layers_with_maps(classifier: VideoClassifier, clip: Tensor) -> list[str]:
    """Return names of modules that return maps of more than one position, in order of execution."""
    net = classifier.model
    # modules of a classification head, such as X3D's last convolutions, are not stages
    inside_heads = tuple(
        head if "." not in head else head[: head.rindex(".")] for head in heads_of(net)
    )
    axes = 4 if classifier.is_image_model else 5
    found: list[str] = []

    def collect(name: str, out: Tensor) -> None:
        if name and isinstance(out, Tensor) and out.ndim == axes and out.shape[2:].numel() > 1:
            found.append(name)

    def is_in_head(name: str) -> bool:
        return any(f"{name}.".startswith(f"{head}.") for head in inside_heads)

    with (
        _output_hooks(net, [name for name, _ in net.named_modules()], collect),
        torch.inference_mode(),
    ):
        classifier(clip)
    names = list(dict.fromkeys(found))
    # a module that wraps the whole network contains its stages as well as its head
    return [name for name in names if not is_in_head(name)] or names


def _siblings(name: str, names: Sequence[str]) -> list[str]:
    """Return the other names that have the same parent."""
    parent = name.rpartition(".")[0]
    return [each for each in names if each != name and each.rpartition(".")[0] == parent]


def _raise_unusable(name: str, every: list[str], found: list[str], weighted: list[str]) -> None:
    stages = [each for each in weighted if "." not in each] or weighted
    why = "puts out no feature maps" if name in every else "is not in this network"
    near = get_close_matches(name, found, n=3)
    raise ConfigError(
        f"layer {name!r} {why}; "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + f"It has {', '.join(stages[:40])}, and what is within them, such as {weighted[0]}"
    )


@contextmanager
def _output_hooks(
    net: nn.Module, names: Sequence[str], on_output: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Pass the outputs of modules to a function, which may replace them.

    Gradient checkpointing is disabled meanwhile, because it computes stages twice.
    """

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        return lambda module, args, out: on_output(name, out)  # noqa: ARG005

    checkpointing = getattr(net, "gradient_checkpointing", False)
    if checkpointing:
        net.gradient_checkpointing = False  # type: ignore[assignment]
    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if checkpointing:
            net.gradient_checkpointing = True  # type: ignore[assignment]
