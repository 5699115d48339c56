"""Processes of one training end together."""

import os
import re
import sys
import threading
import time

from torch.distributed import DistError


def end_with_parent() -> None:
    """Have a further process of a training end as soon as the one that started it is gone.

    It may wait for that one in a collective operation, which on a GPU takes as long as the process
    group's time limit to fail.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    print(f"vidpool: process {parent}, which started this one, is gone", file=sys.stderr)
    os._exit(1)


def what_was_lost(error: BaseException) -> str | None:
    """What an error says about the other processes; None if it is of another kind."""
    text = str(error)
    # PyTorch has no type of its own for errors of gloo, which connects CPUs
    if not isinstance(error, DistError) and "gloo" not in text.lower():
        return None
    # without the place in gloo's source, and what it advises
    reason = re.sub(r"^\[\S*\]\s*", "", text.strip()).partition("\n")[0].split(". ")[0]
    return (
        f"another process of this training ended, or does not answer ({reason}); resume from its "
        "last checkpoint, --ckpt_path last"
    )
