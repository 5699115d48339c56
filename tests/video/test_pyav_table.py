"""Pictures that decode on their own, by their bitstreams."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import decodes_alone, read_table

AVCC = bytes([1, 66, 0, 30, 0xFF])
HVCC = bytes([1] + 20 * [0] + [3])
IDR, SLICE = b"\x65\x88", b"\x41\x9a"


def recovery(payload: bytes, before: bytes = b"") -> bytes:
    """A NAL unit with the SEI message of a recovery point, and another message before it."""
    return b"\x06" + before + bytes([6, len(payload)]) + payload + b"\x80"


def in_lengths(*units: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


def in_start_codes(*units: bytes) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@pytest.mark.parametrize(
    ("units", "alone"),
    [
        ([b"\x67\x42", b"\x68\xce", IDR], True),
        ([SLICE], False),
        ([recovery(b"\x80"), SLICE], True),  # recovery_frame_cnt 0 is the bit 1
        ([recovery(b"\x10\x80"), SLICE], False),
        ([recovery(b"\x80", before=b"\x05\xff\x03" + 258 * b"x"), SLICE], True),
        ([recovery(b"\x80", before=b"\x05\x05\0\0\3\0\0\3\1"), SLICE], True),
        ([b"\x06\x05", SLICE], False),
        ([b"\x06\xff\xff", SLICE], False),
        ([b"\x67\x42"], False),
        ([], False),
    ],
)
def test_h264(units: list[bytes], alone: bool) -> None:
    assert decodes_alone("h264", in_start_codes(*units), None) is alone
    assert decodes_alone("h264", in_start_codes(*units), b"\0\0\0\1\x67\x42") is alone
    assert decodes_alone("h264", in_lengths(*units), AVCC) is alone
    if len(units) > 1:  # some files have packets of both kinds
        assert decodes_alone("h264", in_start_codes(*units), AVCC) is alone


def test_h264_lengths_of_other_sizes() -> None:
    assert decodes_alone("h264", b"\0\2" + IDR, AVCC[:4] + b"\xfd")
    assert not decodes_alone("h264", b"\0\2" + SLICE, AVCC[:4] + b"\xfd")


@pytest.mark.parametrize(
    ("kind", "alone"), [(0, False), (1, False), (9, False), (16, True), (20, True), (21, True)]
)
def test_hevc(kind: int, alone: bool) -> None:
    units = [b"\x40\1", bytes([kind << 1, 1])]
    assert decodes_alone("hevc", in_start_codes(*units), None) is alone
    assert decodes_alone("hevc", in_lengths(*units), HVCC) is alone


@pytest.mark.parametrize(
    ("first", "alone"), [(0x82, True), (0x86, False), (0x8A, False), (0xB0, True), (0xB2, False)]
)
def test_vp9(first: int, alone: bool) -> None:
    assert decodes_alone("vp9", bytes([first]), None) is alone
    assert not decodes_alone("vp9", b"", None)


@pytest.mark.parametrize(
    ("frame", "alone"), [(0x10, True), (0x00, False), (0x30, False), (0x90, False)]
)
def test_av1(frame: int, alone: bool) -> None:
    delimiter, sequence = b"\x12\0", b"\x0a\2\0\0"
    assert decodes_alone("av1", delimiter + sequence + bytes([0x32, 1, frame]), None) is alone
    assert decodes_alone("av1", delimiter + sequence + bytes([0x30, frame]), None) is alone
    assert not decodes_alone("av1", delimiter, None)
    assert not decodes_alone("av1", b"\x0a" + 20 * b"\xff", None)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("gop12.mp4", 5),
        ("stream.ts", 5),
        ("h264.flv", 5),
        ("open_gop.mp4", 5),
        ("hevc.mkv", 5),
        ("hevc.ts", 5),
        ("vp9.webm", 5),
        ("av1.mp4", 5),
        ("intra_refresh.mp4", 1),
    ],
)
def test_keys_of_real_encoders(written: Callable[[str], Path], name: str, keys: int) -> None:
    source = Source(written(name))
    table = read_table(source)
    assert table is not None
    assert len(table.keys) == keys
    flagged = [packet.is_keyframe for packet in source.packets()]
    assert sum(flagged) >= keys
    source.close()
