"""A video as a sequence of frames, and its metadata, with every decoder."""

import io
import sqlite3
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from decoding import need, wild_files, with_display_matrix
from numbered_kinds import COUNT, UNEVEN
from numbered_video import numbers, picture
from PIL import Image

from vidpool.errors import ConfigError, VideoError
from vidpool.video import open_video

FILES = pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("gop12.mp4", "auto"),
        ("h264.avi", "auto"),
        ("mpeg4.mkv", "auto"),
        ("gop12.mp4", "decord"),
        ("gop12.mp4", "torchcodec"),
        ("frames", "frames_db"),
    ],
)


@pytest.fixture(scope="session")
def frames_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the frames 0 to COUNT - 1 as JPEG pictures in a database."""
    folder = tmp_path_factory.mktemp("frames_db")
    (folder / "n_frames").write_text(f"{COUNT}\n")
    with sqlite3.connect(folder / "frames.db") as connection:
        connection.execute("CREATE TABLE Images (ObjId TEXT PRIMARY KEY, frames BLOB)")
        for number in range(COUNT):
            data = io.BytesIO()
            Image.fromarray(picture(number, 112, 64)).save(data, "JPEG", quality=95)
            row = (f"a/frame_{number + 1:05d}", data.getvalue())
            connection.execute("INSERT INTO Images VALUES (?, ?)", row)
    connection.close()
    return folder


@pytest.fixture
def path_of(written: Callable[[str], Path], frames_db: Path) -> Callable[[str], Path]:
    return lambda name: frames_db if name == "frames" else written(name)


@FILES
def test_indexing(path_of: Callable[[str], Path], name: str, decoder: str) -> None:
    need(decoder)
    with open_video(path_of(name), decoder) as video:
        frame = video[10]
        assert (frame.dtype, frame.shape) == (torch.uint8, (3, 64, 112))
        assert torch.equal(frame, video.frames([10])[0])
        for index in (-1, np.int64(-1), torch.tensor(-1), COUNT - 1):
            assert numbers(video[index][None]) == [COUNT - 1]
        for several, expected in (
            (slice(None, None, 4), range(0, COUNT, 4)),
            (slice(-3, None), range(COUNT - 3, COUNT)),
            (slice(5, 2, -1), [5, 4, 3]),
            (slice(50, 999), range(50, COUNT)),
            ([1, 5, 3], [1, 5, 3]),
            ([-1, 0, -1], [COUNT - 1, 0, COUNT - 1]),
            (range(2, 8, 3), [2, 5]),
            (torch.tensor([7, -2]), [7, COUNT - 2]),
            (np.array([7]), [7]),
        ):
            clip = video[several]
            assert (clip.dtype, clip.shape[1:]) == (torch.uint8, (3, 64, 112))
            assert numbers(clip) == list(expected)
        for empty in (slice(5, 5), slice(COUNT, None), [], torch.tensor([], dtype=torch.int64)):
            assert video[empty].shape == (0, 3, 64, 112)
            assert video[empty].dtype == torch.uint8


@FILES
def test_indexing_errors(path_of: Callable[[str], Path], name: str, decoder: str) -> None:
    need(decoder)
    with open_video(path_of(name), decoder) as video:
        for key, number in ((COUNT, COUNT), (-COUNT - 1, -COUNT - 1), ([0, 99], 99)):
            with pytest.raises(IndexError, match=f"no frame {number}; .* {COUNT} frames"):
                video[key]
        mask = torch.zeros(COUNT, dtype=torch.bool)
        for key in (1.0, "1", None, (1, 2), [1.5], True, [True], mask, mask[0], torch.zeros(2)):
            with pytest.raises(TypeError, match="frames are chosen by"):
                video[key]


@FILES
def test_iteration(path_of: Callable[[str], Path], name: str, decoder: str) -> None:
    need(decoder)
    with open_video(path_of(name), decoder) as video:
        for _ in range(2):
            frames = list(video)
            assert [frame.shape for frame in frames] == [(3, 64, 112)] * COUNT
            assert torch.equal(torch.stack(frames), video[:])
        scaled = list(video.stream(short_side=32))
        assert torch.equal(torch.stack(scaled), video.frames(range(COUNT), 32))
        with pytest.raises(ConfigError, match="short_side") as caught:
            next(video.stream(0))
        assert caught.value.argument == "short_side"


@FILES
def test_reading_while_iterating(path_of: Callable[[str], Path], name: str, decoder: str) -> None:
    need(decoder)
    with open_video(path_of(name), decoder) as video:
        seen = []
        for number, frame in enumerate(video):
            seen.append(frame)
            if number % 7 == 3:
                assert numbers(video[[COUNT - 1 - number, 2]]) == [COUNT - 1 - number, 2]
        assert numbers(torch.stack(seen)) == list(range(COUNT))
        pairs = list(zip(video, video, strict=True))
        assert numbers(torch.stack([frame for pair in pairs[:9] for frame in pair])) == [
            number for number in range(9) for _ in "ab"
        ]


@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
def test_iteration_holds_few_frames(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, decoder: str
) -> None:
    need(decoder)
    monkeypatch.setattr("vidpool.video.other_decoders.FRAMES_AT_ONCE", 8)
    with open_video(written("gop12.mp4"), decoder) as video:
        reader, name = {
            "auto": (video._access if decoder == "auto" else None, "read"),
            "decord": (getattr(video, "_reader", None), "get_batch"),
            "torchcodec": (getattr(video, "_decoder", None), "get_frames_at"),
        }[decoder]
        asked = []
        inner = getattr(reader, name)

        def counting(indices):
            asked.append(len(indices))
            return inner(indices)

        monkeypatch.setattr(reader, name, counting)
        assert numbers(torch.stack(list(video))) == list(range(COUNT))
        # PyAV's decoder hands out one frame after another
        assert asked == ([COUNT] if decoder == "auto" else [8] * 7 + [4])


def test_with_and_without_a_block(written: Callable[[str], Path]) -> None:
    video = open_video(written("gop12.mp4"))
    assert numbers(video[[3]]) == [3]
    frames = iter(video)
    next(frames)
    video.close()
    video.close()
    for use in (
        lambda: video[0],
        lambda: video[:],
        lambda: list(video),
        lambda: next(frames),
        *(
            lambda name=name: getattr(video, name)
            for name in ("times", "duration", "width", "height", "codec", "rotation")
        ),
    ):
        with pytest.raises(ValueError, match="closed") as caught:
            use()
        assert not isinstance(caught.value, VideoError)
    assert repr(video) == f"PyAVVideo({str(written('gop12.mp4'))!r}, closed)"
    with open_video(written("gop12.mp4")) as video:
        pass
    with pytest.raises(ValueError, match="closed"):
        len(video)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("gop12.mp4", "h264"),
        ("many_keys.avi", "mpeg4"),
        ("motion_jpeg.avi", "mjpeg"),
        ("vp9.webm", "vp9"),
    ],
)
@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
@pytest.mark.filterwarnings("ignore:.*returns wrong frames")
def test_metadata(written: Callable[[str], Path], name: str, codec: str, decoder: str) -> None:
    need(decoder)
    with open_video(written(name), decoder) as video:
        assert (video.width, video.height) == (112, 64)
        assert (video.codec, video.rotation) == (codec, 0)
        assert video.fps == pytest.approx(25)
        assert video.duration == pytest.approx(COUNT / 25)
        assert video.times.dtype == torch.float64
        assert torch.allclose(video.times, torch.arange(COUNT).double() / 25)
        text = f"{str(written(name))!r}, {COUNT} frames, 112x64, 25.00 fps, 2.40 s, {codec}"
        assert repr(video) == f"{type(video).__name__}({text})"


@pytest.mark.parametrize("name", ["variable_rate.mp4", "variable_rate.mkv"])
@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
def test_times_of_a_variable_rate(written: Callable[[str], Path], name: str, decoder: str) -> None:
    need(decoder)
    expected = [(stamp - UNEVEN[0]) / 100 for stamp in UNEVEN]
    with open_video(written(name), decoder) as video:
        assert video.times.tolist() == pytest.approx(expected, abs=6e-4)  # mkv has milliseconds
        assert video.duration == pytest.approx(expected[-1] * COUNT / (COUNT - 1), abs=1e-3)
        for number in (0, 1, 30, COUNT - 1):
            start = float(video.times[number])
            assert video.span(start, start + 1e-3) == range(number, number + 1)


def test_times_of_a_known_length_that_is_too_small(written: Callable[[str], Path]) -> None:
    with open_video(written("h264.avi"), length=50) as video:
        assert video.times.shape == (50,)
        assert video.duration == pytest.approx(2)


@pytest.mark.parametrize(
    ("matrix", "rotation", "size"),
    [
        ((1, 0, 0, 1), 0, (112, 64)),
        ((0, -1, 1, 0), 90, (64, 112)),
        ((-1, 0, 0, -1), 180, (112, 64)),
        ((0, 1, -1, 0), 270, (64, 112)),
        ((1, 0, 0, -1), 0, (112, 64)),
        ((-1, 0, 0, 1), 180, (112, 64)),
        ((0, 1, 1, 0), 270, (64, 112)),
    ],
)
@pytest.mark.parametrize("decoder", ["auto", "decord", "torchcodec"])
def test_rotation(
    written: Callable[[str], Path],
    tmp_path: Path,
    matrix: tuple[int, int, int, int],
    rotation: int,
    size: tuple[int, int],
    decoder: str,
) -> None:
    need(decoder)
    path = with_display_matrix(written("gop12.mp4"), tmp_path / "turned.mp4", *matrix)
    with open_video(path, decoder) as video:
        assert video.rotation == rotation
        if decoder == "auto":
            # a turn, of the picture flipped upside down if the matrix mirrors it
            a, b, c, d = matrix
            with open_video(written("gop12.mp4")) as plain:
                frame = plain[5] if a * d - b * c > 0 else plain[5].flip(1)
            assert torch.equal(video[5], frame.rot90(rotation // 90, (1, 2)))
        if decoder != "decord" or a_turn(matrix):
            assert (video.width, video.height) == size
            assert video[5].shape == (3, size[1], size[0])


def a_turn(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return a * d - b * c > 0


def test_size_of_square_pixels(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 90, 72, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        frame = av.VideoFrame.from_ndarray(np.zeros((72, 90, 3), np.uint8))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for square, width in ((False, 90), (True, 96)):
        with open_video(tmp_path / "a.mp4", square_pixels=square) as video:
            assert (video.width, video.height) == (width, 72)
            assert video[0].shape == (3, 72, width)


def test_pictures_tell_no_times(frames_db: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(3, 112, 64)).save(tmp_path / "a.png")
    for path, codec, name in (
        (frames_db, "mjpeg", f"FramesDbVideo({str(frames_db)!r}, {COUNT} frames, 112x64, mjpeg)"),
        (
            tmp_path / "a.png",
            "png",
            f"ImageFileVideo({str(tmp_path / 'a.png')!r}, 1 frames, 112x64, png)",
        ),
    ):
        with open_video(path) as video:
            assert (video.width, video.height, video.codec, video.rotation) == (112, 64, codec, 0)
            assert repr(video) == name
            for value in ("fps", "times", "duration"):
                with pytest.raises(VideoError, match=f"{path}: .* frame rate"):
                    getattr(video, value)


def test_a_damaged_first_frame(written: Callable[[str], Path], tmp_path: Path) -> None:
    with av.open(str(written("intra_only.mp4"))) as container:
        first = next(container.demux(video=0))
        place, size = first.pos, first.size
    data = bytearray(written("intra_only.mp4").read_bytes())
    data[place + size - 300 : place + size] = bytes(300)
    (tmp_path / "a.mp4").write_bytes(data)
    with open_video(tmp_path / "a.mp4") as video:
        with pytest.raises(VideoError, match="frame 0 cannot be decoded"):
            _ = video.width
        with pytest.raises(VideoError, match="frame 0 cannot be decoded"):
            list(video)
        assert numbers(video[[-1]]) == [COUNT - 1]
        path = str(tmp_path / "a.mp4")
        assert repr(video) == f"PyAVVideo({path!r}, {COUNT} frames, 25.00 fps, 2.40 s, h264)"


def test_wild_files_are_described() -> None:
    described = 0
    for path in wild_files():
        try:
            video = open_video(path)
        except VideoError:
            continue
        with video:
            assert repr(video).startswith(f"{type(video).__name__}({str(path)!r}")
            try:
                size, length, times = (video.height, video.width), len(video), video.times
                assert video[length // 2].shape == (3, *size)
            except VideoError:
                continue
            assert times.shape == (length,)
            assert times[0] == 0
            assert bool((times.diff() > 0).all())
            assert video.duration >= times[-1]
            described += 1
    assert described > 20
