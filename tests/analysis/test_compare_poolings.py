"""``make compare``: what it trains on, what it makes of metrics, and that its runs are fair."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vidpool.analysis import compare_poolings, pooling_comparison
from vidpool.analysis.pooling_comparison import (
    BASELINE,
    CLASSES,
    POOLINGS,
    ComparisonSettings,
    TrainingCurve,
)
from vidpool.bench.timing import Times
from vidpool.data.datasets.demo import TEST_GROUPS
from vidpool.models.registry import create_model
from vidpool.nn import swap_pooling
from vidpool.train.classifier import VideoClassifier


@pytest.fixture
def source(tmp_path):
    """A demo data set of empty files: 18 groups with two clips of each class."""
    for name in CLASSES:
        folder = tmp_path / "demo" / name
        folder.mkdir(parents=True)
        for group in range(1, 19):
            for clip in (1, 2):
                (folder / f"v_{name}_g{group:02d}_c{clip:02d}.avi").touch()
    return tmp_path / "demo"


def test_videos_are_few_and_partly_mislabelled(source, tmp_path):
    chosen = tmp_path / "compare" / "chosen"
    compare_poolings.choose_videos(source, chosen, videos=10, test_videos=5, noise=0.3)
    train = list((chosen / "train").glob("*/*.avi"))
    shown = Counter(path.name.split("_")[1] for path in train)
    assert shown == dict.fromkeys(CLASSES, 10)
    wrong = Counter(path.name.split("_")[1] for path in train if path.parent.name not in path.name)
    assert wrong == dict.fromkeys(CLASSES, 3)
    held_out = list((chosen / "val").glob("*/*.avi"))
    assert Counter(path.parent.name for path in held_out) == dict.fromkeys(CLASSES, 5)
    assert all(path.parent.name in path.name for path in held_out)
    assert {compare_poolings.group_of(path) for path in held_out} <= set(TEST_GROUPS[1])
    assert not {compare_poolings.group_of(path) for path in train} & set(TEST_GROUPS[1])

    before = sorted(path.relative_to(chosen) for path in chosen.rglob("*"))
    again = tmp_path / "again"
    compare_poolings.choose_videos(source, again, videos=10, test_videos=5, noise=0.3)
    assert sorted(path.relative_to(again) for path in again.rglob("*")) == before


def test_videos_of_other_settings_are_kept(source, tmp_path):
    chosen = tmp_path / "chosen"
    compare_poolings.choose_videos(source, chosen, 4, 2, 0.0)
    one = next(chosen.glob("train/*/*"))
    one.write_text("mine")
    compare_poolings.choose_videos(source, chosen, 4, 2, 0.0)
    with pytest.raises(SystemExit, match="other settings; give another --data"):
        compare_poolings.choose_videos(source, chosen, 4, 2, 0.5)
    assert one.read_text() == "mine"


def test_a_data_set_that_is_too_small(source, tmp_path):
    with pytest.raises(SystemExit, match="26 videos to train and 10 to test"):
        compare_poolings.choose_videos(source, tmp_path / "chosen", 27, 5, 0.0)
    assert not (tmp_path / "chosen").exists()


def metrics(folder, *rows):
    """Write metrics as Lightning's CSV logger does."""
    folder.mkdir(parents=True)
    lines = ["epoch,lr,train/loss,val/top1", *rows]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_a_resumed_run_is_read_in_order(tmp_path):
    metrics(tmp_path / "fit_0", "0,0.1,,", "0,,,0.25", "0,,2.0,", "1,,,0.3", "1,,9.0,")
    metrics(tmp_path / "fit_1", "1,,,0.5", "1,,1.5,")
    os.utime(tmp_path / "fit_0" / "metrics.csv", (1, 1))
    assert pooling_comparison.read_curve(tmp_path, 2) == TrainingCurve([0.25, 0.5], [2.0, 1.5])
    with pytest.raises(SystemExit, match="is of 2 epochs instead of 3"):
        pooling_comparison.read_curve(tmp_path, 3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_the_interval_is_students(values):
    mean, half_width = pooling_comparison.mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert half_width >= 0
    if np.std(values) > 1e-6:
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (mean - half_width, mean + half_width) == pytest.approx(tuple(expected))


def test_poolings_differ_in_pooling_alone():
    settings = yaml.safe_load(compare_poolings.RECIPE.read_text())["model"]
    networks = {}
    for label, pooling in POOLINGS.items():
        torch.manual_seed(7)
        swap = {"pooling": pooling.name, "pooling_options": pooling.options}
        networks[label] = VideoClassifier(**{**settings, **swap, "num_classes": 8}).model
    first = networks[BASELINE].state_dict()
    for network in networks.values():
        own = network.state_dict()
        assert own.keys() == first.keys()
        assert all(torch.equal(own[name], first[name]) for name in first)
    assert len({repr(network.pool) for network in networks.values()}) == len(POOLINGS)
    swapped = swap_pooling(create_model(settings["backbone"], num_classes=8), to="soft")
    assert [swap.name for swap in swapped] == ["pool"]  # as the recipe's comment says


def test_a_step_of_every_pooling_is_timed():
    times = compare_poolings.step_times(rounds=2)
    assert times.keys() == POOLINGS.keys()
    assert all(len(each.rounds) == 2 and min(each.rounds) > 0 for each in times.values())


def test_report(tmp_path, capsys):
    runs = {
        label: [
            TrainingCurve([0.2, 0.5 + 0.01 * place], [2.0, 1.0]),
            TrainingCurve([0.3, 0.6], [2.1, 1.1]),
        ]
        for place, label in enumerate(POOLINGS)
    }
    steps = {label: Times((0.1 * place, 0.1 * place)) for place, label in enumerate(POOLINGS, 1)}
    settings = ComparisonSettings([3, 4], 2, 64, 40, 0.1)
    pooling_comparison.report(tmp_path / "results.json", settings, runs, steps, "compare")
    printed = capsys.readouterr().out
    assert "160 held-out videos after 2 epochs, 2 seeds (chance 25.0 %)" in printed
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["command"] == "compare"
    assert content["seed"] == [3, 4]
    assert content["results"]["settings"]["noise"] == 0.1
    average = content["results"]["poolings"]["average"]
    assert average["top1"]["mean"] == pytest.approx(0.555)
    assert average["top1_minus_max"]["mean"] == pytest.approx(0.005)
    assert average["top1_mean_over_epochs"]["mean"] == pytest.approx((0.355 + 0.45) / 2)
    assert average["step_seconds"]["median"] == 0.2
    assert average["runs"][1]["train_loss"] == [2.1, 1.1]
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    (row,) = [line.split() for line in printed.splitlines() if line.strip().startswith("average")]
    assert row[-2:] == ["200", "2.00"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "two different seeds or more"),
        (["--seeds", "1", "1"], "two different seeds or more"),
        (["--noise", "1"], "--noise 1.0 must lie within"),
        (["--test_videos", "0"], "--test_videos must be at least 1"),
    ],
)
def test_mistakes_are_told(capsys, arguments, message):
    with pytest.raises(SystemExit):
        compare_poolings.parse(arguments)
    assert message in capsys.readouterr().err


def run(folder):
    """Compare at a size at which nothing is learnt."""
    options = ["--source", folder / "demo", "--data", folder / "data", "--runs", folder / "runs"]
    options += ["--clips_per_group", 1, "--videos", 2, "--test_videos", 1, "--epochs", 1]
    module = "vidpool.analysis.compare_poolings"
    command = [sys.executable, "-m", module, *options, "--rounds", 1, "--seeds", 5, 6]
    done = subprocess.run(map(str, command), check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.slow
def test_every_pooling_and_seed_is_trained_once(tmp_path):
    pytest.importorskip("skimage")
    printed = run(tmp_path)
    assert printed.count("$ vidpool fit") == 8
    content = json.loads((tmp_path / "runs/results.json").read_text())
    for pooling in content["results"]["poolings"].values():
        assert len(pooling["runs"]) == 2
    assert (tmp_path / "runs/results.png").stat().st_size > 1000
    assert "$ vidpool fit" not in run(tmp_path)
