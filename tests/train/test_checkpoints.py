"""Checkpoints hold plain values, name no code that is run, and can be read again."""

import sys
from collections import OrderedDict
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, quiet_trainer

from vidpool.errors import CheckpointError
from vidpool.inference.loading import load_classifier
from vidpool.train import checkpoints
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4}
EVIL = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
def build(*_, **__):
    raise SystemExit("ran")
class Net:
    pass
"""


def saved(path, callbacks=(), data=None, **options):
    settings = {"lr_schedule": "constant", "width": 2} | options
    trainer = quiet_trainer(max_epochs=1, callbacks=list(callbacks))
    data = Generated(8, **{**SMALL, **(data or {})})
    trainer.fit(VideoClassifier("r3d_18", 3, **settings), data)
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


class Colour(Enum):
    RED = "red"


def test_plain_values():
    value = {
        "numbers": [np.float64(0.5), np.int32(3), np.bool_(True), np.str_("a")],
        "array": np.arange(6.0).reshape(2, 3),
        "path": Path("a") / "b",
        "nested": (OrderedDict(x=np.float32(0.25)), Colour.RED),
        "tensor": torch.ones(2),
        "object": Path,
    }
    found = checkpoints.plain(value, name_objects=True)
    assert found["numbers"] == [0.5, 3, True, "a"]
    assert [type(each) for each in found["numbers"]] == [float, int, bool, str]
    assert found["array"] == [[0, 1, 2], [3, 4, 5]]
    assert found["path"] == str(Path("a") / "b")
    assert found["nested"] == (OrderedDict(x=0.25), "red")
    assert found["tensor"] is value["tensor"]
    assert found["object"] == f"class:{Path.__module__}.Path"


def test_values_of_numpy_and_pathlib_give_a_readable_checkpoint(tmp_path):
    class Remembers(pl.Callback):
        loaded = None

        def state_dict(self):
            return {"best": np.float32(0.5), "folder": Path("runs"), "curve": np.arange(3)}

        def load_state_dict(self, state_dict):
            Remembers.loaded = state_dict

    lr, mean = np.logspace(-3, -1, 3)[1], np.array([0.4, 0.4, 0.4])
    data = {"mean": mean, "std": np.array([0.2, 0.2, 0.2])}
    path = tmp_path / "a.ckpt"
    content = saved(path, [Remembers()], data, lr=lr, milestones=np.array([3, 4]), freeze=["stem"])
    assert type(content["hyper_parameters"]["lr"]) is float
    assert content["hyper_parameters"]["milestones"] == [3, 4]
    assert type(content["optimizer_states"][0]["param_groups"][0]["lr"]) is float
    assert load_classifier(path)[2].mean == (0.4, 0.4, 0.4)
    assert VideoClassifier.load_from_checkpoint(path).hparams.lr == lr
    trainer = quiet_trainer(max_epochs=2, callbacks=[Remembers()])
    network = VideoClassifier("r3d_18", 3, width=2, lr_schedule="constant", freeze=["stem"])
    trainer.fit(network, Generated(8, **SMALL, **data), ckpt_path=path)
    assert Remembers.loaded == {"best": 0.5, "folder": "runs", "curve": [0, 1, 2]}


def test_what_cannot_be_read_again_is_an_error_at_the_first_save(tmp_path):
    class Odd(pl.Callback):
        def state_dict(self):
            return {"fine": 1, "odd": [Generated]}

    message = r"\['callbacks'\]\['.*Odd.*'\]\['odd'\]\[0\] is of .*, which is more than tensors"
    with pytest.raises(CheckpointError, match=message):
        saved(tmp_path / "a.ckpt", [Odd()])
    assert not (tmp_path / "a.ckpt").exists()


def test_nothing_that_a_checkpoint_names_is_imported(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    content = saved(path)
    assert not any(name.startswith("_") for name in content["hyper_parameters"])
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    content["hyper_parameters"] |= {
        "_instantiator": "evil.build",
        "_class_path": "evil.Net",
        "optimizer": {"class_path": "evil.Net", "init_args": {}},
        "lr_scheduler": {"class_path": "evil.Net"},
    }
    torch.save(content, path)
    loaded = VideoClassifier.load_from_checkpoint(path)
    assert loaded.hparams.optimizer == "class:evil.Net"
    assert load_classifier(path)[0].hparams.lr_scheduler == "class:evil.Net"
    found = quiet_trainer().validate(loaded, Generated(8, **SMALL), ckpt_path=path, verbose=False)
    assert "val/loss" in found[0]
    content["hyper_parameters"]["backbone"] = {"class_path": "evil.Net"}
    torch.save(content, path)
    for load in (VideoClassifier.load_from_checkpoint, load_classifier):
        with pytest.raises(CheckpointError, match=r"a network of the class evil\.Net"):
            load(path)
    assert "evil" not in sys.modules
    assert not (tmp_path / "evil.ran").exists()


def test_the_format_is_numbered_and_a_newer_one_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    content = saved(path)
    assert content["vidpool_format"] == 1
    torch.save({**content, "vidpool_format": 2}, path)
    for load in (VideoClassifier.load_from_checkpoint, load_classifier):
        with pytest.raises(CheckpointError, match=r"a\.ckpt: has format 2, of a newer version"):
            load(path)
    network = VideoClassifier("r3d_18", 3, width=2)
    with pytest.raises(CheckpointError, match="has format 2, of a newer version"):
        quiet_trainer().validate(network, Generated(8, **SMALL), ckpt_path=path)


def test_arguments_replace_those_of_the_checkpoint(tmp_path):
    class Own(VideoClassifier):
        def __init__(self, lr=0.1, width=2):
            super().__init__("r3d_18", 3, lr=lr, width=width)

    saved(tmp_path / "a.ckpt", lr=0.3)
    assert Own.load_from_checkpoint(tmp_path / "a.ckpt").hparams.lr == 0.3
    loaded = VideoClassifier.load_from_checkpoint(tmp_path / "a.ckpt", lr=0.2)
    assert loaded.hparams.lr == 0.2
    assert list(loaded.description["class_names"]) == list(Generated.class_names)
