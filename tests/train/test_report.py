import csv
import json

import pytest
import torch

from vidpool.train.report import confusion_figure, write_test_report


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
