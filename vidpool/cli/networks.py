"""The checkpoint that a verb looks into: its network, classes and preprocessing."""

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from vidpool.data.dataset import Preprocessing
from vidpool.errors import ConfigError
from vidpool.predict import load_classifier, move_to
from vidpool.train.classifier import VideoClassifier


def add_checkpoint(add: Callable[..., Any]) -> None:
    """Add the checkpoint and ``--device``; :func:`load_from` reads them.

    Args:
        add: ``add_argument`` of a parser.
    """
    add("ckpt_path", metavar="CKPT", help="a checkpoint of `vidpool fit` or `vidpool import`")
    add("--device", default="auto", help="a PyTorch device (default: %(default)s)")


def load_from(args: argparse.Namespace) -> tuple[VideoClassifier, list[str], Preprocessing]:
    """The network on its device, its class names and its preprocessing.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: There is no such device.
    """
    classifier, class_names, preprocessing = load_classifier(args.ckpt_path)
    return move_to(classifier, args.device), class_names, preprocessing


def class_number(name: str, class_names: Sequence[str], where: str) -> int:
    """The number of a class.

    Args:
        name: What the user gave.
        class_names: All names.
        where: Whose they are.

    Raises:
        ConfigError: There is no class of this name; the message says which are like it.
    """
    if name in class_names:
        return list(class_names).index(name)
    near = get_close_matches(name, class_names, n=3, cutoff=0.4) or list(class_names[:10])
    raise ConfigError(
        f"{where} has no class {name!r}, but {len(class_names)} others, such as {', '.join(near)}"
    )
