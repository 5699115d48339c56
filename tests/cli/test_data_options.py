"""The data section of a recipe, without the rest of it."""

import pytest
import yaml

from vidpool.cli.data_options import make_datamodule, parse_data
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.errors import ConfigError


def test_the_datamodule_of_a_recipe(recipe, tmp_path):
    config = tmp_path / "mine.yaml"
    own = {"data": {"init_args": {"augment": {"erase": 0.5}}}, "model": {"no_such": "option"}}
    config.write_text(yaml.safe_dump({"base": [str(recipe)], **own}))
    data = make_datamodule("bench data", ["--config", str(config), "--data.batch_size", "3"])
    assert isinstance(data, UCF101DataModule)
    assert (data.batch_size, data.preprocessing.crop, data.augment.erase) == (3, 32, 0.5)
    assert len(data.videos("train")) == 18


def test_settings_are_read_where_the_data_are_not(recipe):
    settings = parse_data("show augment", ["--config", str(recipe), "--data.root", "none"])
    assert settings.init_args.root == "none"
    assert settings.init_args.augment.authors == 0.0


def test_a_config_without_data(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("model: {lr: 1}")
    with pytest.raises(ConfigError, match="section `data`"):
        make_datamodule("bench data", ["--config", str(path)])
