"""``vidpool export``, run as a user would, and what ``vidpool predict`` does with its files."""

import json
from pathlib import Path

import pytest

from vidpool.cli import main

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"
SUFFIXES = (
    ".pth",
    ".safetensors",
    # these two take seconds to make or to load; tests/inference/export has them in the usual run
    pytest.param(".onnx", marks=pytest.mark.slow),
    pytest.param(".pt2", marks=pytest.mark.slow),
)


@pytest.fixture(scope="session")
def checkpoint(trained):
    return trained / "checkpoints/last.ckpt"


@pytest.fixture(scope="session", params=SUFFIXES)
def exported(request, checkpoint, tmp_path_factory):
    """Path of an exported file."""
    if request.param == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    out = tmp_path_factory.mktemp("exported") / f"colours{request.param}"
    assert main(["export", str(checkpoint), "--output", str(out)]) == 0
    return out


def predictions(path, *videos):
    command = ["predict", str(path), *map(str, videos), "--top", "6"]
    assert main([*command, "--output", "out.json", "--overwrite"]) == 0
    return {
        Path(entry["file"]).name: {p["class"]: p["probability"] for p in entry["predictions"]}
        for entry in json.loads(Path("out.json").read_text())
    }


def test_predictions_are_the_checkpoints(exported, checkpoint, colours):
    videos = [colours / "Red/v_Red_g02_c01.mp4", colours / "Blue/v_Blue_g01_c01.avi"]
    found, expected = predictions(exported, *videos), predictions(checkpoint, *videos)
    assert found.keys() == expected.keys()
    for name, classes in expected.items():
        assert found[name] == pytest.approx(classes, abs=1e-5)
        assert max(found[name], key=found[name].get) == name.split("_")[1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared videos are not here")
def test_predictions_of_real_videos_are_the_checkpoints(exported, checkpoint):
    videos = sorted(SHARED.glob("real_*"))
    found, expected = predictions(exported, *videos), predictions(checkpoint, *videos)
    assert len(expected) == 3
    for name, classes in expected.items():
        assert found[name] == pytest.approx(classes, abs=1e-5)


def test_the_manifest_lies_beside_the_file(exported):
    manifest = json.loads(exported.with_name(f"{exported.name}.json").read_text())
    assert manifest["class_names"] == ["Red", "Green", "Blue", "White", "Black", "Yellow"]
    assert manifest["preprocessing"]["short_side"] == 36
    assert 0 <= manifest["metrics"]["val/top1"]["best"] <= 1
    assert manifest["metrics"]["epoch"] == 23


def test_what_was_done_is_printed(checkpoint, capsys):
    command = ["export", str(checkpoint), "--format", "safetensors"]
    assert main([*command, "--output", "x.safetensors", "--weights", "raw"]) == 0
    printed = capsys.readouterr().out
    assert "r3d_18, raw weights: safetensors" in printed
    assert "clip (N, 3, T, H, W) -> logits (N, 6)" in printed
    assert "checked on clips 1x3x4x32x32, 2x3x4x32x32" in printed
    assert "max |difference| 0.0e+00 of logits up to" in printed
    assert "wrote x.safetensors" in printed
    assert "x.safetensors.json" in printed
    assert main([*command, "--output", "x.safetensors"]) == 1
    assert "x.safetensors exists; give --overwrite" in capsys.readouterr().err
    assert main([*command, "--output", "x.safetensors", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x.bin"], "x.bin: must end in"),
        (["--output", "x.onnx", "--format", "state_dict"], "x.onnx: must end in .pth or .pt"),
    ],
)
def test_mistakes_are_told(checkpoint, capsys, options, message):
    assert main(["export", str(checkpoint), *options]) == 1
    assert message in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_missing_checkpoint_is_told(capsys):
    assert main(["export", "none.ckpt", "--output", "x.pth"]) == 1
    assert "none.ckpt: no such checkpoint file" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_a_fixed_size_is_told(checkpoint, capsys):
    command = ["export", str(checkpoint), "--fixed_size", "--output", "x.pt2"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "clip (N, 3, 4, 32, 32) -> logits (N, 6)" in printed
    assert "T, H, W cannot change: as was asked for" in printed
