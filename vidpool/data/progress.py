"""Progress bars of what takes its time before training: on the first rank alone, and on stderr."""

from typing import Any

from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress


def bar_options(shown: bool = True) -> dict[str, Any]:
    """How a bar of rich's is to be made.

    Args:
        shown: False where it would be gone before anybody could see it.
    """
    first_rank = getattr(rank_zero_only, "rank", 0) == 0
    return {
        "console": Console(stderr=True),
        "transient": True,
        "disable": not (shown and first_rank),
    }


def counting_bar() -> Progress:
    """A bar that says how many there are and how many are done, and disappears at the end."""
    return Progress(*Progress.get_default_columns(), MofNCompleteColumn(), **bar_options())
