"""Fine-tuning: initial weights, learning rates of the stages, frozen modules.

Lightning's ``BaseFinetuning`` is not used: with it, frozen batch norms normalise each batch with
its own statistics, so that the network is no longer the one that was loaded.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import expand_path
from vidpool.models.weights import MismatchError, heads_of, load_weights, read_weights

BACKBONE = "backbone"
"""Name that freezes everything but the classifier."""
CONTAINERS = ("blocks", "features")
"""Names that PyTorchVideo and torchvision give to the module that contains the stages."""


def load_initial_weights(
    model: nn.Module, path: str | os.PathLike[str], class_names: Sequence[str] | None = None
) -> list[str]:
    """Load the weights that a training starts from.

    The classifier keeps its random initialization if the checkpoint has other classes: another
    number of them, or other names.

    Args:
        model: The network, changed in place.
        path: A checkpoint of any kind that :func:`~vidpool.models.weights.read_weights`
            reads.
        class_names: Names of the classes to train on; None if they are unknown.

    Returns:
        The keys that keep their random initialization: none, or the classifier's.

    Raises:
        CheckpointError: There is no such file, or the weights do not fit the backbone; the message
            names the first key that differs.
    """
    path = expand_path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint file; init_from names the one to start from",
            argument="init_from",
        )
    weights = read_weights(path)
    known = (weights.content.get("vidpool") or {}).get("class_names")
    renamed = known is not None and class_names is not None and list(known) != list(class_names)
    try:
        report = load_weights(model, weights, fresh_classifier=renamed)
    except MismatchError as error:
        hint = "Are backbone and width those of the checkpoint?"
        raise MismatchError(f"{error}. {hint}", error.report) from error
    rest = ", ".join(report.fresh_classifier)
    rank_zero_info(
        f"initialised {len(report.matched)} of {len(report.matched) + len(report.fresh)} weights "
        f"from {path}{f'; the classifier starts fresh ({rest})' if rest else ''}"
    )
    if report.unexpected:
        rank_zero_info(f"not taken from {path}: {', '.join(report.unexpected)}")
    return list(report.fresh)


def stages(model: nn.Module) -> list[str]:
    """Return the names of the stages with parameters, from input to output, without the classifier.

    Stages are the top-level modules of the network. A module that contains the stages, or the
    classifier and other modules, is replaced by its children.
    """
    heads = heads_of(model)

    def inside(module: nn.Module, prefix: str) -> Iterator[str]:
        for name, child in module.named_children():
            full = prefix + name
            if full in heads or next(child.parameters(), None) is None:
                continue
            if name in CONTAINERS or any(head.startswith(f"{full}.") for head in heads):
                yield from inside(child, f"{full}.")
            else:
                yield full

    return list(inside(model, ""))


def lr_scales(model: nn.Module, backbone_lr: float, layer_decay: float) -> dict[str, float]:
    """Return the factor of each parameter's learning rate, by the parameter's name.

    The factor is 1 for the classifier and ``backbone_lr * layer_decay`` for the last stage before
    it. Each stage towards the input multiplies it by ``layer_decay`` again (Clark et al.,
    *ELECTRA*, 2020).

    Raises:
        ConfigError: ``backbone_lr`` is not positive, or ``layer_decay`` outside (0, 1].
    """
    if not 0 < backbone_lr < float("inf"):
        raise ConfigError(
            f"backbone_lr must be positive, got {backbone_lr}; to train the classifier alone set "
            f"freeze to [{BACKBONE}]",
            argument="backbone_lr",
        )
    if not 0 < layer_decay <= 1:
        raise ConfigError(
            f"layer_decay must lie within (0, 1], got {layer_decay}", argument="layer_decay"
        )
    classifier = tuple(f"{head}." for head in heads_of(model))
    names = stages(model)

    def scale(parameter: str) -> float:
        if parameter.startswith(classifier):
            return 1.0
        # parameters outside the stages, such as a class token, count as part of the first stage
        place = next((i for i, name in enumerate(names) if parameter.startswith(f"{name}.")), 0)
        return backbone_lr * layer_decay ** (len(names) - place)

    return {name: scale(name) for name, _ in model.named_parameters()}


def freeze_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Freeze modules: their parameters get no gradient.

    :func:`keep_frozen` keeps them in evaluation mode.

    Args:
        model: The network, changed in place.
        patterns: Names of modules with ``*``, ``?`` and ``[…]``; ``backbone`` is all but the
            classifier. Submodules are frozen, too.

    Returns:
        The names of the frozen modules.

    Raises:
        ConfigError: A pattern matches no module, or no parameter is left to train.
    """
    if isinstance(patterns, str):
        raise ConfigError(f"freeze must be a list of names: [{patterns!r}]", argument="freeze")
    parts = stages(model)
    modules = [name for name, _ in model.named_modules() if name]
    frozen: list[str] = []
    for pattern in patterns:
        found = [name for name in modules if fnmatchcase(name, pattern)]
        if not found and pattern == BACKBONE:
            found = parts
        if not found:
            raise ConfigError(
                f"freeze: {pattern!r} matches no module of the network. Its stages are "
                f"{', '.join(parts)}; {BACKBONE} is all of them, {parts[-1]}.* what is inside one",
                argument="freeze",
            )
        frozen += found
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"freeze {list(patterns)} leaves nothing to train", argument="freeze")
    return frozen


def keep_frozen(model: nn.Module, frozen: Sequence[str]) -> None:
    """Put modules into evaluation mode: batch norm keeps its statistics, dropout drops nothing.

    Args:
        model: The network, in training mode.
        frozen: Names of the frozen modules, from :func:`freeze_modules`.
    """
    for name in frozen:
        model.get_submodule(name).eval()


def report(model: nn.Module, scales: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Report what is trained at which learning rate, if the training fine-tunes.

    Args:
        model: The network.
        scales: Factors of the learning rates, from :func:`lr_scales`.
        settings: Settings of :class:`~vidpool.train.classifier.VideoClassifier`.
    """
    scaled = any(scale != 1 for scale in scales.values())
    if settings["init_from"] or settings["freeze"] or scaled:
        rank_zero_info(describe(model, scales, settings["lr"], settings["freeze"] or []))


def describe(
    model: nn.Module, scales: Mapping[str, float], lr: float, patterns: Sequence[str]
) -> str:
    """Describe how many parameters are trained at which learning rate, and which are frozen.

    Args:
        model: The network.
        scales: Factors of the learning rates, from :func:`lr_scales`.
        lr: Base learning rate.
        patterns: The patterns given to :func:`freeze_modules`.
    """
    classifier = tuple(f"{head}." for head in heads_of(model))
    counts = {"classifier": 0, "backbone": 0, "frozen": 0}
    rates: dict[str, list[float]] = {"classifier": [], "backbone": []}
    for name, parameter in model.named_parameters():
        part = "classifier" if name.startswith(classifier) else "backbone"
        if parameter.requires_grad:
            rates[part].append(lr * scales[name])
        counts[part if parameter.requires_grad else "frozen"] += parameter.numel()
    texts = [
        f"{part}: {counts[part]:,} parameters at learning rate "
        + " to ".join(f"{rate:.3g}" for rate in sorted({min(found), max(found)}))
        for part, found in rates.items()
        if found
    ]
    if patterns:
        texts.append(f"frozen: {counts['frozen']:,} parameters ({', '.join(patterns)})")
    return "; ".join(texts)
