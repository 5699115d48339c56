"""torchvision's video networks, and the image networks of the SoftPool paper.

The networks are built and initialized by torchvision's functions, and their layers keep their
names, so torchvision's checkpoints load. torchvision is imported when a network is built.

torchvision's published GoogLeNet and Inception v3 expect pixels normalized with mean 0.5 and
standard deviation 0.5, the other image networks with those of ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

from vidpool.errors import ConfigError
from vidpool.models.common import check_options, run_block
from vidpool.models.registry import Modality, model_info, register_model, size_text

_RESNET = "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4 avgpool flatten"
_VIDEO_RESNET = "stem layer1 layer2 layer3 layer4 avgpool flatten"
_DENSENET = "features relu avgpool flatten"
_GOOGLENET = (
    "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a aux1 "
    "inception4b inception4c inception4d aux2 inception4e maxpool4 inception5a inception5b avgpool "
    "flatten"
)
_INCEPTION_V3 = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 "
    "Mixed_5b Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e AuxLogits "
    "Mixed_7a Mixed_7b Mixed_7c avgpool flatten"
)
_AUXILIARY = {"aux1": "fc2", "aux2": "fc2", "AuxLogits": "fc"}
"""Heads that are used in training only, and their layers that compute logits."""
_AUXLOGITS_SIDE = 299  # minimum for its 5x5 convolution


class TorchvisionNet(nn.Module):
    """The layers of a torchvision network, applied in sequence.

    Args:
        name: Name in the registry, which lists the sizes that the network accepts.
        net: Network built by torchvision; its layers become this module's, under the same names.
        features: Names of the layers that compute features, in order.
        classifier: Names of the layers that compute logits from features, in order.
        layers: Additional layers without weights, or replacements of layers of `net`.
        head: Dotted name of the layer of `classifier` that has weights.
        gradient_checkpointing: Recompute the activations inside the feature layers in the backward
            pass instead of storing them.
    """

    heads: tuple[str, ...]
    """Dotted names of all layers that depend on the number of classes, auxiliary ones last.

    There is no attribute `head`, which some torchvision networks use for a module.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        features: Sequence[str],
        classifier: Sequence[str],
        layers: dict[str, nn.Module],
        head: str,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.name = name
        self._features = tuple(features)
        self._classifier = tuple(classifier)
        for layer_name, layer in (dict(net.named_children()) | layers).items():
            self.add_module(layer_name, layer)
        auxiliary = (f"{aux}.{fc}" for aux, fc in _AUXILIARY.items() if aux in self._modules)
        self.heads = (head, *auxiliary)
        self.register_load_state_dict_pre_hook(_drop_auxiliary)

    def forward_features(self, x: Tensor) -> Tensor:
        """Embed clips or pictures.

        Args:
            x: (N, 3, T, H, W) clips, or (N, 3, H, W) pictures for an image network.

        Returns:
            (N, features): the classifier's input before dropout.

        Raises:
            ConfigError: If the network does not accept this size; the message lists the sizes.
        """
        return self._embed(x)[0]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Classify clips or pictures.

        Args:
            x: (N, 3, T, H, W) clips, or (N, 3, H, W) pictures for an image network.

        Returns:
            (N, num_classes) logits. In training, a network with auxiliary heads returns a tuple of
            its logits and those of the heads, the deepest first, as in torchvision.

        Raises:
            ConfigError: If the network does not accept this size; the message lists the sizes.
        """
        x, auxiliary = self._embed(x)
        for name in self._classifier:
            x = self.get_submodule(name)(x)
        return (x, *reversed(auxiliary)) if auxiliary else x

    def _embed(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features and, in training, the logits of auxiliary heads."""
        _check_input(self.name, x, self.training and "AuxLogits" in self._modules)
        auxiliary = []
        for name in self._features:
            if name not in _AUXILIARY:
                x = run_block(
                    self.get_submodule(name), x, gradient_checkpointing=self.gradient_checkpointing
                )
            elif self.training and name in self._modules:
                auxiliary.append(self.get_submodule(name)(x))
        return x, auxiliary


@fx.wrap
def _check_input(name: str, x: Tensor, trains_auxiliary_head: bool) -> None:
    """Check the shape of an input, as :class:`TorchvisionNet` documents it."""
    info = model_info(name)
    if x.ndim != 2 + len(info.size):
        axes = "T, H, W" if info.modality == "video" else "H, W"
        raise ConfigError(
            f"{name} takes {info.modality}s (N, C, {axes}), but got shape {tuple(x.shape)}"
        )
    info.check_size(x.shape[2:])
    if trains_auxiliary_head and min(x.shape[2:]) < _AUXLOGITS_SIDE:
        raise ConfigError(
            f"{name} with aux_logits trains on {_AUXLOGITS_SIDE}x{_AUXLOGITS_SIDE} or "
            f"larger, not on {size_text(x.shape[2:])}; smaller pictures need aux_logits=False",
            argument="aux_logits",
        )


class MViT(TorchvisionNet):
    """torchvision's MViT, whose blocks take tokens and their arrangement (T, H, W)."""

    def _embed(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        _check_input(self.name, x, self.training and "AuxLogits" in self._modules)
        x = self.get_submodule("conv_proj")(x)
        encoding: Any = self.get_submodule("pos_encoding")  # which has the one size of the network
        arrangement = (encoding.temporal_size, *encoding.spatial_size)
        x = encoding(x.flatten(2).transpose(1, 2))
        for block in self.get_submodule("blocks").children():
            if self.gradient_checkpointing and torch.is_grad_enabled():  # it has no buffers
                x, arrangement = checkpoint(block, x, arrangement, use_reentrant=False)
            else:
                x, arrangement = block(x, arrangement)
        return self.get_submodule("norm")(x)[:, 0], []  # the class token


def _drop_auxiliary(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Remove the weights of auxiliary heads that the network was built without."""
    absent = tuple(f"{prefix}{name}." for name in _AUXILIARY if name not in module._modules)
    for key in [key for key in state_dict if key.startswith(absent)]:
        del state_dict[key]


def _no_layers() -> dict[str, nn.Module]:
    return {}


def _densenet_layers() -> dict[str, nn.Module]:
    """Return layers for the functions that torchvision's DenseNet calls."""
    return {"relu": nn.ReLU(inplace=True), "avgpool": nn.AdaptiveAvgPool2d(1)}


def _s3d_layers() -> dict[str, nn.Module]:
    """Return a global average in place of one over 2x7x7 cells, and the classifier's input shape.

    Both averages are the same at 16x224x224. For longer clips, torchvision averages over
    overlapping windows, which weight the frames at both ends less. The classifier is a convolution.
    """
    return {"avgpool": nn.AdaptiveAvgPool3d(1), "unflatten": nn.Unflatten(1, (1024, 1, 1, 1))}


def _swin_layers() -> dict[str, nn.Module]:
    """Return the permutation to channels-first before the average."""
    from torchvision.ops import Permute

    return {"permute": Permute([0, 4, 1, 2, 3])}


class _Family(NamedTuple):
    """Layers and settings common to the networks of a torchvision class."""

    features: str
    """Names of the layers up to the features."""
    classifier: str = "dropout fc"
    """Names of the layers from the features on."""
    head: str = "fc"
    """Dotted name of the classifier layer that has weights."""
    layers: Callable[[], dict[str, nn.Module]] = _no_layers
    """Function that returns additional layers."""
    settings: Callable[[], dict[str, Any]] = dict
    """Function that returns arguments of torchvision's function."""
    net: type[TorchvisionNet] = TorchvisionNet


def _make(
    name: str,
    modality: Modality,
    family: _Family,
    num_classes: int,
    dropout: float,
    gradient_checkpointing: bool,
    **settings: Any,
) -> TorchvisionNet:
    check_options(num_classes=num_classes, dropout=dropout)
    from torchvision import models

    build = getattr(models.video if modality == "video" else models, name.rpartition("/")[2])
    net = build(weights=None, num_classes=num_classes, **family.settings(), **settings)
    layers = {"flatten": nn.Flatten(), "dropout": nn.Dropout(dropout), **family.layers()}
    return family.net(
        name,
        net,
        family.features.split(),
        family.classifier.split(),
        layers,
        family.head,
        gradient_checkpointing,
    )


def _build(
    name: str,
    modality: Modality,
    family: _Family,
    *,
    num_classes: int,
    dropout: float,
    gradient_checkpointing: bool = False,
) -> TorchvisionNet:
    return _make(name, modality, family, num_classes, dropout, gradient_checkpointing)


def _build_inception(
    name: str,
    modality: Modality,
    family: _Family,
    *,
    num_classes: int,
    dropout: float,
    gradient_checkpointing: bool = False,
    aux_logits: bool = False,
) -> TorchvisionNet:
    return _make(
        name, modality, family, num_classes, dropout, gradient_checkpointing, aux_logits=aux_logits
    )


def _register(
    names: str,
    modality: Modality,
    family: _Family,
    *,
    dropout: float = 0.0,
    build: Callable[..., TorchvisionNet] = _build,
    size: tuple[int, ...] | None = None,
    smallest: tuple[int, ...] | None = None,
    fixed: bool = False,
) -> None:
    for name in names.split():
        name = f"torchvision/{name}"
        facts: dict[str, Any] = {"size": size, "smallest": smallest, "fixed": fixed}
        register = register_model(name=name, modality=modality, source="torchvision", **facts)
        register(partial(build, name, modality, family, dropout=dropout))


_register("r3d_18 mc3_18 r2plus1d_18", "video", _Family(_VIDEO_RESNET), size=(16, 112, 112))
_register(
    "s3d",
    "video",
    _Family(
        "features avgpool flatten",
        "dropout unflatten classifier flatten",
        "classifier.1",
        _s3d_layers,
        lambda: {"dropout": 0.0},  # the layer `dropout` replaces it
    ),
    dropout=0.2,
    smallest=(5, 17, 17),
)
_register(
    "mvit_v2_s",
    "video",
    _Family(
        "conv_proj pos_encoding blocks norm",
        "dropout head",
        "head.1",
        settings=lambda: {"dropout": 0.0},
        net=MViT,
    ),
    dropout=0.5,
    fixed=True,
)
_register(
    "swin3d_t",
    "video",
    _Family(
        "patch_embed pos_drop features norm permute avgpool flatten",
        "dropout head",
        "head",
        _swin_layers,
    ),
)
_register(
    "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d "
    "wide_resnet50_2",
    "image",
    _Family(_RESNET),
)
_register(
    "densenet121 densenet161 densenet169",
    "image",
    _Family(_DENSENET, "dropout classifier", "classifier", _densenet_layers),
    smallest=(29, 29),
)
_register(
    "googlenet",
    "image",
    _Family(_GOOGLENET, settings=lambda: {"init_weights": True}),
    dropout=0.2,
    build=_build_inception,
    smallest=(15, 15),
)
_register(
    "inception_v3",
    "image",
    _Family(_INCEPTION_V3, settings=lambda: {"init_weights": True}),
    dropout=0.5,
    build=_build_inception,
    size=(299, 299),
    smallest=(75, 75),
)
