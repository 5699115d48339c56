"""Learning rates, plans, clip seeds and uint8 batches of short trainings stay what they were."""

import json
from pathlib import Path

import pytest
import recorded
from forked import run_ranks

RECORDED = json.loads((Path(__file__).parent / "recorded_runs.json").read_text())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    recorded.write_videos(folder)
    return folder


@pytest.mark.parametrize("run", ["constant", "steps", "multigrid", "resumed"])
def test_a_run_is_given_what_was_recorded(root, run):
    found = recorded.record(root, run)
    assert found["batches"] == RECORDED[run][0]["batches"]
    assert found["rates"] == RECORDED[run][0]["rates"]


def test_two_processes_are_given_what_was_recorded(root):
    run_ranks(recorded.write_record, root, "two_processes", 2)
    for rank in (0, 1):
        found = json.loads((root / f"two_processes_rank{rank}.json").read_text())
        assert found == RECORDED["two_processes"][rank]
