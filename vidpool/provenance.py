"""Where a result comes from: what every file of results says of the run that made it."""

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vidpool import __version__


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
