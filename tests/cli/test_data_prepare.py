"""``vidpool data`` on real video files."""

import pytest
import yaml

from vidpool.cli import main
from vidpool.data.datasets.ucf101 import UCF101DataModule


def test_prepare_a_data_set_and_read_it(colours, tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for folder in colours.iterdir():
        (source / folder.name).symlink_to(folder)
    (source / "Red" / "broken.mp4").write_text("no video")
    target = tmp_path / "target"
    try:
        assert main(["data", "prepare", str(source), str(target), "--num_workers", "1"]) == 1
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


def test_shard_a_data_set_and_train_on_it(recipe, tmp_path, capsys):
    pytest.importorskip("webdataset")
    out = tmp_path / "shards"
    command = ["data", "shard", "--config", str(recipe), "--output", str(out), "--num_workers", "1"]
    assert main(command) == 0
    told = f"{out}: 2 shards written, 0 were there already\ntrain: 18 videos, test: 12 videos\n"
    assert capsys.readouterr().out == told
    config = yaml.safe_load(recipe.read_text())
    options = config["data"]["init_args"]
    del options["root"]
    config["data"] = {"class_path": "ShardDataModule", "init_args": {**options, "shards": str(out)}}
    (tmp_path / "shards.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "shards.yaml")]) == 0
    checkpoint = next(tmp_path.glob("runs/tiny/fit_0/checkpoints/last.ckpt"))
    options = ["--config", str(tmp_path / "shards.yaml"), "--ckpt_path", str(checkpoint)]
    assert main(["test", *options]) == 0
