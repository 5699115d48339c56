"""Results of measurements: provenance, JSON files with a picture, and tables."""

import re
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from vidpool import __version__
from vidpool.errors import ConfigError
from vidpool.figures import save_figure
from vidpool.files import atomic_write, json_text

UNLIMITED = 10_000  # columns; tables in files and pipes are as wide as their content


def wide_console() -> Console:
    """Return a console for tables, which are not cut or wrapped unless a terminal is too narrow."""
    console = Console()
    if not console.is_terminal:
        console.width = UNLIMITED
    return console


def provenance(command: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Return version, command, seed and date as JSON values.

    Args:
        command: Command that was run. Defaults to the command line of this process.
        seed: Seed of random draws; None if there are none.
    """
    if command is None:
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "vidpool": __version__,
        "command": command,
        "seed": seed,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_results(path: Path, about: dict[str, Any], content: Any, picture: Figure) -> list[Path]:
    """Write ``{**about, "results": content}`` as JSON, and a picture of the same name.

    Args:
        path: JSON file; the name of the picture ends in .png instead of .json.
        about: Origin of the results, see :func:`provenance`.
        content: Results as JSON values, which exclude infinite numbers and NaN.
        picture: Chart of the results.

    Returns:
        The files written.

    Raises:
        ConfigError: The folder cannot be written to, or the disk is full.
    """
    text = json_text({**about, "results": content}, indent=1, allow_nan=False)
    # lists of numbers on one line each, since they would be most of the file's lines
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)
    try:
        with atomic_write(path) as file:
            file.write_text(text + "\n", encoding="utf-8")
        with atomic_write(path.with_suffix(".png")) as file:
            save_figure(picture, file, dpi=110)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    return [path, path.with_suffix(".png")]
