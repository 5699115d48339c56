"""Files that commands write: whole or not at all, and over nothing that is there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vidpool.errors import ConfigError


def check_output(out: str | os.PathLike[str], overwrite: bool, suffixes: Sequence[str]) -> None:
    """Refuse a file that is not to be written, before anything is computed.

    Raises:
        ConfigError: The suffix is none of `suffixes`, the file exists and is not to be replaced,
            or its folder does not exist or
            cannot be written to.
    """
    out = Path(out)
    if out.suffix not in suffixes:
        raise ConfigError(f"{out}: must end in one of {', '.join(suffixes)}")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"{out} exists; give --overwrite to replace it")
    if not out.parent.is_dir():
        raise ConfigError(f"{out.parent}: no such folder to write to")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"{out.parent}: you may not write to this folder")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """Give a file in the same folder to write to, which becomes `out` if nothing is raised."""
    part = out.with_name(f".{out.name}.part{out.suffix}")
    try:
        yield part
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
