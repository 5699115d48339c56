"""Names of files and classes that are odd or not UTF-8: what is written reads back to them."""

import csv
import json
import os
import tempfile
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vidpool.analysis.mcnemar import read_predictions
from vidpool.cli.configs import load_yaml
from vidpool.cli.predict import write_predictions as write_predicted
from vidpool.data.catalogue.index import read_index, write_index
from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import LabelledVideo, VideoTable
from vidpool.data.prepare.transcode import CUT_SHORT, _cut_short
from vidpool.figures import plain_text
from vidpool.files import (
    is_utf8,
    json_text,
    open_text,
    printable,
    read_json,
    utf8_path,
    write_json,
)
from vidpool.inference.predictor import Prediction
from vidpool.results import write_results
from vidpool.train.callbacks.test_report import write_predictions, write_run, write_test_report

ODD = (
    os.fsdecode(b"caf\xe9"),
    os.fsdecode(b"\xff\xfe\x80"),
    "a\nb\r\nc\rd",
    '", \'|"',
    " -- lead",
    "=1+1",
    "🏃‍♀️ été",
    "مشي \u202e",
    "[red]:boom:[bold",
    "\\udce9 \\",
    "$a$ {b} %s\t\x1b[1m",
    "- a: #b",
)
# every name of a file that a file system allows
names = st.sampled_from(ODD) | (
    st.lists(st.sampled_from(ODD) | st.binary(min_size=1, max_size=6).map(os.fsdecode), max_size=3)
    .map("".join)
    .map(lambda name: os.fsdecode(os.fsencode(name.replace("/", "").replace("\0", ""))))
    .filter(lambda name: name not in ("", ".", ".."))
)
few = settings(max_examples=25)


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@given(names)
def test_json_is_utf8_and_reads_back(folder, name):
    write_json(folder / "a.json", {name: [name]})
    assert json.loads((folder / "a.json").read_bytes()) == {name: [name]}
    assert read_json(folder / "a.json") == {name: [name]}
    # earlier versions wrote the bytes of the name
    text = json.dumps(name, ensure_ascii=False)
    (folder / "b.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert read_json(folder / "b.json") == name


def test_json_keeps_what_utf8_can_encode():
    assert json_text({"a": "跑 é"}, indent=None) == '{"a": "跑 é"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(float("nan"), allow_nan=False)


@given(names, names)
def test_csv_reads_back(folder, name, other):
    with open_text(folder / "a.csv", "w") as file:
        csv.writer(file).writerows([[name, other], [other, name]])
    with open_text(folder / "a.csv") as file:
        assert list(csv.reader(file)) == [[name, other], [other, name]]
    assert os.fsencode(name).replace(b'"', b'""') in (folder / "a.csv").read_bytes()


@given(names)
def test_yaml_reads_back(name):
    settings = {"root": name, "lr": 1e-5, name: [name, 0.5, None]}
    assert load_yaml(yaml.safe_dump(settings, allow_unicode=True)) == settings
    assert load_yaml(yaml.safe_dump(settings)) == settings


def test_yaml_with_and_without_such_names_has_the_same_numbers():
    text = "lr: 1e-3\nn: 5\nx: 1.5\nt: yes\nname: 'a'"
    assert load_yaml(f"{text}\nroot: caf\udce9") == {
        **{"lr": 1e-3, "n": 5, "x": 1.5, "t": True, "name": "a"},
        "root": "caf\udce9",
    }
    with pytest.raises(yaml.YAMLError):
        load_yaml("a: [\udce9")


@given(names)
def test_shown_in_one_line_that_utf8_can_encode(name):
    shown = printable(name)
    assert shown.encode()
    assert shown.splitlines() == [shown]
    assert "\x1b" not in shown
    assert plain_text(name).encode()
    assert printable("跑 é") == "跑 é"


@given(names)
def test_libraries_get_a_path_in_utf8(folder, name):
    path = folder / name
    path.write_bytes(b"content")
    with utf8_path(path) as given:
        given.encode()
        assert Path(given).read_bytes() == b"content"
        assert is_utf8(name) == (given == str(path))


@few
@given(names, names, names)
def test_predictions_of_a_test(folder, name, one, other):
    videos = VideoTable.of([LabelledVideo(f"/data/{one}/{name}", 0)])
    scores, labels = torch.tensor([[0.25, 0.75]]), torch.tensor([0])
    classes = [one, f"{other}2"]
    write_predictions(folder, videos, torch.tensor([0]), scores, labels, classes)
    found = read_predictions(folder / "predictions.csv")
    assert found == {(f"/data/{one}/{name}", "", ""): (one, one == f"{other}2")}
    assert read_json(write_run(folder, {"root": name})) == {"root": name}


@few
@given(names, names)
def test_predictions_of_predict(folder, name, label):
    scores = torch.tensor([0.25, 0.75])
    predictions = [
        Prediction(Path(name), ["other", label], scores),
        Prediction(Path(name), ["other", label], error=label),
    ]
    write_predicted(folder / "p.csv", predictions)
    with open_text(folder / "p.csv") as file:
        first, _, second = csv.DictReader(file)
    assert (first["file"], first["class"], second["error"]) == (name, label, label)
    write_predicted(folder / "p.json", predictions)
    first, second = json.loads((folder / "p.json").read_bytes())
    assert (first["file"], first["predictions"][0]["class"]) == (name, label)
    assert second == {"file": name, "error": label}


@few
@given(names)
def test_log_of_preparing(folder, name):
    with open_text(folder / "log.csv", "w") as file:
        csv.writer(file).writerow([name, f"{CUT_SHORT}: 3 of 5"])
    assert list(_cut_short(folder / "log.csv")) == [(name, f"{CUT_SHORT}: 3 of 5")]


@few
@given(names, names)
def test_index(folder, name, label):
    listing = Listing(
        [label], VideoTable.of([LabelledVideo(f"{label}/{name}", 0)]), {"val": (0, 1)}
    )
    path = folder / f"{name}.safetensors"
    write_index(path, listing, {"root": name})
    found, source = read_index(path, "/data")
    assert (found.class_names, source) == ([label], {"root": name})
    assert found.table[0].path == f"/data/{label}/{name}"
    write_index(path, listing, {"root": name})  # replaces an index


@pytest.mark.parametrize("name", ["caf\udce9", "a\nb\r\nc\rd$", "- a: #b, \"|'"])
def test_reports_with_pictures(folder, name):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 2))
    figure.suptitle(plain_text(name))
    files = write_results(folder / f"{name}.json", {"command": name}, [name], figure)
    content = json.loads(files[0].read_bytes())
    assert content == {"command": name, "results": [name]}
    matrix = torch.eye(2, dtype=torch.long)
    files += write_test_report(folder / f"of {name}", matrix, [name, f"{name}2"], {"top1": 1.0})
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files if file.suffix == ".png")
    with open_text(files[3]) as file:
        assert [row["class"] for row in csv.DictReader(file)] == [name, f"{name}2"]
