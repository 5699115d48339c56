"""``vidpool show`` on real video files."""

import pytest
from matplotlib.image import imread

from vidpool.cli import main


@pytest.fixture
def video(colours):
    return str(colours / "Red" / "v_Red_g01_c01.avi")


def test_augment_writes_a_sheet(video, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["show", "augment", video, "--out", str(out), "--crop", "32"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    small = imread(out)
    assert small.std() > 0.05
    assert main(["show", "augment", video, "--out", str(out)]) == 1
    assert f"{out} exists; give --overwrite" in capsys.readouterr().err


def test_a_config_adds_a_row(video, recipe, tmp_path):
    heights = []
    for options in ([], ["--config", str(recipe), "--data.augment.erase", "1"]):
        out = tmp_path / f"{len(options)}.png"
        config, *rest = [options[:2], options[2:]]
        command = ["show", "augment", *config, video, "--out", str(out), "--crop", "32", *rest[0]]
        assert main(command) == 0
        heights.append(imread(out).shape[0])
    assert heights[1] - heights[0] == pytest.approx(heights[0] / 9, abs=20)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--out", "sheet.txt"], "sheet.txt: --out must end in .png"),
        (["--out", "none/sheet.png"], "none: no such folder"),
        (["--out", "a.png", "--crop", "0"], "crop=0"),
        (["--out", "a.png", "--config", "none.yaml"], "none.yaml: no such config file"),
        (["--out", "a.png", "--mix-with", "none.mp4"], "none.mp4: no such file"),
        (["--out", "a.png", "--data.crop", "9"], "needs --config FILE"),
    ],
)
def test_mistakes_are_told(video, capsys, options, told):
    assert main(["show", "augment", video, *options]) == 1
    assert told in capsys.readouterr().err
