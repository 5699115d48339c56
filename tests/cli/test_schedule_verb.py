"""``vidpool schedule``, and multigrid training by the command line."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from tables import read_csv

from vidpool.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
PARTS = {name: CONFIGS / "schedule" / f"multigrid_{name}.yaml" for name in ("paper", "original")}
UCF101 = CONFIGS / "recipes/ucf101.yaml"


def schedule(*arguments, config=UCF101):
    return main(["schedule", "--config", str(config), *map(str, arguments)])


def test_the_papers_table_and_picture(tmp_path, capsys):
    picture = tmp_path / "out.png"
    options = ["--config", PARTS["paper"], "--clips", 9537, "--plot", picture]
    options += ["--trainer.max_epochs", "4", "--model.backbone", "r3d_18", "--model.width", "8"]
    assert schedule(*options) == 0
    printed = capsys.readouterr().out
    for number in range(1, 5):
        assert f"quarter {number}" in printed
    assert re.search(r"1 to 4 +4 \(2\) x 80² +128 +0.025 +12 ", printed)
    assert "4 epochs of 9537 clips on 1 process: 476 steps" in printed
    share = float(re.search(r"([\d.]+)% of 4 epochs with clips of 16 \(2\) x 112²", printed)[1])
    assert 15 < share < 30
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not Path("runs").exists()
    assert schedule(*options) == 1
    assert "out.png exists; give --overwrite" in capsys.readouterr().err


def test_the_originals_phases(capsys):
    options = ["--config", PARTS["original"], "--clips", 9537, "--processes", 2]
    assert schedule(*options, "--model.backbone", "r3d_18", "--model.width", 8) == 0
    printed = capsys.readouterr().out
    # as slowfast/utils/multigrid.py has it for steps at 40 and 80 of 100 epochs
    spans = ["1 to 32", "33 to 47", "48 to 61", "62 to 68", "69 to 100", "137 to 150"]
    assert all(re.search(rf"\b{span} ", printed) for span in spans)
    assert "150 epochs of 9537 clips on 2 processes" in printed


def test_clips_of_one_shape_are_counted_in_the_data_set(recipe, capsys):
    assert schedule("--trainer.max_epochs", 3, "--trainer.devices", 3, config=recipe) == 0
    printed = capsys.readouterr().out
    assert "3 epochs of 18 clips on 3 processes: 3 steps" in printed
    assert "100.0% of 3 epochs with clips of 4 (2) x 32²" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", 0], "--clips must be at least 1, got 0"),
        (["--clips", 99, "--plot", "out.txt"], "must end in .png"),
        (["--clips", 99, "--plot", "nowhere/out.png"], "nowhere: no such folder"),
        (["--clips", 99, "--trainer.max_epochs", -1], "needs trainer.max_epochs"),
        (["--clips", 300, "--config", PARTS["paper"]], "batch_size must be 5 or less"),
        (["--clips", 9999, "--config", PARTS["original"], "--model.lr_schedule", "cosine"], "step"),
        (["--data.root", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, options, message):
    assert schedule(*options) == 1
    *_, printed = (
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("  option: ")
    )
    assert printed.startswith("vidpool schedule: error: ")
    assert message in printed


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["schedule", "--help"])
    assert stopped.value.code == 0
    assert "vidpool schedule --config recipes/ucf101" in capsys.readouterr().out


@pytest.fixture
def multigrid(recipe, tmp_path):
    """A recipe that has multigrid training as a part."""
    path = tmp_path / "multigrid.yaml"
    path.write_text(yaml.safe_dump({"base": [str(recipe), str(PARTS["paper"])]}))
    return path


def test_a_part_switches_it_on_and_keeps_the_defaults(multigrid):
    options = ["--trainer.max_epochs", "2", "--data.batch_size", "1", "--data.crop", "36"]
    options += ["--trainer.callbacks.init_args.short_cycle", "false"]
    assert main(["fit", "--config", str(multigrid), *options]) == 0
    run = Path("runs/tiny/fit_0")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
    ]
    rows = read_csv(run / "metrics.csv")
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    # 18 clips in batches of 8, 4, 2 and 1, at rates that fall with them
    factors = [1, 1 / 2, 1 / 4, *4 * [1 / 8]]
    assert rates == pytest.approx([0.003 * factor for factor in 2 * factors])
    config = yaml.safe_load((run / "config.yaml").read_text())
    (callback,) = config["trainer"]["callbacks"]
    assert callback["class_path"] == "vidpool.train.callbacks.multigrid.Multigrid"


def test_on_shards_with_precise_batch_norm(recipe, tmp_path):
    pytest.importorskip("webdataset")
    out = tmp_path / "shards"
    assert main(["data", "shard", "--config", str(recipe), "--output", str(out)]) == 0
    config = yaml.safe_load(recipe.read_text())
    options = config["data"]["init_args"]
    options = {name: value for name, value in options.items() if name != "root"}
    options |= {"shards": str(out), "batch_size": 1, "crop": 36}
    config["data"] = {"class_path": "ShardDataModule", "init_args": options}
    config["trainer"]["callbacks"] = [
        {
            "class_path": "vidpool.train.callbacks.multigrid.Multigrid",
            "init_args": {"short_cycle": False, "sub_batch_norm": 2},
        },
        {
            "class_path": "vidpool.train.callbacks.precise_batch_norm.PreciseBatchNorm",
            "init_args": {"batches": 3},
        },
    ]
    path = tmp_path / "shards.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path), "--trainer.max_epochs", "2"]) == 0
    rows = read_csv("runs/tiny/fit_0/metrics.csv")
    rates = [float(row["lr"]) for row in rows if row["lr"]]
    assert rates == pytest.approx([0.003 / factor for factor in 2 * [1, 2, 4, 8, 8, 8, 8]])
    state = torch.load("runs/tiny/fit_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    counts = [int(value) for name, value in state.items() if name.endswith("batches_tracked")]
    assert set(counts) == {3}
