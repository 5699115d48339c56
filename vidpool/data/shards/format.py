"""The format of a folder of shards: file names, the manifest, and the optional dependency."""

import json
from pathlib import Path
from typing import Any

from vidpool.errors import ConfigError, DataError

MANIFEST = "shards.json"
PARTIAL = "shards.partial.json"
VERSION = 1


def require_webdataset() -> None:
    """Check that webdataset is installed.

    Raises:
        ConfigError: webdataset is not installed.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ConfigError(
            "shards are written and read with webdataset, which is not installed: "
            "pip install webdataset"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of complete shards.

    Returns:
        ``class_names``; ``sizes``, the labelled videos of each split when it was listed; and
        ``shards``, for each split a list of shards with ``name`` and ``videos``, the number of
        labelled videos in the shard.

    Raises:
        DataError: The folder holds no complete shards, or the manifest cannot be read.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = ": they are not complete, repeat" if (folder / PARTIAL).exists() else ", made by"
        raise DataError(f"{folder}: holds no shards{begun} `vidpool data shard`") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({error})") from None
    return manifest
