"""``vidpool show`` on real video files."""

import json
from pathlib import Path

import pytest
from matplotlib.image import imread
from PIL import Image

from vidpool.cli import main


@pytest.fixture
def video(colours):
    return str(colours / "Red" / "v_Red_g01_c01.avi")


def test_augment_writes_a_sheet(video, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["show", "augment", video, "--output", str(out), "--crop", "32"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    small = imread(out)
    assert small.std() > 0.05
    assert main(["show", "augment", video, "--output", str(out)]) == 1
    assert f"{out} exists; give --overwrite" in capsys.readouterr().err


def test_a_config_adds_a_row(video, recipe, tmp_path):
    heights = []
    for options in ([], ["--config", str(recipe), "--data.augment.erase", "1"]):
        out = tmp_path / f"{len(options)}.png"
        config, *rest = [options[:2], options[2:]]
        command = [
            "show",
            "augment",
            *config,
            video,
            "--output",
            str(out),
            "--crop",
            "32",
            *rest[0],
        ]
        assert main(command) == 0
        heights.append(imread(out).shape[0])
    assert heights[1] - heights[0] == pytest.approx(heights[0] / 9, abs=20)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output", "sheet.txt"], "sheet.txt: --output must end in .png"),
        (["--output", "none/sheet.png"], "none: no such folder"),
        (["--output", "a.png", "--crop", "0"], "crop=0"),
        (["--output", "a.png", "--config", "none.yaml"], "none.yaml: no such config file"),
        (["--output", "a.png", "--mix_with", "none.mp4"], "none.mp4: no such file"),
        (["--output", "a.png", "--data.crop", "9"], "needs --config FILE"),
    ],
)
def test_mistakes_are_told(video, capsys, options, told):
    assert main(["show", "augment", video, *options]) == 1
    assert told in capsys.readouterr().err


def test_pooling_of_pictures_and_videos(video, tmp_path, capsys):
    pytest.importorskip("skimage")
    Image.effect_noise((60, 47), 60).convert("RGB").save(tmp_path / "noise.png")
    command = ["show", "pooling", "noise.png", video, "--kernels", "2", "3", "--short_side", "36"]
    command += ["--methods", "soft", "lip", "--zoom", "4,5,12", "--animation", "gif"]
    assert main(command) == 0
    name = Path(video).stem
    files = ["noise.json", "noise.png", f"{name}.json", f"{name}.png", f"{name}.gif"]
    assert sorted(file.name for file in Path("pooling").iterdir()) == sorted(files)
    printed = capsys.readouterr().out
    assert all(f"wrote pooling/{file}" in printed for file in files)
    content = json.loads(Path("pooling/noise.json").read_text())
    assert content["results"]["region"] == {"left": 4, "top": 5, "side": 12}
    assert content["command"].startswith("vidpool show pooling noise.png")
    assert len(content["results"]["similarity"]) == 4
    clip = json.loads(Path(f"pooling/{name}.json").read_text())["results"]
    assert clip["shape"] == [3, 20, 36, 48]
    assert imread(f"pooling/{name}.png").std() > 0.05
    assert main(command) == 1
    assert "pooling/noise.json exists; give --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_pooling_of_files_of_one_name(tmp_path):
    pytest.importorskip("skimage")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.effect_noise((40, 30), 60).save(tmp_path / folder / "x.png")
    files = ["a/x.png", "b/x.png"]
    assert main(["show", "pooling", *files, "--kernels", "2", "--output", "both"]) == 0
    assert sorted(p.name for p in Path("both").glob("*.png")) == ["x.png", "x_2.png"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["none.png"], "none.png: no such file"),
        (["none.png", "tiny.png"], "none of 2 files can be drawn: none.png: no such file"),
        (["none.mp4"], "none.mp4: no such file"),
        (["tiny.png"], "tiny.png: is smaller than 11 x 11 pixels"),
        (["."], ".: is a folder; name files in it"),
        (["VIDEO", "--kernels", "21"], "has 20 frames, and a window 21"),
        (["VIDEO", "--short_side", "8"], "too small for windows of 5 and for SSIM's of 11"),
        (["VIDEO", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["VIDEO", "--zoom", "1,2"], "--zoom 1,2 must be X,Y,SIDE in pixels"),
        (["VIDEO", "--zoom", "0,0,999"], "--zoom 0,0,999 lies outside"),
        (["VIDEO", "--kernels", "0"], "at least 1 pixel, got k = 0"),
        (["VIDEO", "--output", "tiny.png"], "tiny.png is a file"),
    ],
)
def test_mistakes_of_pooling_are_told(video, tmp_path, capsys, options, told):
    Image.new("RGB", (20, 5)).save(tmp_path / "tiny.png")
    assert main(["show", "pooling", *(video if o == "VIDEO" else o for o in options)]) == 1
    assert told in capsys.readouterr().err


def test_pooling_of_what_can_be_read(tmp_path, capsys):
    pytest.importorskip("skimage")
    Image.effect_noise((40, 40), 60).save(tmp_path / "noise.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "noise.png").read_bytes()[:99])
    assert main(["show", "pooling", "cut.png", "noise.png", "--kernels", "2"]) == 1
    printed = capsys.readouterr().out
    assert "left out: cut.png: cannot be read as an image" in printed
    assert sorted(file.name for file in Path("pooling").iterdir()) == ["noise.json", "noise.png"]
