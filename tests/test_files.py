from pathlib import Path

import pytest

from vidpool.errors import ConfigError
from vidpool.files import expand_path


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
