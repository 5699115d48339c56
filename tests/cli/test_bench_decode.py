"""``vidpool bench decode`` on real files; the times are not looked at."""

import json
from pathlib import Path

import pytest

from vidpool.bench import decode
from vidpool.bench.numbered_video import scenes, write_video
from vidpool.cli import main


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Generated videos of 90 small frames."""
    small = {kind: ((90, 112, 64), write) for kind, (_, write) in decode.VIDEO_KINDS.items()}
    monkeypatch.setattr(decode, "VIDEO_KINDS", small)


def test_table_files_and_memory(capsys):
    video = write_video(Path("my video.mp4"), scenes(70, 64, 64), "libx264", gop=12)
    arguments = ["--kind", "one_key.avi", "--kind", "gop12.mp4", "--keep", "kept", "--rounds", "1"]
    options = ["--memory", "10", "--output", "out.json"]
    assert main(["bench", "decode", str(video), *arguments, *options]) == 0
    printed = capsys.readouterr().out
    for text in ("one_key.avi", "gop12.mp4", "my video.mp4", "decord", "memory: "):
        assert text in printed
    assert sorted(path.name for path in Path("kept").iterdir()) == ["gop12.mp4", "one_key.avi"]
    out = json.loads(Path("out.json").read_text())["results"]
    assert [file["file"] for file in out["files"]] == ["one_key.avi", "gop12.mp4", "my video.mp4"]
    assert out["clip"] == {"frames": 16, "stride": 4, "short_side": 128}
    assert out["files"][0]["wrong_frames"]["auto"] == 0
    assert out["files"][2]["wrong_frames"] is None
    assert out["memory_bytes"]["clips"] == 10
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")
    assert main(["bench", "decode", str(video), "--rounds", "1", "--output", "out.json"]) == 1
    assert "out.json exists; give --overwrite" in capsys.readouterr().err


def test_wrong_frames_are_an_error(monkeypatch, capsys):
    # as if the decoder shifted all frames
    monkeypatch.setattr(decode, "numbers", lambda clip: [1] * len(clip))
    assert main(["bench", "decode", "--kind", "gop12.mp4", "--rounds", "1"]) == 1
    assert "100%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "flash.swf"], "kind 'flash.swf' is unknown; there are one_key.avi"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--memory", "-1"], "memory must be at least 1"),
        (["none.mp4"], "none.mp4: no such file"),
        (["--output", "out.txt"], "out.txt: --output must end in .json"),
    ],
)
def test_errors(arguments, says, capsys):
    assert main(["bench", "decode", *arguments]) == 1
    assert says in capsys.readouterr().err


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "decode", "--help"])
    assert "vidpool bench decode --kind gop12.mp4" in " ".join(capsys.readouterr().out.split())
