"""What several packages' tests share."""

import os

import pytest
import torch
from hypothesis import settings

from vidpool.data.sets.demo import write_video
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
def _own_seed():
    """Lightning's seed, which it keeps in the environment, begins and ends with the test."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


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
