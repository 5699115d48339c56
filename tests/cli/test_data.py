"""``vidpool data`` on real video files."""

import pytest

from vidpool.cli import main
from vidpool.data.ucf101 import UCF101DataModule


def test_prepare_a_data_set_and_read_it(colours, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for folder in colours.iterdir():
        (source / folder.name).symlink_to(folder)
    (source / "Red" / "broken.mp4").write_text("no video")
    target = tmp_path / "target"
    try:
        assert main(["data", "prepare", str(source), str(target), "--num-workers", "1"]) == 1
    finally:
        (source / "Red" / "broken.mp4").unlink()
    told = capsys.readouterr()
    assert told.out == f"{target}: 30 videos prepared, 0 were there already\n"
    assert "1 could not be prepared" in told.err
    assert "Red/broken.mp4: is not a video" in told.err
    assert main(["data", "prepare", str(source), str(target), "--shard", "1/2"]) == 0
    assert "0 videos prepared, 15 were there already" in capsys.readouterr().out
    prepared = UCF101DataModule(str(target), lists=str(colours / "ucfTrainTestlist"))
    assert len(prepared.videos("train")) == 18
    assert all(video.path.endswith(".mp4") for video in prepared.videos("train"))


def test_mistakes_are_told(tmp_path, capsys):
    assert main(["data", "prepare", str(tmp_path / "none"), str(tmp_path / "target")]) == 1
    assert f"{tmp_path / 'none'}: no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["data", "prepare", "a", "b", "--shard", "3"])
    assert "'3' is not of the form I/N" in capsys.readouterr().err
