"""What several packages' tests share."""

import os
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numbered_video
import pytest
import torch
from hypothesis import settings
from numbered_kinds import COUNT, WRITTEN
from numbered_set import LABELS, LENGTHS

from vidpool.data import parallel
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.datasets.demo import write_video
from vidpool.train.bfloat16 import bfloat16_fault

# without a deadline for each example, which tests of a busy machine miss
settings.register_profile("patient", parent=settings.default, deadline=None)
settings.load_profile("patient")

COLOURS = {
    "Red": (200, 30, 30),
    "Green": (30, 200, 30),
    "Blue": (30, 30, 200),
    "White": (220, 220, 220),
    "Black": (20, 20, 20),
    "Yellow": (210, 210, 30),
}
TRAIN_GROUPS, TEST_GROUPS = (3, 4, 5), (1, 2)
REGISTRIES = {"vidpool.nn.registry": "POOLING_METHODS", "vidpool.models.registry": "_MODELS"}
# modules whose functions run in processes
WORK = ("data.prepare.check", "data.prepare.transcode", "data.shards.writer", "analysis.similarity")
LISTS = Path(__file__).parents[2] / "shared" / "lists"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape names that are not UTF-8 in reports: pytest-xdist cannot send them."""

    def escape(text):
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    report = yield
    report.sections = [(title, escape(content)) for title, content in report.sections]
    told = str(report.longrepr)
    if told != escape(told):
        report.longrepr = escape(told)
    return report


@pytest.fixture(autouse=True)
def _keep_registries():
    """Remove what a test registers."""
    registries = [
        getattr(sys.modules[module], name)
        for module, name in REGISTRIES.items()
        if module in sys.modules
    ]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(autouse=True)
def _own_seed():
    """Lightning's seed, which it keeps in the environment, begins and ends with the test."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session", autouse=True)
def _quick_processes():
    """Fork the processes of `in_processes` from one that has imported PyTorch, once a session."""
    if "forkserver" not in get_all_start_methods():
        yield
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([f"vidpool.{module}" for module in WORK])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parallel, "CONTEXT", context)
        yield


@pytest.fixture(scope="session")
def bfloat16_convolutions():
    """Skip where PyTorch computes bfloat16 3D convolutions wrongly on this CPU."""
    if fault := bfloat16_fault():
        pytest.skip(f"on this CPU, {fault}")


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """A data set in UCF-101's layout whose six classes are colours: 18 training, 12 test videos.

    The videos are 48 x 36, 20 frames long, half of them mpeg4 AVI and half h264 MP4.
    """
    root = tmp_path_factory.mktemp("colours")
    lists = {kind: [] for kind in ("train", "test")}
    generator = torch.Generator().manual_seed(0)
    for label, (name, colour) in enumerate(COLOURS.items(), start=1):
        (root / name).mkdir()
        for group in (*TRAIN_GROUPS, *TEST_GROUPS):
            path = f"{name}/v_{name}_g{group:02d}_c01.{'avi' if group % 2 else 'mp4'}"
            noise = torch.randint(-20, 20, (20, 36, 48, 3), generator=generator)
            write_video(root / path, (torch.tensor(colour) + noise).clamp(0, 255).byte())
            if group in TRAIN_GROUPS:
                lists["train"].append(f"{path} {label}\n")
            else:
                lists["test"].append(f"{path}\n")
    folder = root / "ucfTrainTestlist"
    folder.mkdir()
    index = "".join(f"{i} {name}\n" for i, name in enumerate(COLOURS, start=1))
    (folder / "classInd.txt").write_text(index)
    for kind, lines in lists.items():
        (folder / f"{kind}list01.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="session")
def numbered(tmp_path_factory):
    """Five labelled square videos (64 x 64), of both kinds of file; frames carry their numbers."""
    folder = tmp_path_factory.mktemp("square")
    videos = []
    for number, (length, label) in enumerate(zip(LENGTHS, LABELS, strict=True)):
        suffix, codec = (".mp4", "libx264") if number % 2 else (".avi", "mpeg4")
        path = numbered_video.write_video(
            folder / f"{number}{suffix}", length, codec=codec, size=(64, 64)
        )
        videos.append(LabelledVideo(str(path), label))
    return videos


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the path of one of the files in WRITTEN, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("numbered")

    @cache
    def write(name: str) -> Path:
        return numbered_video.write_video(folder / name, **{"count": COUNT, **WRITTEN[name]})

    return write


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """One video of 40 frames, 112 x 64."""
    return numbered_video.write_video(tmp_path_factory.mktemp("wide") / "wide.mp4", 40)


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
