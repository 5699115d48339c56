"""Paths that users give, and files that commands write: complete or not at all."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vidpool.errors import ConfigError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]+)\})")


def expand_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` and environment variables expanded, as a shell expands them.

    A path that exists as it is written is returned unchanged, so that files whose names contain
    ``$`` or begin with ``~`` stay within reach.

    Args:
        path: A path such as ``~/videos``, ``$DATA/ucf101`` or ``${DATA}/ucf101``.

    Raises:
        ConfigError: An environment variable in the path is not set.

    Examples:
        >>> import os
        >>> os.environ["DATA"] = "/data"
        >>> expand_path("$DATA/ucf101").as_posix()
        '/data/ucf101'
    """
    text = os.fspath(path)
    if not ("$" in text or text.startswith("~")) or os.path.lexists(text):
        return Path(text)
    for match in _VARIABLE.finditer(text):
        name = match[1] or match[2]
        if name not in os.environ:
            raise ConfigError(
                f"{text}: the environment variable {name} is not set; set it, or write the whole "
                "path"
            )
    path = Path(os.path.expandvars(text))
    try:
        return path.expanduser()
    except RuntimeError:  # a name such as ~backup, where there is no user of this name
        return path


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
