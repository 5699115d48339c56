"""The table of a file's packets and the frames that they show, made without decoding.

It is made from time stamps or from the kinds of pictures. Time stamps of AVI files with B-frames
are wrong, and some codings have packets that show no frame; so time stamps are used only where
container and coding are known to give each frame shown a packet with its own time stamp. Every
packet of MPEG-4 Part 2 (XviD, DivX) names the kind of its picture, and B-frames are shown before
the packet that they follow in the file. For other files there is no table: only decoding tells.

Containers also flag pictures as key frames that do not decode on their own: with periodic intra
refresh, H.264 names recovery points after which it takes many pictures until everything has been
refreshed. So the bitstream is asked; section numbers are those of the codecs' specifications.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from av.packet import Packet

from vidpool.video.pyav_source import MP4, Source, has_new_header
from vidpool.video.times import StampTimes

MATROSKA = "matroska,webm"
TIMED_CONTAINERS = {MP4, MATROSKA, "mpegts", "flv"}
TIMED_CODECS = {"h264", "hevc", "vp9", "av1"}

VOP_START = b"\0\0\1\xb6"
"""Start code of a picture in MPEG-4 Part 2; the next two bits tell its kind."""
INTRA, BIDIRECTIONAL = 0, 2
EMPTY_VOP = 10
"""Bytes from a picture's start that may hold no picture but only say so."""

H264_SLICES = range(1, 6)
H264_IDR, H264_SEI = 5, 6
RECOVERY_POINT = 6
HEVC_SLICES = range(32)
HEVC_KEYS = range(16, 24)
"""IRAP pictures (H.265, 7.4.2.2): BLA, IDR and CRA."""
AV1_SEQUENCE_HEADER, AV1_FRAME_HEADER, AV1_FRAME = 1, 3, 6


@dataclass(frozen=True)
class FrameTable:
    """The packets of a file and the frames that they show; a packet is named by its position.

    Attributes:
        numbers: Of every packet, the number of its frame; ``None`` for one that is not shown.
        packets: Of every frame, its packet.
        keys: Frames, ascending, at which decoding can begin such that they and all later frames
            come out right. The first is 0.
        key_packets: Of every one of them, the packet at which to begin.
        leading: Packets that come after a key frame's and are shown before it, or would be: they
            may refer to what comes before the key frame.
        complete: True if the file holds all the packets that it declares, undamaged.
        times: When frames are shown, if that is known.
    """

    numbers: list[int | None]
    packets: list[int]
    keys: list[int]
    key_packets: list[int]
    leading: frozenset[int]
    complete: bool
    times: StampTimes | None = None

    def key_packet(self, number: int) -> int:
        """Return the packet at which to begin decoding for a frame."""
        return self.key_packets[bisect_right(self.keys, number) - 1]


def read_table(source: Source) -> FrameTable | None:
    """Scan the packets of a stream; ``None`` where they do not tell which frame is whose."""
    if source.container_name in TIMED_CONTAINERS and source.codec_name in TIMED_CODECS:
        return _table_by_time(source)
    if source.codec_name == "mpeg4" and source.pixel_format == "yuv420p":
        return _table_by_picture_kind(source)
    return None


def _table_by_time(source: Source) -> FrameTable | None:
    """Sort packets by their time stamps.

    ``None`` where one is missing or repeated, or the codec's header changes on the way, so that it
    depends on earlier packets how one decodes.
    """
    stamps: list[int] = []
    keys = set()
    hidden = set()
    damaged = False
    header = source.extradata
    for position, packet in enumerate(source.packets()):
        if packet.pts is None or has_new_header(packet):
            return None
        stamps.append(packet.pts)
        damaged |= packet.is_corrupt
        if packet.is_keyframe and decodes_alone(source.codec_name, bytes(packet), header):
            keys.add(position)
        # edit lists hide frames by this flag
        if packet.is_discard:
            hidden.add(position)
    order = sorted(range(len(stamps)), key=stamps.__getitem__)
    shown = [stamps[position] for position in order if position not in hidden]
    if len(set(shown)) < len(shown):
        return None
    # Matroska does not say how many frames it holds, but packets that break off are not handed out
    whole = source.container_name == MATROSKA or len(stamps) == source.declared_packets
    complete = whole and not damaged
    return _number_packets(
        order, keys, hidden, complete, StampTimes(shown, source.time_base, source.declared_rate)
    )


def _table_by_picture_kind(source: Source) -> FrameTable | None:
    """Put packets of MPEG-4 Part 2 into the order in which they are shown.

    ``None`` where a packet does not hold exactly one picture for sure, or B-frames come before the
    two frames that they lie between.
    """
    order: list[int] = []
    waiting: int | None = None  # the packet that is shown after the B-frames that follow it
    keys = set()
    hidden = set()
    damaged = False
    for position, packet in enumerate(source.packets()):
        kind = _picture_kind(packet)
        if kind is None or (kind == BIDIRECTIONAL and not order):
            return None
        damaged |= packet.is_corrupt
        if packet.is_discard:
            hidden.add(position)
        if kind == BIDIRECTIONAL:
            order.append(position)
            continue
        if waiting is not None:
            order.append(waiting)
        waiting = position
        if kind == INTRA:
            keys.add(position)
    if waiting is not None:
        order.append(waiting)
    complete = len(order) == source.declared_packets and not damaged
    return _number_packets(order, keys, hidden, complete)


def _picture_kind(packet: Packet) -> int | None:
    """Return the kind of an MPEG-4 picture, or ``None`` if there may be none, or more than one."""
    data = bytes(packet)
    start = data.find(VOP_START)
    if start < 0 or len(data) - start <= EMPTY_VOP or data.find(VOP_START, start + 4) >= 0:
        return None
    return data[start + 4] >> 6


def _number_packets(
    order: list[int],
    keys: set[int],
    hidden: set[int],
    complete: bool,
    times: StampTimes | None = None,
) -> FrameTable | None:
    """Number the packets.

    Args:
        order: All packets in the order in which their frames are shown.
        keys: Those at which decoding can begin.
        hidden: Those whose frames are not shown.
        complete: See :class:`FrameTable`.
        times: See :class:`FrameTable`.

    Returns:
        The table; ``None`` if no frame is shown, frames are shown before the first key frame, or
        key frames lie in another order than they are shown in.
    """
    numbers: list[int | None] = [None] * len(order)
    packets: list[int] = []
    key_numbers: list[int] = []
    key_packets: list[int] = []
    for position in order:
        if position in keys:
            key_numbers.append(len(packets))
            key_packets.append(position)
        if position not in hidden:
            numbers[position] = len(packets)
            packets.append(position)
    if not packets or not key_numbers or key_numbers[0] or key_packets != sorted(key_packets):
        return None
    leading = []
    latest = 0  # where in the order the latest key frame of the file so far lies
    for position, place in sorted(zip(order, range(len(order)), strict=True)):
        if position in keys:
            latest = place
        elif place < latest:
            leading.append(position)
    return FrameTable(
        numbers, packets, key_numbers, key_packets, frozenset(leading), complete, times
    )


def decodes_alone(codec_name: str, data: bytes, extradata: bytes | None) -> bool:
    """Return whether decoding can begin at a packet.

    Pictures that are shown before it and come after it in the file may still refer to earlier ones.

    Args:
        codec_name: FFmpeg's name of the coding; of one that is not h264, hevc, vp9 or av1, every
            packet will do.
        data: The packet.
        extradata: The codec's header in the container, which tells how NAL units are delimited.

    Returns:
        True for IDR pictures, H.264 recovery points with ``recovery_frame_cnt`` 0, HEVC's IRAP
        pictures, and key frames of VP9 and AV1; False where the packet does not tell.
    """
    try:
        if codec_name == "h264":
            return _h264(_nal_units(data, extradata, 4))
        if codec_name == "hevc":
            return _hevc(_nal_units(data, extradata, 21))
        if codec_name == "vp9":
            return _vp9(data[0])
        if codec_name == "av1":
            return _av1(data)
    except IndexError:  # it breaks off
        return False
    return True


def _nal_units(data: bytes, extradata: bytes | None, size_at: int) -> Iterator[bytes]:
    """Split a packet into NAL units; ``size_at`` is where a header says how long lengths are."""
    # avcC and hvcC begin with a version of 1, Annex B with a start code; a packet in Annex B after
    # such a header is rare, but there
    if not extradata or extradata[0] != 1 or data.startswith(b"\0\0\0\1"):
        yield from filter(None, data.split(b"\0\0\1")[1:])
        return
    size = (extradata[size_at] & 3) + 1
    place = 0
    while place + size < len(data):
        length = int.from_bytes(data[place : place + size], "big")
        place += size
        if length:
            yield data[place : place + length]
        place += length


def _h264(units: Iterator[bytes]) -> bool:
    recovers = False
    for unit in units:
        kind = unit[0] & 31
        if kind == H264_SEI:
            recovers |= _recovers_at_once(unit)
        elif kind in H264_SLICES:
            return kind == H264_IDR or recovers
    return False


def _recovers_at_once(unit: bytes) -> bool:
    """Return whether SEI messages hold a recovery point with ``recovery_frame_cnt`` 0 (D.2.8)."""
    data = unit[1:].replace(b"\0\0\3", b"\0\0")
    place = 0
    while place < len(data) - 2:  # what is left may be the trailing bits
        numbers = []
        for _ in ("payload type", "payload size"):
            number = 0
            while data[place] == 255:
                number += 255
                place += 1
            numbers.append(number + data[place])
            place += 1
        if numbers[0] == RECOVERY_POINT:
            return data[place] >= 128  # 0 is the single bit 1
        place += numbers[1]
    return False


def _hevc(units: Iterator[bytes]) -> bool:
    kinds = (unit[0] >> 1 & 63 for unit in units)
    return next((kind in HEVC_KEYS for kind in kinds if kind in HEVC_SLICES), False)


def _vp9(first: int) -> bool:
    """Read the uncompressed header (6.2): marker, profile, show_existing_frame, frame_type."""
    reserved = first >> 4 & 3 == 3  # a bit after profile 3
    return first >> (1 if reserved else 2) & 3 == 0


def _av1(data: bytes) -> bool:
    """Find the first frame header (5.9.2) of a temporal unit: a key frame, shown at once."""
    place = 0
    still = False
    while place < len(data):
        header = data[place]
        kind = header >> 3 & 15
        place += 2 if header & 4 else 1
        length = len(data) - place
        if header & 2:
            length = shift = 0
            while True:
                byte = data[place]
                place += 1
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        if kind == AV1_SEQUENCE_HEADER:
            still = data[place] >> 3 & 1 == 1  # reduced_still_picture_header
        elif kind in (AV1_FRAME_HEADER, AV1_FRAME):
            # show_existing_frame 0, frame_type 0 (key frame), show_frame 1
            return still or data[place] >> 4 == 0b0001
        place += length
    return False
