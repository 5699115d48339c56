"""Small videos with numbered frames, broken files, and UCF-101's official lists."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from numbered_kinds import COUNT, WRITTEN
from numbered_set import LABELS, LENGTHS
from numbered_video import write_video

from vidpool.data.table import LabelledVideo

LISTS = Path(__file__).parents[2].parent / "shared" / "lists"


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    """Five labelled square videos (64 x 64), of both kinds of file; frames carry their numbers."""
    folder = tmp_path_factory.mktemp("square")
    videos = []
    for number, (length, label) in enumerate(zip(LENGTHS, LABELS, strict=True)):
        suffix, codec = (".mp4", "libx264") if number % 2 else (".avi", "mpeg4")
        path = write_video(folder / f"{number}{suffix}", length, codec=codec, size=(64, 64))
        videos.append(LabelledVideo(str(path), label))
    return videos


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the path of one of the files in WRITTEN, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("numbered")

    @cache
    def write(name: str) -> Path:
        return write_video(folder / name, **{"count": COUNT, **WRITTEN[name]})

    return write


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """One video of 40 frames, 112 x 64."""
    return write_video(tmp_path_factory.mktemp("wide") / "wide.mp4", 40)


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    """Three labelled videos that cannot be decoded: no file, an empty one, a text."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 9)
    names = ("none.avi", "empty.mp4", "text.mp4")
    return [LabelledVideo(str(folder / name), 1) for name in names]


@pytest.fixture(scope="session")
def official_lists():
    """The folder with UCF-101's official lists; skips where it is not."""
    if not (LISTS / "classInd.txt").is_file():
        pytest.skip(f"{LISTS} is not here")
    return LISTS
