"""``--plugin``: classes and names of the user's own on the command line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import yaml

from vidpool import plugins
from vidpool.cli import VERBS, main
from vidpool.cli.arguments import forget_options, note_options, option_of, take_plugins
from vidpool.cli.training import _count_classes, parse_fit
from vidpool.errors import ConfigError
from vidpool.models import registry
from vidpool.plugins import load_plugin

pytestmark = pytest.mark.filterwarnings("ignore")

PLUGIN = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.data import register_datamodule
from vidpool.models import register_model


class Net(nn.Module):
    heads = ("fc",)

    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, 2, 1)
        self.pool = nn.MaxPool3d(2)
        self.fc = nn.Linear(4, num_classes)

    def forward_features(self, clip):
        return self.pool(self.conv(clip)).mean((2, 3, 4))

    def forward(self, clip):
        return self.fc(self.forward_features(clip))


@register_model
def plugin_net(*, num_classes=400):
    return Net(num_classes)


@register_datamodule("plugin-colours")
class PluginColours(UCF101DataModule):
    pass


class PluginCallback(pl.Callback):
    def __init__(self, text="."):
        self.text = text

    def on_fit_start(self, trainer, module):
        print("the callback says", self.text, "to rank", trainer.global_rank)


class PluginWithoutClasses(pl.LightningDataModule):
    pass
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Path of a plugin with a network, a datamodule and a callback."""
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "plugins" / "own_plugin.py"
    path.parent.mkdir()
    path.write_text(PLUGIN)
    yield path
    sys.modules.pop("own_plugin", None)


def options(recipe, plugin):
    """A command line on the colours, with the plugin's network, datamodule and callback."""
    settings = yaml.safe_load(recipe.read_text())
    settings["model"] = {"backbone": "plugin_net", "lr": 0.01}
    settings["data"]["class_path"] = "PluginColours"
    Path("own.yaml").write_text(yaml.safe_dump(settings))
    callback = ["--trainer.callbacks+=own_plugin.PluginCallback", "--trainer.callbacks.text=hello"]
    return ["--config", "own.yaml", *callback, "--plugin", str(plugin)]


def test_classes_of_a_plugin_are_named_on_the_command_line(recipe, plugin, capsys):
    assert main(["fit", *options(recipe, plugin)]) == 0
    assert "the callback says hello to rank 0" in capsys.readouterr().out
    checkpoint = "runs/tiny/fit_0/checkpoints/last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["hyper_parameters"]["backbone"] == "plugin_net"
    assert main(["test", *options(recipe, plugin), "--ckpt_path", checkpoint]) == 0
    assert "predictions.csv" in {path.name for path in Path("runs/tiny/test_0").iterdir()}
    export = ["export", checkpoint, "--output", "net.pth"]
    assert main([f"--plugin={plugin}", *export]) == 0


@pytest.mark.slow
def test_processes_that_are_started_load_it_too(recipe, plugin):
    devices = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "vidpool", "fit", *options(recipe, plugin), *devices]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    for rank in (0, 1):
        assert f"the callback says hello to rank {rank}" in run.stdout


@pytest.mark.parametrize("name", ["plugin-colours", "own_plugin.PluginColours"])
def test_a_registered_datamodule_is_named_as_it_was_registered(recipe, plugin, name):
    load_plugin(plugin)
    settings = yaml.safe_load(recipe.read_text())
    settings["data"]["class_path"] = name
    Path("own.yaml").write_text(yaml.safe_dump(settings))
    parsed = parse_fit(["--config", "own.yaml"]).settings["data"]
    assert parsed["class_path"] == "own_plugin.PluginColours"
    assert parsed["init_args"]["root"] == settings["data"]["init_args"]["root"]
    for option in (["--data", name], [f"--data={name}"], ["--data.class_path", name]):
        arguments = [*option, "--data.root", settings["data"]["init_args"]["root"]]
        assert parse_fit(arguments).settings["data"]["class_path"] == "own_plugin.PluginColours"


def test_a_wrong_name_of_a_datamodule_is_one_line(capsys):
    assert main(["fit", "--data", "UCF101Datamodul", "--data.root", "x"]) == 1
    message = (
        "vidpool fit: error: there is no datamodule named 'UCF101Datamodul'; registered: UCF101"
    )
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(message)


def test_a_datamodule_without_classes_is_told(plugin, capsys):
    command = ["fit", "--plugin", str(plugin), "--data", "PluginWithoutClasses"]
    assert main([*command, "--trainer.accelerator", "cpu"]) == 1
    assert "PluginWithoutClasses needs the attribute num_classes" in capsys.readouterr().err


def test_classes_are_counted_by_number_or_names():
    assert _count_classes(SimpleNamespace(num_classes=3, class_names=None)) == 3
    assert _count_classes(SimpleNamespace(class_names=("a", "b"))) == 2


def test_a_plugin_that_is_not_there_is_one_line(recipe, capsys):
    assert main(["fit", "--config", str(recipe), "--plugin", "none.py"]) == 1
    assert capsys.readouterr().err == "vidpool fit: error: none.py: no such plugin file\n"


def test_plugins_stand_anywhere():
    command = ["--plugin", "a", "fit", "--plugin=b.py", "--data.root", "x", "--plugin", "c"]
    assert take_plugins(command) == (["a", "b.py", "c"], ["fit", "--data.root", "x"])
    with pytest.raises(ConfigError, match="--plugin needs the name"):
        take_plugins(["fit", "--plugin"])


def test_an_option_without_a_value_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--plugin"])
    assert "vidpool: error: --plugin needs the name of a module" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_each_verb_mentions_it(verb, capsys):
    what = VERBS[verb].subcommands[:1]
    with pytest.raises(SystemExit):
        main([verb, *what, "--help"])
    assert "--plugin" in capsys.readouterr().out


@pytest.fixture
def noted():
    forget_options()
    yield note_options
    forget_options()


def test_the_option_of_an_argument(noted):
    noted({"clips": "--clips", "model.lr": "--model.lr", "model.optimizer.lr": "--model.opt.lr"})
    noted({"run.root": "--run.root", "data.root": "--data.root", "data.clips": "--data.clips"})
    assert option_of("clips") == "--clips"
    assert option_of("lr") == "--model.lr"
    assert option_of("root") is None  # either could be meant
    assert option_of("oot") is None
    assert option_of(None) is None


class Refusing(pl.Callback):
    """A callback that refuses an argument of the datamodule, of the model or of nobody."""

    def __init__(self, argument: str = ""):
        raise ConfigError("this cannot be", argument=argument)


@pytest.mark.parametrize(
    ("argument", "option"),
    [
        ("init_from", "--model.init_from"),
        ("batch_size", "--data.batch_size"),
        ("flip", "--data.augment.flip"),
        ("ckpt_path", "--ckpt_path"),
        ("save_minutes", "--run.save_minutes"),
        ("precision", "--trainer.precision"),
        ("root", None),
        ("nothing", None),
    ],
)
def test_errors_name_the_option_of_their_argument(recipe, capsys, argument, option):
    command = ["fit", "--config", str(recipe), f"--trainer.callbacks+={__name__}.Refusing"]
    assert main([*command, f"--trainer.callbacks.argument={argument}"]) == 1
    lines = capsys.readouterr().err.splitlines()[-2:]
    expected = [] if option is None else [f"  option: {option}"]
    assert lines[lines.index("vidpool fit: error: this cannot be") + 1 :] == expected


def test_argparse_verbs_name_their_options(capsys, monkeypatch):
    def refuse(*_, **__):
        raise ConfigError("this cannot be", argument="clips_per_group")

    monkeypatch.setattr("vidpool.data.datasets.demo.make_demo", refuse)
    assert main(["data", "demo", "--output", "x"]) == 1
    error = capsys.readouterr().err
    assert error.endswith("error: this cannot be\n  option: --clips_per_group\n")
