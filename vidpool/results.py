"""Results of a measurement as files: where they come from, everything as JSON, and a picture."""

import re
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vidpool import __version__
from vidpool.errors import ConfigError
from vidpool.figures import save_figure
from vidpool.files import atomic_write, json_text


def provenance(command: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Version, command, seed and date, for JSON.

    Args:
        command: What was run; by default the command line of this process.
        seed: Of what was drawn at random; ``None`` where nothing was.
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
        path: Ends in .json; the picture's ends in .png instead.
        about: Where the results come from, see :func:`provenance`.
        content: The results, as JSON values; numbers that are not finite are not.
        picture: What they look like.

    Returns:
        The files written.

    Raises:
        ConfigError: The folder cannot be written to, or is full.
    """
    text = json_text({**about, "results": content}, indent=1, allow_nan=False)
    # a list of numbers on one line: they would fill most of the file's lines
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)
    try:
        with atomic_write(path) as file:
            file.write_text(text + "\n", encoding="utf-8")
        with atomic_write(path.with_suffix(".png")) as file:
            save_figure(picture, file, dpi=110)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    return [path, path.with_suffix(".png")]
