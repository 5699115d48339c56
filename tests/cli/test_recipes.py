from pathlib import Path

import pytest
import yaml

from vidpool.cli.recipes import expand_bases
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
