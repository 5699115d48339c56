"""Options for the files that results are written to, which must not replace others unasked."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vidpool.errors import ConfigError
from vidpool.files import check_output, expand_path

PICTURES = (".png", ".jpg", ".pdf", ".svg")


def new_file(
    option: str, name: str, suffixes: Sequence[str], overwrite: bool, beside: Sequence[str] = ()
) -> Path:
    """Check the file that is to be written, before any work is done for it.

    Args:
        option: The option that names it.
        name: What the user gave.
        suffixes: What it may end in.
        overwrite: Whether it may be there already.
        beside: Suffixes of the files of the same name that are written too.

    Raises:
        ConfigError: It has another suffix, has no folder to lie in, or is there.
    """
    path = expand_path(name)
    if path.suffix not in suffixes:
        raise ConfigError(f"{path}: {option} must end in {', '.join(suffixes)}")
    for file in (path, *map(path.with_suffix, beside)):
        check_output(file, overwrite, [file.suffix])
    return path


def output_of(args: argparse.Namespace, beside: Sequence[str] = (".png",)) -> Path | None:
    """What ``--output FILE.json`` names, checked, with its ``--overwrite``; None without it.

    Args:
        args: The parsed options.
        beside: See :func:`new_file`, also for what is raised.
    """
    if args.output is None:
        return None
    return new_file("--output", args.output, [".json"], args.overwrite, beside)


def add_output(add: Callable[..., Any], what: str) -> None:
    """Add ``--output`` and ``--overwrite``; :func:`output_of` reads them.

    Args:
        add: ``add_argument`` of a parser.
        what: What is written as JSON.
    """
    add("--output", metavar="FILE.json", help=f"write {what} to it, and a picture to FILE.png")
    add("--overwrite", action="store_true", help="replace these files")
