"""What verbs that look into a checkpoint's network share: its option, and its classes by name."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from vidpool.errors import ConfigError


def add_checkpoint(add: Callable[..., Any]) -> None:
    """Add ``ckpt_path`` and ``--device``, the arguments of ``load_classifier``.

    Args:
        add: ``add_argument`` of a parser.
    """
    add("ckpt_path", metavar="CKPT", help="a checkpoint of `vidpool fit` or `vidpool import`")
    add("--device", default="auto", help="a PyTorch device (default: %(default)s)")


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
