"""Results of a measurement as files: everything as JSON, and a picture beside it."""

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vidpool.errors import ConfigError
from vidpool.train.output import written_whole

# of Okabe and Ito, which colour-blind people can tell apart
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def write_results(path: Path, about: dict[str, Any], content: Any, picture: Figure) -> list[Path]:
    """Write ``{**about, "results": content}`` as JSON, and a picture of the same name.

    Args:
        path: Ends in .json; the picture's ends in .png instead.
        about: Where the results come from, see :func:`vidpool.provenance.provenance`.
        content: The results, as JSON values; numbers that are not finite are not.
        picture: What they look like.

    Returns:
        The files written.

    Raises:
        ConfigError: The folder cannot be written to, or is full.
    """
    text = json.dumps({**about, "results": content}, indent=1, allow_nan=False, ensure_ascii=False)
    # a list of numbers on one line: they would fill most of the file's lines
    text = re.sub(r"\[[\s\d.,e+-]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)
    try:
        with written_whole(path) as file:
            file.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        with written_whole(path.with_suffix(".png")) as file:
            picture.savefig(file, dpi=110)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    return [path, path.with_suffix(".png")]
