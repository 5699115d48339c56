"""Checkpoint files of every format, and files that are not checkpoints."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_networks import assert_same_logits, randomised, tiny

from vidpool.errors import CheckpointError
from vidpool.models import load_weights
from vidpool.models.weights import load_checkpoint, read_weights


def test_safetensors(tmp_path):
    theirs, ours = randomised(tiny()), tiny()
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    assert not load_weights(ours, tmp_path / "a.safetensors").fresh
    assert_same_logits(theirs, ours, torch.randn(1, 3, 4, 32, 32, dtype=torch.float64))
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match=r"short\.safetensors: cannot be read"):
        read_weights(tmp_path / "short.safetensors")


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_are_no_checkpoint(tmp_path):
    (tmp_path / "text").write_text("text")
    (tmp_path / "empty").touch()
    (tmp_path / "video.mp4").write_bytes(b"\0\0\0 ftypisom" + bytes(100))
    torch.save([1, 2], tmp_path / "list")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "hollow")
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
    torch.save({"a": torch.ones(1000)}, tmp_path / "o", _use_new_zipfile_serialization=False)
    (tmp_path / "old").write_bytes((tmp_path / "o").read_bytes()[:-500])
    for name in ("program.pt2", "program.onnx"):
        (tmp_path / name).write_bytes(whole)
    reasons = {
        "program.pt2": "give the checkpoint that it was made of",
        "program.onnx": "is a program of `vidpool export`",
        "absent": "no such checkpoint file",
        "text": "cannot be read as a checkpoint (it is no PyTorch file, it begins with b'text')",
        "video.mp4": "it is no PyTorch file, it begins with",
        "empty": "it is empty",
        "short": "it is cut short or damaged",
        "old": "it is cut short or damaged",
    }
    for read, others in (
        (load_checkpoint, {"list": "is no Lightning checkpoint", "o": "has no 'state_dict'"}),
        (read_weights, {"list": "holds a list", "hollow": "holds no weights"}),
    ):
        for name, message in {**reasons, **others}.items():
            with pytest.raises(CheckpointError) as caught:
                read(tmp_path / name)
            assert message in str(caught.value)
            assert str(caught.value).startswith(str(tmp_path / name))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path, new):
    touched = tmp_path / "touched"
    content = {"state_dict": tiny().state_dict(), "extra": Malicious(touched)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Malicious(touched)))
    for name, message in (("a.pth", "its pickle wants to run"), ("bare.pth", "its pickle holds")):
        with pytest.raises(CheckpointError, match=message) as caught:
            read_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not touched.exists()
    # the file would have done it
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert touched.exists()


def test_keys_that_are_no_names_are_no_weights(tmp_path):
    torch.save({0: torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_weights(tmp_path / "a.pth")
