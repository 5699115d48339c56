import json
import re
from pathlib import Path

import pytest
from scipy.stats import binomtest

from vidpool.analysis.published import ACTION_DATASETS, TABLE_7
from vidpool.analysis.table7 import (
    arrange_methods,
    find_runs,
    method_name,
    read_run,
    table_7_figure,
)
from vidpool.errors import ConfigError, DataError

PAPER = Path(__file__).parents[3] / "shared" / "paper.txt"
NETWORK = {
    "backbone": "r3d_18",
    "num_classes": 8,
    "width": 8,
    "backbone_options": None,
    "pooling": "lip",
    "pooling_options": None,
}

IMAGES = {"backbone": "torchvision/resnet18", "width": None}


def write_run(folder, network=(), root="data/demo", datamodule="UCF101DataModule", **metrics):
    folder.mkdir(parents=True)
    shape = {"frames": 8, "crop": 64, "clips": 2, "crops": 3}
    data = {"datamodule": datamodule, "root": root, "preprocessing": shape}
    run = {"network": NETWORK | dict(network), "data": data}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.json").write_text(json.dumps({"top1": 0.5, "videos": 400} | metrics))
    return folder


def test_a_run_is_read_with_its_cost(tmp_path):
    run = read_run(write_run(tmp_path / "test_0", top5=0.75))
    assert (run.method, run.data_set) == ("r3d_18, width 8, lip pooling", "demo")
    assert (run.top1, run.top5, run.videos, run.clip, run.views) == (50, 75, 400, (8, 64, 64), 6)
    wilson = binomtest(200, 400).proportion_ci(method="wilson")
    assert run.interval == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=1e-3)
    perfect = read_run(write_run(tmp_path / "test_3", top1=1.0, videos=9))
    wilson = binomtest(9, 9).proportion_ci(method="wilson")
    assert perfect.interval == pytest.approx((100 * wilson.low, 100), abs=1e-2)
    bare = read_run(write_run(tmp_path / "test_1", {"pooling": None}))
    assert bare.method == "r3d_18, width 8, its own pooling"
    assert bare.top5 is None
    pictures = read_run(write_run(tmp_path / "test_2", {**IMAGES, "pooling": "soft"}))
    assert pictures.cost.products > 0
    # LIP's convolutions are the whole difference
    assert bare.cost.parameters < run.cost.parameters
    assert bare.cost.products < run.cost.products


@pytest.mark.parametrize(
    ("network", "method"),
    [
        ({"backbone": "r3d_50", "pooling": None, "width": None}, "r3d-50"),
        ({"backbone": "r3d_50", "pooling": "soft", "width": None}, "r3d-50 with SoftPool"),
        ({"backbone": "r3d_50", "pooling": "soft"}, "r3d_50, width 8, soft pooling"),
        (
            {"backbone": "i3d", "pooling": "soft", "width": None},
            "i3d, soft pooling",
        ),
        (
            {
                "backbone": "srtg_r3d_101",
                "pooling": "soft",
                "width": None,
                "backbone_options": {"gate": True},
                "pooling_options": {"gradient": "paper"},
            },
            "srtg_r3d_101, gate True, gradient paper, soft pooling",
        ),
    ],
)
def test_methods_are_the_papers_only_if_they_are_the_same(network, method):
    assert method_name(NETWORK | network) == method


def test_runs_stand_in_the_papers_rows_and_columns(tmp_path):
    paper = {"backbone": "r3d_50", "pooling": "soft", "width": None, "num_classes": 101}
    write_run(tmp_path / "a" / "test_0", paper, "data/ucf")
    write_run(tmp_path / "b" / "test_0")
    folders = find_runs([tmp_path, tmp_path / "b"])
    assert folders == [tmp_path / "a" / "test_0", tmp_path / "b" / "test_0"]
    methods, data_sets = arrange_methods([read_run(folder) for folder in folders])
    assert data_sets == ["HACS", "Kinetics-700", "UCF-101", "demo"]
    rows = {method.name: method for method in methods}
    assert len(rows) == len(TABLE_7) + 1
    soft = rows["r3d-50 with SoftPool"]
    assert [run.top1 for run in soft.on("UCF-101")] == [50]
    assert soft.published_on("UCF-101") == (93.90, 97.02)
    assert soft.published_on("demo") == (None, None)
    assert rows["ir-CSN-101"].published_on("HACS") == (None, None)
    figure = table_7_figure(methods, data_sets)
    assert [axes.get_title() for axes in figure.axes] == data_sets


WRONG = (
    '{"top1": 0.5, "videos": 0}',
    '{"top1": NaN, "videos": 3}',
    '{"top1": 0.5, "top5": 7, "videos": 3}',
)


def test_folders_that_are_no_runs(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, told in (("none", "none: no such folder"), ("empty", "empty: holds no test")):
        with pytest.raises(DataError, match=told):
            find_runs([tmp_path / folder])
    folder = write_run(tmp_path / "run")
    (folder / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"metrics.json: cannot be read"):
        read_run(folder)
    for content in ("{", "[]", "{}", '{"top1": null, "videos": 3}', *WRONG):
        (folder / "metrics.json").write_text(content)
        with pytest.raises(DataError, match=re.escape(str(folder))):
            read_run(folder)
    with pytest.raises(ConfigError, match=r"other: .*no_such"):
        read_run(write_run(tmp_path / "other", {"backbone": "no_such"}))
    with pytest.raises(DataError, match="of another version"):
        read_run(write_run(tmp_path / "newer", {"colour": "blue"}))


@pytest.mark.skipif(not PAPER.exists(), reason="needs shared/paper.txt")
def test_published_values_are_the_papers():
    text = PAPER.read_text(encoding="utf-8")
    table = text[text.index("Model GFLOPs HACS") : text.index("Table 7: Action")]
    values = r"((?: (?:\d+\.\d+|N/A)){7})"
    printed = [match.split() for match in re.findall(values + r"\n", table)]
    ours = [
        [f"{row.gflops:.2f}", *("N/A" if a is None else f"{a:.2f}" for a in row.accuracies)]
        for row in TABLE_7
    ]
    assert printed == ours
    assert len(ACTION_DATASETS) * 2 == len(TABLE_7[0].accuracies)
