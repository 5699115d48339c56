"""Datamodules by name: the protocol, what replaces what, and the command line."""

import importlib.util
import subprocess
import sys

import pytest
import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader

import vidpool.data
from vidpool.data import registry
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.registry import datamodules, find_datamodule, register_datamodule
from vidpool.errors import ConfigError

PLUGIN = """
from vidpool.data import VideoFolderDataModule, register_datamodule

@register_datamodule
class MyFolder(VideoFolderDataModule):
    def __init__(self, root: str, colour: str = "red", **options):
        super().__init__(root, **options)
        self.colour = colour
"""


class Noise(pl.LightningDataModule):
    num_classes: int

    def train_dataloader(self):
        return DataLoader([])


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    datamodules()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def test_vidpools_own_are_registered_and_exported():
    names = ["HACS", "ImageFolder", "Kinetics700", "Shard", "UCF101", "VideoFolder"]
    # an example in a docstring may have registered a class of another module
    modules = ("vidpool.data.datasets.", "vidpool.data.shards.")
    own = {name: cls for name, cls in datamodules().items() if cls.__module__.startswith(modules)}
    assert [*own] == [f"{name}DataModule" for name in names]
    for name, cls in own.items():
        assert getattr(vidpool.data, name) is cls
        assert name in dir(vidpool.data)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = vidpool.data.Nothing


def test_registered_under_the_name_of_the_class_or_another():
    assert register_datamodule(Noise) is Noise
    assert register_datamodule()(Noise) is Noise
    assert register_datamodule("my-noise")(Noise) is Noise
    assert find_datamodule("Noise") is find_datamodule("my-noise") is Noise
    with pytest.raises(ConfigError, match=r"named 'UCF101Datamodul'; .*UCF101DataModule"):
        find_datamodule("UCF101Datamodul")
    with pytest.raises(ConfigError, match="letters, digits, _ and -, got 'a b'") as caught:
        register_datamodule("a b")(Noise)
    assert caught.value.argument == "name"


class WithoutTraining(pl.LightningDataModule):
    class_names = ("a", "b")


class WithoutClasses(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader([])


class Abstract(VideoDataModule):
    def train_dataloader(self):
        return DataLoader([])


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (WithoutTraining, "WithoutTraining lacks a method train_dataloader$"),
        (WithoutClasses, "WithoutClasses lacks class_names or num_classes .a property, a class"),
        (Abstract, "Abstract lacks the abstract class_names"),
        (pl.LightningDataModule, "train_dataloader; and class_names or num_classes"),
        (dict, "dict is not a datamodule: it must be derived from pytorch_lightning.Lightning"),
        (3, "3 is not a datamodule"),
    ],
)
def test_what_is_missing_is_named(cls, message):
    with pytest.raises(ConfigError, match=message):
        register_datamodule("some")(cls)
    assert "some" not in datamodules()


def test_the_same_place_replaces_and_another_does_not(tmp_path, monkeypatch):
    def load(name, file):
        path = tmp_path / file
        path.write_text(PLUGIN)
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module.MyFolder

    for name in ("plugin_one", "plugin_one", "plugin_again_by_another_name"):
        last = load(name, "plugin.py")
        assert find_datamodule("MyFolder") is last
    with pytest.raises(ConfigError, match="a datamodule named 'MyFolder' is registered already"):
        load("plugin_two", "other.py")
    assert find_datamodule("MyFolder") is last


def test_the_parser_of_the_command_line_knows_the_name(tmp_path, monkeypatch):
    # a class of another test may have the same name until it is collected
    (tmp_path / "my_plugin.py").write_text(PLUGIN.replace("MyFolder", "ParsedFolder"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    import my_plugin

    parser = ArgumentParser()
    parser.add_subclass_arguments(VideoDataModule, "data")
    options = ["--data.root", str(tmp_path), "--data.colour", "blue", "--data.frames", "4"]
    data = parser.instantiate(parser.parse_args(["--data", "ParsedFolder", *options])).data
    assert type(data) is my_plugin.ParsedFolder
    assert (data.colour, data.preprocessing.frames) == ("blue", 4)


def test_vidpools_own_names_are_taken():
    code = """
import pytorch_lightning as pl, vidpool
class UCF101DataModule(pl.LightningDataModule):
    num_classes = 2
    def train_dataloader(self): return []
try:
    vidpool.register_datamodule(UCF101DataModule)
except vidpool.VidpoolError as error:
    print(error)
print(vidpool.UCF101DataModule.__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UCF101DataModule" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1] == "vidpool.data.datasets.ucf101"
