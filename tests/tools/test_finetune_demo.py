"""``make finetune-demo`` at a size at which nothing is learnt, run as a user would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/finetune_demo.py"


def run(folder):
    options = ["--source", folder / "demo", "--data", folder / "data", "--runs", folder / "runs"]
    options += ["--clips_per_group", 1, "--videos", 2, "--pretrain_epochs", 1, "--epochs", 1]
    command = [sys.executable, SCRIPT, *options, "--seeds", 5]
    done = subprocess.run(map(str, command), check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.slow
def test_two_layouts_two_ways_and_nothing_twice(tmp_path):
    pytest.importorskip("skimage")
    printed = run(tmp_path)
    assert printed.count("$ vidpool fit") == 3
    assert printed.count("$ vidpool test") == 2
    annotations = (tmp_path / "data/HACS_clips_v1.1.1.csv").read_text().splitlines()
    assert annotations[0] == "classname,youtube_id,subset,start,end,label"
    assert len(annotations) == 1 + 4 * 18
    lists = tmp_path / "data/ucfTrainTestlist"
    assert len((lists / "trainlist01.txt").read_text().splitlines()) == 4 * 2
    assert len((lists / "testlist01.txt").read_text().splitlines()) == 4 * 5
    hacs = {line.split(",")[0] for line in annotations[1:]}
    ucf101 = {line.split()[1] for line in (lists / "classInd.txt").read_text().splitlines()}
    assert not hacs & ucf101

    results = json.loads((tmp_path / "runs/results.json").read_text())
    scratch, tuned = results["top1"]["from scratch"][0], results["top1"]["fine-tuned"][0]
    assert results["margin"] == pytest.approx([tuned - scratch])
    assert f"{5:>6}{scratch:>16.1%}{tuned:>16.1%}" in printed
    assert (tmp_path / "runs/results.png").stat().st_size > 1000

    again = run(tmp_path)
    assert "$ vidpool fit" not in again
    assert "$ vidpool test" not in again
    assert f"{5:>6}{scratch:>16.1%}{tuned:>16.1%}" in again
