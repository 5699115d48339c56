"""The option ``--seed``."""

import argparse
from collections.abc import Callable
from typing import Any

LARGEST = 2**32 - 1
"""What NumPy and scikit-learn take too, as well as PyTorch."""


def add_seed(add: Callable[..., Any], what: str = "") -> None:
    """Add ``--seed``, a number that everything which draws at random takes.

    Args:
        add: ``add_argument`` of a parser.
        what: What it is of.
    """
    text = f"{what} (default: %(default)s)".strip()
    add("--seed", type=_seed, default=0, metavar="N", help=text)


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to {LARGEST}")
    return int(text)
