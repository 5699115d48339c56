"""Fine-tuning: which parts of a network learn, and at which rate.

Lightning's ``BaseFinetuning`` does not serve here: it freezes batch norm by having it normalise
with each batch's own statistics, which is another network than the one that was loaded.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from vidpool.errors import ConfigError
from vidpool.models.weights import heads_of

BACKBONE = "backbone"
"""As a name to freeze: everything but the classifier."""
CONTAINERS = ("blocks", "features")
"""What PyTorchVideo and torchvision call the module in which the stages lie."""


def stages(model: nn.Module) -> list[str]:
    """Names of the stages that have parameters, from the input on, without the classifier.

    They are the modules of the network's top level; where one holds the stages, or the classifier
    beside others, those within it.
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
    """What the learning rate of each parameter is multiplied with, by the parameter's name.

    It is 1 for the classifier, ``backbone_lr * layer_decay`` for the last stage before it, and
    ``layer_decay`` times less for each stage towards the input (Clark et al., *ELECTRA*, 2020).

    Raises:
        ConfigError: ``backbone_lr`` is not positive, or ``layer_decay`` outside (0, 1].
    """
    if not 0 < backbone_lr < float("inf"):
        raise ConfigError(
            f"model.backbone_lr must be positive, got {backbone_lr}; to train the classifier "
            f"alone set model.freeze to [{BACKBONE}]"
        )
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"model.layer_decay must lie within (0, 1], got {layer_decay}")
    classifier = tuple(f"{head}." for head in heads_of(model))
    names = stages(model)

    def scale(parameter: str) -> float:
        if parameter.startswith(classifier):
            return 1.0
        # what belongs to no stage, such as a token for the class, comes before the first
        place = next((i for i, name in enumerate(names) if parameter.startswith(f"{name}.")), 0)
        return backbone_lr * layer_decay ** (len(names) - place)

    return {name: scale(name) for name, _ in model.named_parameters()}


def freeze_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Take modules out of training: their parameters get no gradient.

    :func:`keep_frozen` has to keep them in evaluation mode.

    Args:
        model: The network, changed in place.
        patterns: Names of modules with ``*``, ``?`` and ``[…]``; ``backbone`` is all but the
            classifier. What is inside a module is frozen with it.

    Returns:
        The names of the modules.

    Raises:
        ConfigError: A pattern matches no module, or nothing is left to train.
    """
    parts = stages(model)
    modules = [name for name, _ in model.named_modules() if name]
    frozen: list[str] = []
    for pattern in patterns:
        found = [name for name in modules if fnmatchcase(name, pattern)]
        if not found and pattern == BACKBONE:
            found = parts
        if not found:
            raise ConfigError(
                f"model.freeze: {pattern!r} matches no module of the network. Its stages are "
                f"{', '.join(parts)}; {BACKBONE} is all of them, {parts[-1]}.* what is inside one"
            )
        frozen += found
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze {list(patterns)} leaves nothing to train")
    return frozen


def keep_frozen(model: nn.Module, frozen: Sequence[str]) -> None:
    """Put modules into evaluation mode: batch norm keeps its statistics, dropout drops nothing.

    Args:
        model: The network, in training mode.
        frozen: What :func:`freeze_modules` returned.
    """
    for name in frozen:
        model.get_submodule(name).eval()


def summary(
    model: nn.Module, scales: Mapping[str, float], lr: float, patterns: Sequence[str]
) -> str:
    """Say how many parameters train at which rate, and what is frozen.

    Args:
        model: The network, some of whose modules may be frozen.
        scales: What :func:`lr_scales` returned.
        lr: The base learning rate.
        patterns: What :func:`freeze_modules` was given.
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
