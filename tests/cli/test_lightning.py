"""What the command line makes of Lightning's errors and messages."""

import logging
import re
import warnings

import pytest
import pytorch_lightning as pl
import yaml
from tables import read_csv

from vidpool.cli import main
from vidpool.cli.lightning import missing_package
from vidpool.train.callbacks.console import silence_noise


def fit(recipe, *options):
    return main(["fit", "--config", str(recipe), *options])


class Unavailable(pl.Callback):
    """A callback of which a package is missing, as of Lightning's loggers."""

    def __init__(self, late: bool = False):
        self.late = late
        if not late:
            self.fail()

    def setup(self, *_, **__):
        self.fail()

    def fail(self):
        raise ModuleNotFoundError(
            "Requirement 'somepackage>=0.12' not met. HINT: Try running `pip install -U "
            "'somepackage>=0.12'`"
        )


class Refusing(pl.Callback):
    """A callback whose constructor refuses its arguments."""

    def __init__(self, mode: str = "foo"):
        raise ValueError(f"`mode` can be\n min, max, got {mode}")


@pytest.mark.parametrize("late", ["false", "true"])
def test_a_missing_package_is_one_line(recipe, capsys, late):
    callback = f"{__name__}.Unavailable"
    options = [f"--trainer.callbacks+={callback}", f"--trainer.callbacks.late={late}"]
    assert fit(recipe, *options) == 1
    (line,) = re.findall(r"vidpool fit: error: (.*)", capsys.readouterr().err)
    assert "'somepackage>=0.12' not met" in line
    assert line.endswith("install it with: pip install 'somepackage>=0.12'")
    assert line.startswith("Unavailable: ") == (late == "false")


def test_a_constructor_that_refuses_is_one_line(recipe, capsys):
    assert fit(recipe, f"--trainer.callbacks+={__name__}.Refusing") == 1
    error = capsys.readouterr().err
    assert "vidpool fit: error: Refusing: `mode` can be min, max, got foo\n" in error


def test_missing_packages_are_told_from_faults():
    absent = ModuleNotFoundError("No module named 'abc_xyz'", name="abc_xyz.part")
    assert missing_package(absent).endswith("pip install abc_xyz")
    assert missing_package(ModuleNotFoundError("no", name="vidpool.nothing")) is None
    assert missing_package(ImportError("cannot import name 'x'", name="torch")) is None
    assert missing_package(ValueError("pip install x")) is None


def test_a_run_root_that_cannot_be_made_is_one_line(recipe, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert fit(recipe, "--run.root", str(tmp_path / "file")) == 1
    assert re.search(r"error: \S+file/tiny: .*set the root of the runs", capsys.readouterr().err)


def test_an_unknown_monitor_is_a_warning_then_one_line(recipe, capsys):
    options = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"]
    with pytest.warns(UserWarning, match="EarlyStopping monitors 'val_loss'.*did you mean"):
        assert fit(recipe, *options) == 1
    assert re.search(r"error: Early stopping conditioned .*val_loss.*", capsys.readouterr().err)


class Metrics(pl.Callback):
    """Notes which metrics callbacks could monitor, and which the module says it logs."""

    there, logged = None, None

    def on_train_end(self, trainer, module):
        type(self).there, type(self).logged = set(trainer.callback_metrics), module.logged_metrics


def test_logged_metrics_are_those_there_are(recipe):
    assert fit(recipe, f"--trainer.callbacks+={__name__}.Metrics") == 0
    assert set(Metrics.logged) == Metrics.there
    assert len(Metrics.logged) == len(Metrics.there)


def test_paths_of_recipes_are_expanded(recipe, colours, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLOURS", str(colours))
    settings = yaml.safe_load(recipe.read_text())
    settings["data"]["init_args"]["root"] = "$COLOURS"
    settings["run"]["root"] = "~/runs"
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(settings))
    (tmp_path / "sub").mkdir()
    based = tmp_path / "sub/based.yaml"
    based.write_text("base: [~/own.yaml]\n")
    assert fit(based) == 0
    checkpoint = "runs/tiny/fit_0/checkpoints/last.ckpt"
    assert (tmp_path / checkpoint).is_file()
    assert read_csv(tmp_path / "runs/tiny/fit_0/metrics.csv")
    test = ["test", "--config=~/own.yaml", f"--ckpt_path=~/{checkpoint}"]
    assert main(test) == 0
    monkeypatch.delenv("COLOURS")
    assert main(test) == 1
    assert "the environment variable COLOURS is not set" in capsys.readouterr().err


def test_noise_is_hidden_and_news_is_not(caplog):
    silence_noise()
    silence_noise()
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    logger.addHandler(caplog.handler)
    try:
        logger.warning("💡 Tip: For seamless cloud logging, try installing [x]")
        logger.warning("GPU available: True, used: True")
    finally:
        logger.removeHandler(caplog.handler)
    assert {record.message for record in caplog.records} == {"GPU available: True, used: True"}


def test_training_prints_nothing_that_says_nothing(recipe, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert fit(recipe, "--trainer.enable_model_summary", "true") == 0
    printed = "".join(capsys.readouterr())
    for noise in ("FLOPs", "LeafSpec", "Tip:", "TPU", "summary callbacks"):
        assert noise not in printed
