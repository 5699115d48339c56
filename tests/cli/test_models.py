"""``vidpool models`` on the networks of this package, which need no data to be measured."""

import json

import pytest
from torch import nn

from vidpool.cli import main
from vidpool.errors import ConfigError
from vidpool.models import register_model, registry


@pytest.fixture
def zoo(monkeypatch):
    """A registry that has an image network, a network of one clip size and a broken one besides."""
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @register_model(name="zoo/picture", modality="image", size=(40, 30))
    def picture(*, num_classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes)
        )

    @register_model(name="zoo/rigid", size=(4, 8, 8), fixed=True)
    def rigid(*, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 8 * 8, num_classes))

    @register_model(name="zoo/broken")
    def broken(*, num_classes: int) -> nn.Module:
        raise ConfigError(f"no package for {num_classes} classes: pip install it")


def told(capsys):
    """The printed table as lists of cells, by the first cell, and all that was printed."""
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip()]
    return {row[0]: row[1:] for row in reversed(rows)}, printed  # the table before what follows


def test_table(capsys):
    assert main(["models", "r3d_50", "r2plus1d_1?"]) == 0
    rows, printed = told(capsys)
    assert rows["r3d_50"] == ["16x224x224", "36.72", "26.47", "26.54", "26.58", "1", "of", "2"]
    assert "r2plus1d_18" in rows
    assert "r3d_18" not in rows
    assert "conv+linear" in printed


def test_another_clip(capsys):
    assert main(["models", "r3d_50", "--clip", "8x160x160"]) == 0
    assert told(capsys)[0]["r3d_50"][:3] == ["8x160x160", "36.72", "7.04"]


@pytest.mark.usefixtures("zoo")
def test_pictures_and_what_cannot_be_measured(capsys):
    assert main(["models", "zoo/*"]) == 0
    rows, printed = told(capsys)
    assert rows["zoo/picture"][:2] == ["40x30", "0.00"]
    assert rows["zoo/picture"][-3:] == ["0", "of", "1"]
    assert rows["zoo/rigid"][0] == "4x8x8"
    assert rows["zoo/broken"] == ["16x224x224"] + ["none"] * 5
    assert "pip install it" in printed
    assert main(["models", "zoo/*", "--clip", "5x7x9"]) == 0
    rows, printed = told(capsys)
    assert rows["zoo/picture"][0] == "7x9"
    assert rows["zoo/rigid"] == ["5x7x9"] + ["none"] * 5
    assert "4x8x8 only" in printed
    assert main(["models", "zoo/broken"]) == 1


@pytest.mark.usefixtures("zoo")
def test_pooling(capsys):
    assert main(["models", "r3d_18", "zoo/*", "--pooling"]) == 0
    lines = capsys.readouterr().out.splitlines()
    line, head = (line for line in lines if "r3d_18" in line)
    assert head.split()[1:] == [
        "avgpool",
        "AdaptiveAvgPool3d",
        "output_size=1",
        *["1x7x7", "1x1x1", "no"],
    ]
    assert line.split() == [
        *["r3d_18", "pool", "MaxPool3d", "kernel_size=3,", "stride=2,", "padding=1"],
        *["16x112x112", "8x56x56", "yes"],
    ]
    (line,) = [line for line in lines if "zoo/picture" in line]
    assert line.split()[1:] == ["1", "AdaptiveAvgPool2d", "output_size=1", "40x30", "1x1", "no"]
    (line,) = [line for line in lines if "zoo/rigid" in line]
    assert line.split() == ["zoo/rigid", "none"]


@pytest.mark.usefixtures("zoo")
def test_json(capsys):
    assert main(["models", "r3d_50", "zoo/broken", "--json"]) == 0
    content, broken = json.loads(capsys.readouterr().out)
    assert content["name"] == "r3d_50"
    assert content["multiply_adds"]["paper"] / 1e9 == pytest.approx(26.58, rel=1e-3)
    assert content["parameters"] / 1e6 == pytest.approx(36.73, rel=1e-3)
    assert (content["size"], content["sizes"]) == ([16, 224, 224], "any")
    layer, _ = content["pooling"]
    assert (layer["name"], layer["swapped"]) == ("pool", True)
    assert "pip install it" in broken["error"]
    assert "parameters" not in broken


def test_markdown(capsys):
    assert main(["models", "r3d_50", "--markdown"]) == 0
    header, rule, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert len(header) == len(rule) == 12
    assert [row[0] for row in rows] == ["r3d-50", "r3d-50 with SoftPool"]
    for row in rows:
        assert row[header.index("GFLOPs")] == row[header.index("GFLOPs measured")] == "53.16"
    column = header.index("UCF-101 top-5 (%)")
    assert [row[column] for row in rows] == ["96.29", "97.02"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["r3d50"], "no model matches 'r3d50'; near names are r3d_50"),
        (["xyz*"], "no model matches 'xyz*'"),
        (["--clip", "16x224"], "--clip 16x224 must be TxHxW, like 16x224x224"),
        (["--clip", "0x224x224"], "--clip 0x224x224 must be TxHxW"),
        (["--markdown", "--clip", "16x224x224"], "--markdown has the clips of the paper's table"),
        (["--markdown", "r3d_18"], "no model of Table 7 matches r3d_18; they are r3d_50"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, options, message):
    assert main(["models", *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("vidpool models: error: ")
    assert message in line
