"""tools/measure_training.py, which is for GPUs, in its dry run on a CPU."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "tools" / "measure_training.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("measure_training", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("bfloat16_convolutions")
def test_a_dry_run_measures_every_shape(tool, tmp_path, monkeypatch):
    some = [(2, 8, 32), (6, 4, 22)]  # all of them take long
    monkeypatch.setattr(tool, "shapes", lambda *_: some)
    out = tmp_path / "new" / "training.json"
    command = ["--device", "cpu", "--tiny", "--rounds", "3", "--output", str(out)]
    tool.main(command)
    report = json.loads(out.read_text())
    assert report["machine"]["device"] == "cpu"
    assert report["half"] == "bfloat16"
    assert report["left_out"] == []
    shapes = [(case["clips"], case["frames"], case["crop"]) for case in report["cases"]]
    assert shapes == [some[0], some[0], some[1], some[1]]
    for case in report["cases"]:
        assert case["not_measured"] == {}
        for step in case["steps"].values():
            assert len(step["seconds"]["rounds"]) == 3
            rate = case["clips"] / step["seconds"]["median"]
            assert step["clips_per_second"] == pytest.approx(rate, rel=1e-2)
        one, other = (
            case["steps"][f"{kind} half"]["seconds"]["rounds"] for kind in ("soft", "max")
        )
        ratios = sorted(a / b for a, b in zip(one, other, strict=True))
        assert case["ratios"]["soft / max, half"] == pytest.approx(ratios[1], rel=1e-2)
    for found in report["losses"].values():
        assert len(found["half"]) == len(found["float32"]) == 10
        assert all(map(math.isfinite, found["half"]))
        assert found["float32"][-1] < found["float32"][0]
        apart = [abs(a - b) for a, b in zip(found["half"], found["float32"], strict=True)]
        assert found["largest_difference"] == max(apart) > 0
    with pytest.raises(SystemExit):  # nothing is overwritten
        tool.main(command)


@pytest.mark.usefixtures("bfloat16_convolutions")
def test_what_there_was_no_time_for_is_listed(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "losses", lambda *_: "there")
    out = tmp_path / "training.json"
    tool.main(["--device", "cpu", "--tiny", "--minutes", "0", "--output", str(out)])
    report = json.loads(out.read_text())
    assert report["cases"] == []
    assert len(report["left_out"]) > 8
    assert set(report["losses"].values()) == {"there"}


def test_the_full_run_has_the_shapes_of_multigrid(tool):
    found = tool.shapes(16, 224, 8)
    assert found[0] == (8, 16, 224)
    assert len(set(found)) == len(found) > 4
    assert all(clips >= 8 for clips, *_ in found)
