"""``vidpool predict`` on real files, with a checkpoint and nothing else."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tables import read_csv

from vidpool.cli import main
from vidpool.inference.loading import load_classifier
from vidpool.inference.predictor import Predictor, find_videos

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"


@pytest.fixture(scope="session")
def checkpoint(trained):
    return trained / "checkpoints/last.ckpt"


def test_classes_and_probabilities(checkpoint, colours, tmp_path, capsys):
    alone = shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    video = colours / "Blue/v_Blue_g01_c01.avi"
    assert main(["predict", str(alone), str(video), "--output", "out.json"]) == 0
    (found,) = json.loads(Path("out.json").read_text())
    assert found["file"] == str(video)
    probabilities = [entry["probability"] for entry in found["predictions"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1 + 1e-6
    assert found["predictions"][0]["class"] == "Blue"
    assert "Blue" in capsys.readouterr().out


def test_prediction_is_the_mean_softmax_over_the_views(checkpoint, colours):
    from vidpool.data.views import normalize, read_views

    video = str(colours / "Red/v_Red_g02_c01.mp4")
    found = Predictor(checkpoint)(video)
    classifier, names, preprocessing = load_classifier(checkpoint)
    views = read_views(video, preprocessing)
    assert views.shape == (9, 3, 4, 32, 32)  # three clips, three crops
    with torch.no_grad():
        clips = normalize(views, preprocessing.mean, preprocessing.std)
        expected = classifier(clips).softmax(1).mean(0)
    assert dict(found.top(6)) == pytest.approx(
        dict(zip(names, expected.tolist(), strict=True)), abs=1e-5
    )


def test_folders_csv_and_broken_files(checkpoint, colours, tmp_path, capsys):
    folder = tmp_path / "some videos"
    shutil.copytree(colours / "Red", folder / "deep")
    (folder / "deep/notes.txt").write_text("no video")
    (folder / "text.mp4").write_text("no video")
    (folder / ".hidden.mp4").write_text("no video")
    assert main(["predict", str(checkpoint), str(folder), "--output", "o.csv"]) == 1
    rows = read_csv("o.csv")
    assert len(rows) == 5 * 5 + 1
    (bad,) = [row for row in rows if row["error"]]
    assert bad["file"] == str(folder / "text.mp4")
    assert bad["error"].startswith(bad["file"])
    assert "is not a video" in capsys.readouterr().out.replace("\n", " ")


def test_output_is_not_overwritten_unasked(checkpoint, colours, capsys):
    Path("out.json").write_text("mine")
    command = ["predict", str(checkpoint), str(colours / "Red/v_Red_g02_c01.mp4")]
    assert main([*command, "--output", "out.json"]) == 1
    assert "out.json exists; give --overwrite" in capsys.readouterr().err
    assert Path("out.json").read_text() == "mine"
    assert main([*command, "--output", "out.json", "--overwrite"]) == 0
    assert len(json.loads(Path("out.json").read_text())) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "out.txt"], "out.txt: --output must end in .json, .csv"),
        (["--output", "none/out.csv"], "none: no such folder"),
        (["--top", "0"], "top must be at least 1, got 0"),
        (["--clips", "0"], "at least 1 clip, got clips=0"),
        (["--crops", "2"], "1 or 3 crops, got crops=2"),
        (["--device", "tpu9"], "device 'tpu9' cannot be used"),
        (["--decoder", "vlc"], "vlc"),
    ],
)
def test_mistakes_are_told(checkpoint, colours, capsys, options, message):
    video = str(colours / "Red/v_Red_g02_c01.mp4")
    assert main(["predict", str(checkpoint), video, *options]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("vidpool predict: error: ")
    assert message in printed


def test_checkpoints_that_are_none(colours, tmp_path, capsys):
    video = str(colours / "Red/v_Red_g02_c01.mp4")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"state_dict": {}, "code": os.system}, tmp_path / "code.ckpt")
    for name, message in {
        "none.ckpt": "no such checkpoint file",
        "text.ckpt": "cannot be read as a checkpoint",
        "code.ckpt": "cannot be read as a checkpoint",
        "foreign.ckpt": "holds no class names",
    }.items():
        assert main(["predict", str(tmp_path / name), video]) == 1
        assert message in capsys.readouterr().err


def test_an_empty_folder_is_an_error(checkpoint, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(checkpoint), str(tmp_path / "empty")]) == 1
    assert f"{tmp_path / 'empty'}: this folder holds no video" in capsys.readouterr().err


def test_a_video_shorter_than_the_clip_and_one_of_a_single_pixel(checkpoint, tmp_path):
    import av
    import numpy as np

    for name, size, frames in (("short", (16, 16), 2), ("pixel", (1, 1), 8)):
        with av.open(str(tmp_path / f"{name}.avi"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = "bgr0"
            for _ in range(frames):
                picture = np.full((*size, 3), (30, 30, 200), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    found = Predictor(checkpoint)(find_videos([tmp_path]))
    assert [prediction.path.name for prediction in found] == ["pixel.avi", "short.avi"]
    for prediction in found:
        assert prediction.error is None
        assert prediction.top(1)[0][0] == "Blue"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared videos are not here")
def test_real_and_broken_videos(checkpoint):
    found = {
        p.path.name: p
        for p in Predictor(checkpoint)(find_videos([SHARED / "broken", *SHARED.glob("real_*")]))
    }
    for name in ("real_ucf_style.avi", "real_kinetics_style.mp4", "real_cooking.mkv"):
        assert len(found[name].top(5)) == 5
    for name in ("x_audio.mp4", "x_empty.mp4", "x_html.mp4", "x_text.avi", "x_zeros.mp4"):
        assert found[name].error.startswith(str(found[name].path))
    for name in ("x_trunc.avi", "x_trunc_faststart.mp4"):
        assert found[name].error is None


def test_of_a_folder_without_videos_it_is_the_pictures(tmp_path):
    (tmp_path / "inside").mkdir()
    for name in ("b.JPEG", "inside/a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert find_videos([tmp_path]) == [tmp_path / "b.JPEG", tmp_path / "inside/a.png"]
    (tmp_path / "inside/c.mp4").touch()
    assert find_videos([tmp_path]) == [tmp_path / "inside/c.mp4"]
