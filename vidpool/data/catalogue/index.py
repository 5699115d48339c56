"""The index file of a dataset: its videos, and the frame counts and states of their files.

An index is a safetensors file, so it holds no pickle and is memory-mapped. Its metadata name the
annotation files and settings that it was made from; other ones, or a damaged byte, are an error.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import FILE_COLUMNS, VIDEO_COLUMNS, Texts, VideoTable
from vidpool.errors import DataError
from vidpool.files import atomic_write, utf8_path

FORMAT = "vidpool index"
VERSION = "1"
REMAKE = "make it again with `vidpool data check --config CONFIG`"
_NO_INDEX = "{path}: is not an index that `vidpool data check` made; give another path"
_NOT_READABLE = (SafetensorError, OSError, RuntimeError, ValueError)
# what the file holds: its tensors and their dtypes
_TENSORS = {
    **FILE_COLUMNS,
    **VIDEO_COLUMNS,
    **{f"{texts}.data": torch.uint8 for texts in ("folders", "names")},
    **{f"{texts}.ends": torch.int64 for texts in ("folders", "names")},
}


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def write_index(
    path: str | os.PathLike[str],
    listing: Listing,
    source: dict[str, Any],
    damaged_too: bool = False,
) -> None:
    """Write an index file atomically; an existing index is replaced.

    Args:
        path: The file.
        listing: The videos.
        source: What the listing was made from, as JSON values by name.
        damaged_too: True to replace also a file that cannot be read as an index.

    Raises:
        DataError: There is a file at ``path`` that is no index, or it cannot be written.
    """
    path = Path(path)
    require_replaceable(path, damaged_too)
    table = listing.table
    tensors = {name: getattr(table, name) for name in (*FILE_COLUMNS, *VIDEO_COLUMNS)}
    for name in ("folders", "names"):
        texts: Texts = getattr(table, name)
        tensors |= {f"{name}.data": texts.data, f"{name}.ends": texts.ends}
    contents = {
        "class_names": listing.class_names,
        "splits": listing.splits,
        "root": table.root,
        "source": source,
    }
    metadata = {"format": FORMAT, "version": VERSION, "contents": json.dumps(contents)}
    metadata["checksum"] = _checksum(tensors, metadata["contents"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: tensor.contiguous().numpy() for name, tensor in tensors.items()}
        with atomic_write(path, shared=True) as temporary:
            save_file(arrays, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: the index cannot be written ({error})") from error


def read_index(path: str | os.PathLike[str], root: str) -> tuple[Listing, dict[str, Any]]:
    """Read an index file.

    Args:
        path: The file.
        root: The folder that the data set lies in now.

    Returns:
        The listing, and what it was made from.

    Raises:
        DataError: It is missing, damaged, no index, or of another version.
    """
    path = Path(path)
    metadata, tensors = _load(path)
    if metadata["version"] != VERSION:
        raise DataError(
            f"{path}: is an index of version {metadata['version']!r}, but this vidpool reads "
            f"version {VERSION}; {REMAKE}"
        )
    problem = _damage(metadata, tensors)
    if problem:
        raise DataError(f"{path}: the index is damaged ({problem}); {REMAKE}")
    contents = json.loads(metadata["contents"])
    folders, names = (
        Texts(tensors.pop(f"{name}.data"), tensors.pop(f"{name}.ends"))
        for name in ("folders", "names")
    )
    splits = {name: (first, end) for name, (first, end) in contents["splits"].items()}
    table = VideoTable(root, folders, names, **tensors)
    return Listing(contents["class_names"], table, splits), contents["source"]


def read_matching_index(
    path: str | os.PathLike[str], root: str, source: Mapping[str, Any]
) -> Listing:
    """Read an index file that must have been made from the same annotations and settings.

    Args:
        path: The file.
        root: The folder that the dataset lies in now.
        source: What the dataset's listing is made from, see :func:`write_index`.

    Raises:
        DataError: As for :func:`read_index`, or the index was made from other annotation files or
            settings.
    """
    listing, made_of = read_index(path, root)
    for name, value in source.items():
        found = made_of.get(name)
        if found == value:
            continue
        if name == "annotation files" and isinstance(found, dict):
            changed = [file for file in {**value, **found} if value.get(file) != found.get(file)]
            what = f"{changed[0]} is not the annotation file that it was made of"
        else:
            what = f"it was made with {name} {found!r}, and here that is {value!r}"
        raise DataError(f"{path}: does not fit this data set: {what}; {REMAKE}")
    return listing


def require_replaceable(path: Path, damaged_too: bool = False) -> None:
    """Check that nothing but an index would be replaced at a path.

    Args:
        path: Where an index is to be written.
        damaged_too: True to allow also a file that cannot be read as an index.

    Raises:
        DataError: There is something else.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; the index must be a file, give another path")
    if not path.exists():
        return
    try:
        with utf8_path(path) as utf8, safe_open(utf8, "pt") as file:
            metadata = file.metadata() or {}
    except _NOT_READABLE as error:
        if damaged_too:
            return
        raise DataError(
            f"{path}: cannot be read as an index ({error}): it is damaged or no index, and is not "
            "replaced; remove it and repeat the command, or give another path"
        ) from None
    if metadata.get("format") != FORMAT:
        raise DataError(_NO_INDEX.format(path=path))


def _load(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file whose metadata name it an index."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such index file; make it with `vidpool data check --config CONFIG`, or "
            "leave index out to do without",
            argument="index",
        )
    try:
        with utf8_path(path) as utf8, safe_open(utf8, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or "version" not in metadata:
                raise DataError(_NO_INDEX.format(path=path))
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except _NOT_READABLE as error:
        raise DataError(
            f"{path}: cannot be read as an index ({error}): it is damaged or no index; {REMAKE}"
        ) from None


def _damage(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> str | None:
    if metadata.keys() != {"format", "version", "contents", "checksum"}:
        return "its metadata are not complete"
    if {name: tensor.dtype for name, tensor in tensors.items()} != _TENSORS:
        return "its columns are not those of an index"
    if any(tensor.dim() != 1 for tensor in tensors.values()):
        return "a column is not one-dimensional"
    if metadata["checksum"] != _checksum(tensors, metadata["contents"]):
        return "its checksum is wrong"
    return None


def _checksum(tensors: Mapping[str, Tensor], contents: str) -> str:
    """Return the CRC-32 of the names, lengths and bytes of the columns, and of the contents."""
    state = zlib.crc32(contents.encode())
    for name in sorted(tensors):
        state = zlib.crc32(f"{name} {len(tensors[name])}".encode(), state)
        state = zlib.crc32(tensors[name].contiguous().numpy().data, state)
    return f"{state:08x}"
