import csv
import json
import math

import pytest
import torch

from vidpool.data.catalogue.table import LabelledVideo, VideoTable
from vidpool.train.callbacks.test_report import (
    confusion_figure,
    write_predictions,
    write_test_report,
)


def test_files_say_what_was_counted(tmp_path):
    matrix = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    files = write_test_report(tmp_path / "new", matrix, ["a", "b", "never"], {"top1": 0.875})
    metrics, classes, picture = files
    assert json.loads(metrics.read_text()) == {"top1": 0.875}
    rows = list(csv.reader(classes.read_text().splitlines()))
    assert rows[1:] == [
        ["a", "4", "3", "0.7500"],
        ["b", "4", "4", "1.0000"],
        ["never", "0", "0", ""],
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [2, 8, 101, 700])
def test_figure_has_a_cell_and_a_name_for_each_class(count):
    figure = confusion_figure(torch.eye(count, dtype=torch.long), [f"c{i}" for i in range(count)])
    axes = figure.axes[0]
    assert axes.images[0].get_array().shape == (count, count)
    assert "100.0%" in axes.get_title()
    named = [tick.get_text() for tick in axes.get_xticklabels()]
    assert (f"c{count - 1}" in named) == (count <= 110)
    assert len(axes.texts) == (count if count <= 20 else 0)


def test_predictions_have_a_row_for_each_video_seen(tmp_path):
    videos = [
        LabelledVideo("/data/a.mp4", 0),
        LabelledVideo("/data/lost.mp4", 0),
        LabelledVideo("/data/b, c.mp4", 2, 1.5, 3.0),
        LabelledVideo("/data/b, c.mp4", 1, 3.0, math.inf),
    ]
    scores = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0]])
    file = write_predictions(
        tmp_path,
        VideoTable.of(videos),
        torch.tensor([0, 2, 3]),
        scores,
        torch.tensor([0, 2, 1]),
        ["jump", "run, fast", "sit"],
    )
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:]
    assert rows[0] == ["/data/a.mp4", "", "", "jump", "jump", "0.5", "0.5", "1"]
    assert rows[1] == ["/data/b, c.mp4", "1.5", "3", "sit", "run, fast", "0.5", "0.25", "2"]
    # equal scores: one class is predicted, so the other is not right
    assert rows[2][1:5] == ["3", "inf", "run, fast", "jump"]
    assert rows[2][-1] == "2"


def test_videos_of_shards_go_by_their_numbers(tmp_path):
    names = ["a", "b"]
    scores = torch.eye(2)
    file = write_predictions(
        tmp_path, range(9), torch.tensor([3, 8]), scores, torch.tensor([0, 1]), names
    )
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:]
    assert [row[0] for row in rows] == ["#3", "#8"]
