"""Two processes of B clips each do what one process of 2 B clips does: the figures are printed."""

import pytest
import torch
from forked import run_ranks
from two_processes import CLIPS, VIDEOS, VIEWS, run, run_rank

pytestmark = pytest.mark.filterwarnings("ignore")
TOLERANCE = 1e-12  # relative, in float64
# batch norm over four small clips amplifies rounding errors from step to step
AFTER_SIX_STEPS = {"frozen": TOLERANCE, "split": 1e-9}


@pytest.fixture(scope="module")
def results(tmp_path_factory, colours):
    """What one process saw, and each of two."""
    folder = tmp_path_factory.mktemp("two_processes")
    source = colours / "ucfTrainTestlist"
    for videos in VIDEOS:
        lists = folder / f"lists_{videos}"
        lists.mkdir()
        for file in source.iterdir():
            lines = file.read_text().splitlines(keepends=True)
            if file.name.startswith("test"):
                lines = lines[:videos]
            (lists / file.name).write_text("".join(lines))
    run_ranks(run_rank, folder, colours)
    one = run(folder, 1, colours)
    return one, [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


def difference(one, other):
    """The largest difference, relative to the largest value unless that is 0."""
    one, other = (torch.cat([v.flatten().double() for v in x]) for x in (one, other))
    return float((one - other).abs().max() / (one.abs().max() or 1))


@pytest.mark.parametrize("case", CLIPS)
@pytest.mark.parametrize("what", ["gradients", "way of weights"])
def test_training_of_two_is_that_of_one(results, case, what):
    one, two = results
    expected = one[case][what]
    assert sum(value.abs().sum() for value in expected.values()) > 0
    for rank, own in enumerate(two):
        assert own[case][what].keys() == expected.keys()
        found = difference(expected.values(), own[case][what].values())
        print(f"{case} batch norm, {what}, rank {rank}: {found:.1e}")
        assert found < (TOLERANCE if what == "gradients" else AFTER_SIX_STEPS[case])


@pytest.mark.parametrize("case", CLIPS)
def test_metrics_of_two_are_those_of_one(results, case):
    one, two = results
    for own in two:
        assert len(own[case]["metrics"]) == len(one[case]["metrics"]) == 2
        for epoch, expected in enumerate(one[case]["metrics"]):
            compared = [
                name
                for name in expected
                # a step's loss is that of a rank; running statistics are those of the first one
                if name != "train/loss_step" and not (case == "split" and name.startswith("val/"))
            ]
            assert {"train/loss", "train/top1", "lr"} <= set(compared)
            for name in compared:
                found = difference([expected[name]], [own[case]["metrics"][epoch][name]])
                print(f"{case} batch norm, epoch {epoch}, {name}: {found:.1e}")
                assert found < AFTER_SIX_STEPS[case], name


@pytest.mark.parametrize("videos", VIDEOS)
def test_ten_by_three_views_on_two_are_those_on_one(results, videos):
    one, two = (results[0][videos], [rank[videos] for rank in results[1]])
    views = VIEWS[0] * VIEWS[1]
    # the ranks share the views out: each once, none twice
    assert sorted(two[0]["videos"] + two[1]["videos"]) == sorted(one["videos"])
    assert [one["videos"].count(video) for video in range(videos)] == [views] * videos
    assert sorted(two[0]["clips"] + two[1]["clips"]) == sorted(one["clips"])
    assert abs(len(two[0]["videos"]) - len(two[1]["videos"])) <= 4 * VIEWS[1]
    for own in two:
        scores, labels = own["scores"]
        assert len(scores) == videos
        assert torch.equal(labels, one["scores"][1])
        found = difference([one["scores"][0]], [scores])
        print(f"{videos} videos, scores: {found:.1e}")
        assert found < TOLERANCE
        assert own["metrics"].keys() == one["metrics"].keys()
        assert {"test/loss", "test/top1"} <= own["metrics"].keys()
        for name, value in one["metrics"].items():
            found = float(abs(value - own["metrics"][name]))
            print(f"{videos} videos, {name}: {found:.1e}")
            assert found <= TOLERANCE * float(abs(value)), name
