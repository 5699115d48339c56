"""Checkpoints are written whole or not at all, whatever goes wrong."""

import errno
import fcntl
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from vidpool.errors import CheckpointError
from vidpool.train.run_folder import SafeCheckpointIO, remove_unfinished, write_checkpoint

FORK = multiprocessing.get_context("fork")  # a new interpreter would import PyTorch anew
OLD, NEW = {"state_dict": {"w": torch.zeros(9)}}, {"state_dict": {"w": torch.ones(99_999)}}


def save(path, checkpoint=NEW):
    SafeCheckpointIO().save_checkpoint(checkpoint, path)


def load(path):
    return TorchCheckpointIO().load_checkpoint(path, weights_only=True)["state_dict"]["w"]


def test_what_is_saved_is_loaded_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "folder" / "last.ckpt"
    for checkpoint in (OLD, NEW):
        save(path, checkpoint)
        assert torch.equal(load(path), checkpoint["state_dict"]["w"])
        assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_storage_options_are_refused_as_by_lightning(tmp_path):
    with pytest.raises(TypeError, match="storage_options"):
        SafeCheckpointIO().save_checkpoint(NEW, tmp_path / "last.ckpt", storage_options={})


def test_remote_places_are_lightnings(tmp_path):
    save("memory://bucket/last.ckpt")
    assert torch.equal(load("memory://bucket/last.ckpt"), NEW["state_dict"]["w"])
    assert not list(tmp_path.iterdir())


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(handle):
        target = Path(f"/proc/self/fd/{handle}").resolve() if sys.platform == "linux" else None
        done.append(("fsync", target and target.name))
        fsync(handle)

    def watched_replace(self, target):
        done.append(("replace", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save(tmp_path / "last.ckpt")
    folder = tmp_path.name if sys.platform == "linux" else None
    file = ".last.ckpt.part.ckpt" if sys.platform == "linux" else None
    assert done == [("fsync", file), ("replace", "last.ckpt"), ("fsync", folder)]


def save_with_little_room(path, told):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails instead
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save(path)
    except CheckpointError as error:
        told.put(str(error))
    else:
        told.put("saved")


def test_a_file_that_cannot_grow_is_an_error_that_keeps_the_old_one(tmp_path):
    """The kernel refuses to write on in the middle of the file, as on a full disk."""
    path = tmp_path / "last.ckpt"
    save(path, OLD)
    told = FORK.SimpleQueue()
    process = FORK.Process(target=save_with_little_room, args=(path, told))
    process.start()
    message = told.get()
    process.join()
    assert f"{path}: the checkpoint cannot be written: File too large (it takes 0.4 MB" in message
    assert message.endswith("the one that was there is kept")
    assert torch.equal(load(path), OLD["state_dict"]["w"])
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(tmp_path, monkeypatch):
    """/dev/full fails as a full disk does, once the file's bytes are written out."""
    path = tmp_path / "last.ckpt"
    save(path, OLD)
    plain = Path.open

    def opened(self, mode="r", *rest, **options):
        full = self.name.endswith(".part.ckpt") and mode == "wb"
        return plain(Path("/dev/full") if full else self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 123_456))
    with pytest.raises(CheckpointError) as raised:
        save(path)
    assert "No space left on device (it takes 0.4 MB, 0.1 MB are free)" in str(raised.value)
    assert raised.value.__cause__.errno == errno.ENOSPC
    assert torch.equal(load(path), OLD["state_dict"]["w"])


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/last.ckpt: .* cannot be written") as raised:
        save(tmp_path / "file" / "last.ckpt")
    assert "is kept" not in str(raised.value)


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "last.ckpt")
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def write_for_ever(path, begun):
    for number, size in enumerate(itertools.cycle([3_000_000, 5_000_000])):
        write_checkpoint(path, memoryview(bytes([number % 251]) * size))
        if number == 0:
            begun.set()


def test_killed_at_any_moment_the_file_is_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    unfinished = 0
    for round_ in range(20):
        begun = FORK.Event()
        process = FORK.Process(target=write_for_ever, args=(path, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(0.001 * round_)
        process.kill()
        process.join()
        content = path.read_bytes()
        assert len(content) in (3_000_000, 5_000_000)
        assert len(set(content)) == 1
        unfinished += (tmp_path / ".last.ckpt.part.ckpt").exists()
    assert unfinished  # so that some were killed while writing
    remove_unfinished(path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def hold(file, begun):
    with file.open("wb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        begun.set()
        time.sleep(600)


def test_what_another_process_is_writing_is_not_removed(tmp_path):
    path, unfinished = tmp_path / "last.ckpt", tmp_path / ".last.ckpt.part.ckpt"
    begun = FORK.Event()
    process = FORK.Process(target=hold, args=(unfinished, begun))
    process.start()
    assert begun.wait(60)
    remove_unfinished(path)
    assert unfinished.exists()
    process.kill()
    process.join()
    remove_unfinished(path)
    assert not unfinished.exists()
    remove_unfinished(path)  # nothing there is nothing to do
