"""Whether the picture in a packet decodes on its own.

Containers also flag pictures as key frames that do not: with periodic intra refresh, H.264 names
recovery points after which it takes many pictures until everything has been refreshed. So the
bitstream is asked. Sections are those of the codecs' specifications.
"""

from collections.abc import Iterator

H264_SLICES = range(1, 6)
H264_IDR, H264_SEI = 5, 6
RECOVERY_POINT = 6
HEVC_SLICES = range(32)
HEVC_KEYS = range(16, 24)
"""IRAP pictures (H.265, 7.4.2.2): BLA, IDR and CRA."""
AV1_SEQUENCE_HEADER, AV1_FRAME_HEADER, AV1_FRAME = 1, 3, 6


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
