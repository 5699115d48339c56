"""Kinds of files of which other decoders return wrong frames, and a warning about them."""

import warnings
from contextlib import closing
from pathlib import Path

from vidpool.errors import VideoError
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import read_table

AVI = "AVI with B-frames"
AVI_KEYS = "AVI with B-frames and several key frames"
MPEG = "MPEG transport and program streams"
MPEG4 = "MPEG-4 Part 2 with B-frames"
HIDDEN = "video trimmed without re-encoding (edit lists)"
OPEN = "open groups of pictures"

WRONG: dict[str, set[str]] = {
    "decord": {AVI_KEYS, MPEG, MPEG4, HIDDEN, OPEN},
    "torchcodec": {AVI, MPEG},
}
"""Measured with numbered frames, decord 0.6 and torchcodec 0.17, the latter in its exact mode."""

_warned: set[tuple[str, str]] = set()


def warn_where_wrong(path: Path, decoder: str) -> None:
    """Warn if a decoder returns wrong frames of a file, once for each kind of file and process.

    The file's packets are read for that, if need be, which takes some milliseconds.

    Args:
        path: The file.
        decoder: A key of :data:`WRONG`.
    """
    kinds = {kind for kind in WRONG[decoder] if (decoder, kind) not in _warned}
    if not kinds:
        return
    try:
        with closing(Source(path)) as source:
            found = _affected_kinds(source, kinds)
    except VideoError:
        return  # the decoder says so itself
    for kind in sorted(found):
        _warned.add((decoder, kind))
        warnings.warn(
            f"{path}: decoder {decoder!r} returns wrong frames of {kind}, or fails; decoder "
            "'auto' does not. (This is said once for each kind of file.)",
            stacklevel=2,
        )


def _affected_kinds(source: Source, among: set[str]) -> set[str]:
    """Return the kinds, among some, that a file belongs to."""
    avi = source.container_name == "avi" and source.reorders
    found = {AVI} if avi else set()
    if source.container_name in ("mpegts", "mpeg"):
        found.add(MPEG)
    elif source.codec_name == "mpeg4" and source.reorders and not avi:
        found.add(MPEG4)
    if among & {AVI_KEYS, HIDDEN, OPEN}:  # these take reading the packets
        table = read_table(source)
        if avi and (table is None or len(table.keys) > 1):
            found.add(AVI_KEYS)
        elif table and len(table.packets) < len(table.numbers):
            found.add(HIDDEN)
        elif table and table.leading and not found:
            found.add(OPEN)
    return found & among
