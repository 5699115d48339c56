"""Kinds of video file: container, coding and structure of the numbered files in tests."""

from typing import Any

import numpy as np

COUNT = 60
X264 = {"preset": "veryfast", "x264-params": "b-adapt=0:scenecut=0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "b-adapt=0:scenecut=0:open-gop=1"}
REFRESH = {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=20"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:open-gop=1:keyint=12"}
AV1 = {"preset": "8"}
VPX = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
UNEVEN = np.random.default_rng(0).integers(1, 12, COUNT).cumsum().tolist()

WRITTEN: dict[str, dict[str, Any]] = {
    "many_keys.avi": {"codec": "mpeg4"},
    "one_key.avi": {"codec": "mpeg4", "gop": 1000, "options": {"sc_threshold": "1000000000"}},
    "h264.avi": {"options": X264},
    "motion_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "b_frames": 0},
    "gop12.mp4": {"options": X264},
    "gop250.mp4": {"options": X264, "gop": 250},
    "intra_only.mp4": {"options": X264, "gop": 1, "b_frames": 0},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "odd_size.mp4": {"options": X264, "size": (113, 65), "pix_fmt": "yuv444p"},
    "variable_rate.mp4": {"options": X264, "stamps": UNEVEN},
    "variable_rate.mkv": {"options": X264, "stamps": UNEVEN},
    "late_start.mkv": {"options": X264, "stamps": range(1000, 1000 + 4 * COUNT, 4)},
    "stream.ts": {"options": X264},
    "open_gop.ts": {"options": OPEN_GOP},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "vp9.webm": {"codec": "libvpx-vp9", "b_frames": 0, "options": VPX},
    "vp8_hidden_frames.webm": {"codec": "libvpx", "b_frames": 0, "options": VPX},
    "hevc.mkv": {"codec": "libx265", "options": X265},
    "hevc.ts": {"codec": "libx265", "options": X265},
    "hevc_layers.mp4": {
        "codec": "libx265",
        "options": {"preset": "fast", "x265-params": "log-level=none:temporal-layers=3:bframes=7"},
    },
    "hevc_pyramid.mp4": {
        "codec": "libx265",
        "options": {"preset": "fast", "x265-params": "log-level=none:bframes=7"},
        "gop": 250,
    },
    "vp9.mp4": {"codec": "libvpx-vp9", "b_frames": 0, "options": VPX},
    "av1.mp4": {"codec": "libsvtav1", "b_frames": 0, "options": AV1},
    "av1.webm": {"codec": "libsvtav1", "b_frames": 0, "options": AV1},
    "av1_variable_rate.mkv": {
        "codec": "libsvtav1",
        "b_frames": 0,
        "options": AV1,
        "stamps": UNEVEN,
    },
    "mpeg4.mkv": {"codec": "mpeg4"},
    "mpeg4.ts": {"codec": "mpeg4"},
    "h264.flv": {"options": X264},
    "pyramid.mp4": {"options": {"preset": "medium"}, "b_frames": 3, "gop": 250},
    "intra_refresh.mp4": {"options": REFRESH},
    "interlaced.mp4": {"options": {"preset": "veryfast", "x264-params": "tff=1"}},
    "intra_only.mkv": {"codec": "ffv1", "b_frames": 0},
    "two_streams.mp4": {"options": X264, "streams": 2},
    "one_frame.mp4": {"options": X264, "count": 1},
    "one_frame.avi": {"codec": "mpeg4", "count": 1},
}
