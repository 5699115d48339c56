r"""Paths that users give, and files that commands write: complete or not at all.

Names of files and classes need not be UTF-8: Python represents each byte that is not UTF-8 by a
lone surrogate (PEP 383). vidpool writes such a name in two forms, which read back to the same
name:

- CSV files contain the bytes of the name: :func:`open_text`.
- JSON and YAML, which must be UTF-8, contain the surrogate's escape, such as ``caf\udce9``:
  :func:`json_text`, :func:`write_json`, ``json.dumps`` and ``yaml.safe_dump``.

Consoles and pictures show the same escape: :func:`printable`.
"""

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from vidpool.errors import ConfigError, DataError

UNFINISHED = ".unfinished_"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_SHOWN = {"Cc", "Cs", "Zl", "Zp"}  # control, surrogate, line and paragraph separator
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


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; a folder that exists is left as it is.

    Raises:
        DataError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"{folder} is a file: choose a new or empty folder") from None
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be made ({error.strerror}): choose another"
        ) from None


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


def unfinished_path(path: Path) -> Path:
    """Return the path that :func:`atomic_write` writes to before it replaces `path`."""
    return path.with_name(f".{path.name}.part{path.suffix}")


@contextmanager
def atomic_write(
    path: str | os.PathLike[str],
    *,
    shared: bool = False,
    fsync: bool = False,
) -> Iterator[Path]:
    """Write a file atomically: a crash leaves either the old file or the new one.

    The context is a temporary path in the same folder. It replaces `path` if nothing is raised, and
    is removed otherwise.

    Args:
        path: The file to write.
        shared: Give the temporary file a unique name, because other processes or machines may
            write the same file at the same time. Defaults to False: its name depends on `path`
            alone, because archives that PyTorch writes contain their file's name.
        fsync: Flush the file and its folder entry to disk, so that the new file survives a power
            failure. Defaults to False.

    Raises:
        OSError: The file cannot be replaced or flushed.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "results.txt"
        >>> with atomic_write(target) as file:
        ...     _ = file.write_text("complete")
        >>> target.read_text()
        'complete'
    """
    path = Path(path)
    unique = path.with_name(f"{UNFINISHED}{uuid4().hex}{path.suffix}")
    part = unique if shared else unfinished_path(path)
    try:
        yield part
        if fsync:
            with part.open("r+b") as file:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if fsync and sys.platform != "win32":  # Windows cannot open folders
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_text(path: str | os.PathLike[str], mode: str = "r") -> IO[Any]:
    """Open a UTF-8 text file in which file names survive, whatever bytes they consist of.

    Line endings are not translated, as the `csv` module requires.

    Args:
        path: The file.
        mode: A text mode of :func:`open`.

    Raises:
        OSError: The file cannot be opened.
    """
    return Path(path).open(mode, encoding="utf-8", errors="surrogateescape", newline="")


@contextmanager
def utf8_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a path of an existing file for libraries that take no path but one in UTF-8.

    It is the file's own path where that is UTF-8, and leads to an open descriptor elsewhere.

    Raises:
        OSError: The file cannot be opened.
    """
    if is_utf8(path):
        yield os.fspath(path)
        return
    with Path(path).open("rb") as file:
        yield f"/dev/fd/{file.fileno()}"


def is_utf8(name: str | os.PathLike[str]) -> bool:
    """Return whether a name has no bytes that are not UTF-8."""
    return not _LONE_SURROGATE.search(os.fspath(name))


def json_text(content: Any, indent: int | None = 2, allow_nan: bool = True) -> str:
    r"""Return JSON in which only characters that UTF-8 cannot encode are escaped.

    Args:
        content: JSON values.
        indent: Spaces per level; ``None`` puts everything on one line.
        allow_nan: Write numbers that are not finite as ``NaN`` and ``Infinity``, which are not
            strict JSON. Defaults to True.

    Raises:
        ValueError: A number is not finite, and `allow_nan` is False.

    Examples:
        >>> print(json_text({"class": "caf\udce9", "other": "café"}, indent=None))
        {"class": "caf\udce9", "other": "café"}
    """
    text = json.dumps(content, indent=indent, allow_nan=allow_nan, ensure_ascii=False)
    # the error handler writes a surrogate in the form of JSON's own escapes
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON values to a file; see :func:`json_text`.

    Raises:
        OSError: The file cannot be written.
    """
    Path(path).write_text(json_text(content) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read the JSON values of a file; a name in it may also be written as bytes that are not UTF-8.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not valid JSON.
    """
    return json.loads(Path(path).read_text(encoding="utf-8", errors="surrogateescape"))


def printable(text: str) -> str:
    r"""Return a text in one line, with escapes for characters that cannot be shown.

    These are lone surrogates, line breaks and control characters.

    Examples:
        >>> print(printable("caf\udce9\n"))
        caf\udce9\n
    """
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) in _NOT_SHOWN else character
        for character in text
    )
