"""Videos stored as images: the SRTG authors' databases of JPEG frames, and image files."""

import io
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from mutated import mutated
from numbered_video import numbers, picture
from PIL import Image
from torch.utils.data import DataLoader

from vidpool.errors import ConfigError, VideoError
from vidpool.video import open_video

COUNT = 30
PIXELS = np.arange(36 * 48 * 3, dtype=np.uint8).reshape(36, 48, 3)


def jpeg(number: int, size: tuple[int, int] = (113, 65)) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture(number, *size)).save(out, "JPEG", quality=92)
    return out.getvalue()


def write_folder(folder: Path, pictures: list[bytes], name: str | None = None) -> Path:
    """Write pictures as the authors do; rows lie in no order."""
    folder.mkdir(parents=True)
    name = folder.name if name is None else name
    with sqlite3.connect(folder / "frames.db") as connection:
        connection.execute("CREATE TABLE Images(ObjId text PRIMARY KEY, frames blob)")
        rows = [(f"{name}/frame_{i + 1:05d}", data) for i, data in enumerate(pictures)]
        connection.executemany("INSERT INTO Images VALUES(?, ?)", rows[::-1])
    connection.close()
    (folder / "n_frames").write_text(f"{len(pictures)}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("Mini Kinetics%20_videos")
    path = root / "jpg" / "riding a bike" / "-abc'd?f#h_k_000010_000020"
    return write_folder(path, [jpeg(i) for i in range(COUNT)])


def test_frames(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with open_video(folder, "frames_db") as video:
        assert len(video) == COUNT
        clip = video.frames([7, 3, 3, 29, 0])
        assert numbers(clip) == [7, 3, 3, 29, 0]
        assert clip.shape == (5, 3, 65, 113)
        assert video.frames([5, 6], short_side=40).shape == (2, 3, 40, 70)
        assert np.abs(clip[0].permute(1, 2, 0).numpy() - picture(7, 113, 65).astype(int)).mean() < 6
    with open_video(folder, "frames_db", length=COUNT) as video:
        assert numbers(video.frames(range(COUNT))) == list(range(COUNT))
    # nothing is written, no journal left
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_more_frames_than_sqlite_takes_values(tmp_path: Path) -> None:
    small = [jpeg(i, (28, 16)) for i in range(8)]
    path = write_folder(tmp_path / "long", small * 150)
    with open_video(path, "frames_db") as video:
        assert numbers(video.frames(range(1200)))[::8] == [0] * 150


def read_first(folder: Path) -> int:
    with open_video(folder, "frames_db") as video:
        return numbers(video.frames([4]))[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers(folder: Path, start: str) -> None:
    class_of_paths = [str(folder)] * 6
    loader = DataLoader(
        class_of_paths,
        batch_size=None,
        num_workers=2,
        collate_fn=read_first,
        multiprocessing_context=start,
    )
    assert list(loader) == [4] * 6


def failure(folder: Path) -> str:
    with pytest.raises(VideoError) as caught, open_video(folder, "frames_db") as video:
        video.frames(range(len(video)))
    assert str(caught.value).startswith(str(folder))
    return str(caught.value).removeprefix(str(folder))


def test_broken_folders(tmp_path: Path) -> None:
    assert failure(tmp_path / "none") == ": is no folder with frames.db and n_frames"
    (tmp_path / "file.mp4").write_text("x")
    assert "is no folder" in failure(tmp_path / "file.mp4")
    (tmp_path / "empty").mkdir()
    assert failure(tmp_path / "empty") == "/frames.db: no such file"
    pictures = [jpeg(i) for i in range(5)]
    path = write_folder(tmp_path / "a", pictures)
    (path / "n_frames").write_text("6\n")
    assert failure(path) == ": n_frames says 6, but frames.db holds fewer frames"
    (path / "n_frames").write_text("4")
    assert failure(path) == ": n_frames says 4, but frames.db holds more frames"
    (path / "n_frames").write_text("5")
    with open_video(path, "frames_db") as video:
        with pytest.raises(VideoError, match="does not say its frame rate"):
            _ = video.fps
        with pytest.raises(VideoError, match="does not say its frame rate"):
            video.span(0, 1)
        with pytest.raises(IndexError, match="no frame 5"):
            video.frames([5])
    with (
        pytest.raises(VideoError, match="7 frames are expected of it, but it holds 5"),
        open_video(path, "frames_db", length=7) as video,
    ):
        len(video)
    for text in ("", "many", "0", "-3", "1e3", "\xff"):
        (path / "n_frames").write_text(text, encoding="latin-1")
        assert "n_frames" in failure(path)
    (path / "n_frames").unlink()
    assert failure(path) == "/n_frames: no such file"


def test_broken_databases(tmp_path: Path) -> None:
    pictures = [jpeg(i) for i in range(5)]
    path = write_folder(tmp_path / "no_jpeg", [*pictures[:3], b"not a picture", *pictures[4:]])
    assert failure(path) == ": no_jpeg/frame_00004 is not a JPEG picture"
    path = write_folder(tmp_path / "cut", [*pictures[:3], b"", *pictures[4:]])
    assert failure(path) == ": cut/frame_00004 is not a JPEG picture"
    path = write_folder(tmp_path / "gap", pictures)
    with sqlite3.connect(path / "frames.db") as connection:
        connection.execute("DELETE FROM Images WHERE ObjId = 'gap/frame_00002'")
    connection.close()
    assert failure(path) == ": frames.db holds no gap/frame_00002"
    path = write_folder(tmp_path / "other", pictures)
    (path / "frames.db").write_bytes(b"not a database" * 99)
    assert "not a database" in failure(path)
    path = write_folder(tmp_path / "table", pictures)
    with sqlite3.connect(path / "frames.db") as connection:
        connection.execute("ALTER TABLE Images RENAME TO Pictures")
    connection.close()
    assert "no such table" in failure(path)
    path = write_folder(tmp_path / "damaged", pictures * 30)
    data = (path / "frames.db").read_bytes()
    (path / "frames.db").write_bytes(data[: len(data) // 3])
    assert "frames.db" in failure(path)


def test_which_decoder_reads_a_folder(folder: Path) -> None:
    for options in ({}, {"fast": True}):
        with open_video(folder, **options) as video:
            assert numbers(video.frames([6])) == [6]
    with (
        pytest.raises(VideoError, match="is a folder, not a video"),
        open_video(folder, "pyav"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="fast is for decoder"),
        open_video(folder, "frames_db", fast=True),
    ):
        pass


@pytest.mark.parametrize("name", ["a.png", "b.bmp", "c.ppm", "d.TIFF", "e.webp"])
def test_the_pixels_are_those_stored(name, tmp_path):
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path, **({"lossless": True} if name.endswith("webp") else {}))
    with open_video(path) as picture:
        assert len(picture) == 1
        assert torch.equal(picture.frames([0, 0])[1], torch.from_numpy(PIXELS).permute(2, 0, 1))
        assert picture.frames([0], short_side=18).shape == (1, 3, 18, 24)
        with pytest.raises(IndexError, match="no frame 1"):
            picture.frames([1])
        with pytest.raises(VideoError, match="has no frame rate"):
            _ = picture.fps


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_all_kinds_of_picture_become_rgb(mode, tmp_path):
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    picture = Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode)
    picture.save(path)
    with open_video(path) as video:
        assert video.frames([0]).shape == (1, 3, 10, 20)
        assert video.frames([0]).float().mean() > 250


def test_what_is_no_picture_is_told(tmp_path):
    for name, content, says in (
        ("a.jpg", b"not a picture", "is not a picture"),
        ("b.jpg", b"", "is empty"),
        ("c.jpg", None, "no such file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match=f"{name}: {says}"), open_video(tmp_path / name):
            pass
    Image.fromarray(PIXELS).save(tmp_path / "d.jpg")
    whole = (tmp_path / "d.jpg").read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    with open_video(tmp_path / "d.jpg") as video, pytest.raises(VideoError, match="damaged"):
        video.frames([0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for suffix in ("jpg", "png", "webp", "bmp", "tif"):
        Image.fromarray(PIXELS).save(folder / f"whole.{suffix}")
    return folder


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it can read all the same
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_damaged_files_are_read_or_refused(files, suffix):
    path = files / f"damaged.{suffix}"
    whole = (files / f"whole.{suffix}").read_bytes()
    refused = read = 0
    for seed in range(200):
        path.write_bytes(mutated(whole, seed))
        try:
            with open_video(path) as video:
                assert video.frames([0], short_side=8).dtype == torch.uint8
        except VideoError as error:
            refused += str(error).startswith(str(path))
        else:
            read += 1
    assert refused
    assert refused + read == 200
