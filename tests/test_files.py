import os
import stat
from pathlib import Path

import pytest

from vidpool.errors import ConfigError
from vidpool.files import atomic_write, expand_path, unfinished_path


def test_home_and_variables_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    assert expand_path("~/videos") == Path("/home/me/videos")
    assert expand_path("$DATA/ucf101") == Path("/data/ucf101")
    assert expand_path("${DATA}/a b") == Path("/data/a b")
    assert expand_path(Path("$DATA")) == Path("/data")
    assert expand_path("videos/~/x") == Path("videos/~/x")


def test_an_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    for text in ("$NOWHERE/x", "${NOWHERE}/x"):
        with pytest.raises(ConfigError, match=r"variable NOWHERE is not set"):
            expand_path(text)


def test_files_with_such_names_stay_within_reach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a$b.mp4", "~x.mp4"):
        Path(name).touch()
        assert expand_path(name) == Path(name)
    assert expand_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert expand_path("price in $") == Path("price in $")


@pytest.mark.parametrize("shared", [False, True])
def test_an_atomic_write_is_complete_or_not_there(tmp_path, shared):
    path = tmp_path / "results.csv"
    path.write_text("old")

    def fail_halfway():
        with atomic_write(path, shared=shared) as file:
            file.write_text("half")
            assert file.parent == tmp_path
            assert file.name.startswith(".")
            assert file.suffix == ".csv"
            assert (file == unfinished_path(path)) == (not shared)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(path.name, "old")]
    with atomic_write(path, shared=shared) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(path.name, "new")]


def test_an_atomic_write_flushes_the_file_then_its_folder(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle)))
    with atomic_write(tmp_path / "a", fsync=True) as file:
        file.write_bytes(b"1234")
    file, folder = flushed
    assert stat.S_ISREG(file.st_mode)
    assert file.st_size == 4
    assert stat.S_ISDIR(folder.st_mode)
