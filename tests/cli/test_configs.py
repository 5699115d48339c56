from pathlib import Path

import pytest
import yaml

from vidpool.cli.configs import (
    config_names,
    expand_bases,
    find_config,
    make_datamodule,
    parse_data,
    shipped_configs,
)
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.errors import ConfigError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_bases_come_before_the_file_and_relative_to_it(tmp_path):
    deep = write(tmp_path / "parts/deep.yaml", {"run": {"name": "deep"}})
    write(tmp_path / "parts/part.yaml", {"base": ["deep.yaml"], "model": {"width": 8}})
    recipe = write(tmp_path / "recipes/r.yaml", {"base": ["../parts/part.yaml"], "a": {"b": 1}})
    command = expand_bases(["--config", str(recipe), "--model.width", "4"])
    assert command[::2] == ["--config", "--config", "--config", "--model.width"]
    first, second, third, width = command[1::2]
    assert (tmp_path / "recipes" / first).resolve() == deep
    assert yaml.safe_load(second) == {"model": {"width": 8}}
    assert yaml.safe_load(third) == {"a": {"b": 1}}
    assert width == "4"


@pytest.mark.parametrize("form", [["--config={}"], ["-c", "{}"], ["--config", "{}"]])
def test_forms_of_the_option(tmp_path, form):
    path = write(tmp_path / "plain.yaml", {"model": {"width": 8}})
    assert expand_bases([word.format(path) for word in form]) == ["--config", str(path)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": ["absent.yaml"]}, r"absent\.yaml: no such config file \(a base of .*r\.yaml\)"),
        ({"base": "part.yaml"}, "base must be a list of paths, got 'part.yaml'"),
        ({"base": ["r.yaml"]}, r"r\.yaml: this config is a base of itself"),
        ("- 1\n- 2\n", "holds settings by name"),
        ("a: [1\n", "is not valid YAML"),
    ],
)
def test_mistakes_name_the_file(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        expand_bases(["--config", str(write(tmp_path / "r.yaml", content))])


def test_missing_file_and_missing_value(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config file$"):
        expand_bases(["--config", str(tmp_path / "none.yaml")])
    with pytest.raises(ConfigError, match="--config needs the path"):
        expand_bases(["--config"])


def test_shipped_configs_are_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = shipped_configs()
    assert find_config("recipes/ucf101") == shipped / "recipes/ucf101.yaml"
    assert find_config("table7/hacs/i3d.yaml") == shipped / "table7/hacs/i3d.yaml"
    assert {"recipes/ucf101", "table7/hacs/srtg_r3d_101_softpool"} <= set(config_names())
    # a folder of that name is no config file
    (tmp_path / "data/hacs").mkdir(parents=True)
    assert find_config("data/hacs") == shipped / "data/hacs.yaml"


@pytest.mark.parametrize("name", ["recipes/ucf101", "recipes/ucf101.yaml"])
def test_a_file_of_the_users_wins_over_a_shipped_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path / "recipes/ucf101.yaml", {"model": {"width": 8}})
    assert find_config(name).resolve() == own


def test_a_recipe_of_the_users_may_have_a_shipped_one_as_its_base(tmp_path):
    recipe = write(tmp_path / "own.yaml", {"base": ["recipes/ucf101"], "model": {"lr": 0.1}})
    parts = expand_bases(["--config", str(recipe)])[1::2]
    assert parts[0] == str(shipped_configs() / "recipes/../trainer/gpu.yaml")
    assert yaml.safe_load(parts[-1]) == {"model": {"lr": 0.1}}


def test_a_name_that_is_misspelled_gets_suggestions():
    with pytest.raises(ConfigError, match=r"shipped with vidpool are .*recipes/ucf101"):
        find_config("recipes/ucf10")


def test_no_config_gives_a_value_twice():
    """YAML takes the last in silence."""

    def keys(node, place):
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                yield from keys(child, place)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                yield place, id(node), key.value
                yield from keys(value, f"{place}: {key.value}")

    files = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    found = [key for file in files for key in keys(yaml.compose(file.read_text()), str(file))]
    assert len(files) > 50
    assert [key for key in set(found) if found.count(key) > 1] == []


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
