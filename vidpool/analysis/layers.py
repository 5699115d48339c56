"""Layers of a classifier by name, and the feature maps that they put out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.models.registry import size_text
from vidpool.models.weights.loading import heads_of
from vidpool.train.classifier import VideoClassifier


def find_layers(
    classifier: VideoClassifier, clip: Tensor, name: str | None = None, depth: int = 1
) -> list[str]:
    """A layer, and those before it within the same module, from back to front.

    Args:
        classifier: The network.
        clip: (1, C, T, H, W), normalised: the maps' sizes depend on it.
        name: The layer, as ``layer4`` or ``layer4.1.conv2``; by default the last stage that has
            weights and puts out a map.
        depth: How many layers, at most; only those with weights are counted, and there may be
            fewer.

    Raises:
        ConfigError: There is no such layer, or it puts out no feature maps, or the network is a
            transformer.
    """
    net = classifier.model
    if any(isinstance(module, nn.LayerNorm) for module in net.modules()):
        raise ConfigError(
            f"{classifier.hparams['backbone']} is a transformer: its layers have tokens and no "
            "feature maps, and this picture needs a convolutional network"
        )
    found = _layers_with_maps(classifier, clip)
    weighty = [
        each for each in found if next(net.get_submodule(each).parameters(), None) is not None
    ]
    if not weighty:
        raise ConfigError(
            f"clips of {size_text(clip.shape[2:])} are too small: no layer of "
            f"{classifier.hparams['backbone']} makes a feature map of them"
        )
    if name is None:
        name = weighty[-1]
        # a network whose stages lie within one module, as DenseNet's within `features`
        while not _beside(name, weighty) and any(each.startswith(f"{name}.") for each in weighty):
            name = [each for each in weighty if each.startswith(f"{name}.")][-1]
    if name not in found:
        _refuse(name, [each for each, _ in net.named_modules() if each], found, weighty)
    before = [each for each in _beside(name, weighty) if found.index(each) < found.index(name)]
    return [name, *reversed(before)][:depth]


def feature_maps(
    classifier: VideoClassifier, clips: Tensor, names: Sequence[str]
) -> tuple[Tensor, list[Tensor]]:
    """Logits, and what layers put out on the way, with gradients from the one to the other.

    Args:
        classifier: The network, in evaluation mode.
        clips: (N, C, T, H, W), normalised.
        names: Of layers that :func:`find_layers` found.

    Returns:
        Logits (N, num_classes), and for each name a map (N, channels, T', H', W'), or
        (N, channels, H', W') of networks that take pictures.
    """
    maps: dict[str, Tensor] = {}

    def keep(name: str, out: Tensor) -> Tensor:
        maps[name] = out
        return out.clone()  # the next layer may work in place

    if not clips.requires_grad:
        clips = clips.detach().requires_grad_()  # else frozen networks would have no gradients
    # cuDNN's LSTMs, which SRTG networks have, give gradients in training mode alone
    with (
        _watched(classifier.model, names, keep),
        torch.backends.cudnn.flags(enabled=_no_lstm(classifier)),
    ):
        logits = classifier(clips)
    return logits, [maps[name] for name in names]


def _no_lstm(classifier: VideoClassifier) -> bool:
    return not any(isinstance(module, nn.RNNBase) for module in classifier.modules())


def _layers_with_maps(classifier: VideoClassifier, clip: Tensor) -> list[str]:
    """Names of the modules that put out maps of more than one place, by when they end."""
    net = classifier.model
    # what belongs to a classifier, as X3D's last convolutions do, is no stage
    inside_heads = tuple(
        head if "." not in head else head[: head.rindex(".")] for head in heads_of(net)
    )
    axes = 4 if classifier.is_image_model else 5
    found: list[str] = []

    def see(name: str, out: Tensor) -> None:
        is_map = isinstance(out, Tensor) and out.ndim == axes and out.shape[2:].numel() > 1
        in_head = any(f"{name}.".startswith(f"{head}.") for head in inside_heads)
        if is_map and name and not in_head:
            found.append(name)

    with _watched(net, [name for name, _ in net.named_modules()], see), torch.inference_mode():
        classifier(clip)
    return list(dict.fromkeys(found))


def _beside(name: str, names: Sequence[str]) -> list[str]:
    """Those of the names that have the same parent, the name itself left out."""
    parent = name.rpartition(".")[0]
    return [each for each in names if each != name and each.rpartition(".")[0] == parent]


def _refuse(name: str, every: list[str], found: list[str], weighty: list[str]) -> None:
    stages = [each for each in weighty if "." not in each] or weighty
    why = "puts out no feature maps" if name in every else "is not in this network"
    near = get_close_matches(name, found, n=3)
    raise ConfigError(
        f"layer {name!r} {why}; "
        + (f"did you mean {' or '.join(near)}? " if near else "")
        + f"It has {', '.join(stages[:40])}, and what is within them, such as {weighty[0]}"
    )


@contextmanager
def _watched(
    net: nn.Module, names: Sequence[str], see: Callable[[str, Tensor], Tensor | None]
) -> Iterator[None]:
    """Show the output of modules to a function, which may put another in its place.

    Stages are not computed a second time meanwhile (gradient checkpointing).
    """

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        return lambda module, args, out: see(name, out)  # noqa: ARG005

    recomputes = getattr(net, "checkpointing", False)
    if recomputes:
        net.checkpointing = False  # type: ignore[assignment]
    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if recomputes:
            net.checkpointing = True  # type: ignore[assignment]
