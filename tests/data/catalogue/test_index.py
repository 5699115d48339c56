"""The index file: the same comes back, and whatever is wrong with it is told."""

import time

import pytest
import torch
from mutated import mutated
from safetensors.torch import load_file, save_file

from vidpool.data.catalogue.index import fingerprint, read_index, write_index
from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import Status, TableBuilder
from vidpool.errors import DataError

SOURCE = {"data set": "X", "annotation files": {"a.csv": "123"}}


@pytest.fixture
def listing():
    builder = TableBuilder("/then")
    for number in range(30):
        file = builder.add_file(f"Klasse {number % 3}/ü", f"-{number}.mp4", Status.READABLE, 50)
        builder.add_video(file, number % 3)
        builder.add_video(file, -1, 0.5 * number, 0.5 * number + 2)
    return Listing(['a "b"', "c/d", "é"], builder.build(), {"train": (0, 40), "test": (40, 60)})


@pytest.fixture
def index(listing, tmp_path):
    path = tmp_path / "made" / "index.safetensors"
    write_index(path, listing, SOURCE)
    return path


def same(one, other):
    assert (one.class_names, one.splits) == (other.class_names, other.splits)
    assert [v._replace(path="") for v in one.table] == [v._replace(path="") for v in other.table]


def test_the_same_comes_back_below_the_present_root(listing, index):
    read, source = read_index(index, "/now")
    same(read, listing)
    assert source == SOURCE
    assert read.table[3].path == "/now/Klasse 1/ü/-1.mp4"
    assert list(read.split("test")) == list(read.table)[40:]
    assert torch.equal(read.table.status, listing.table.status)
    assert [path.name for path in index.parent.iterdir()] == [index.name]


def test_a_listing_without_videos(tmp_path):
    write_index(tmp_path / "i", Listing([], TableBuilder("").build(), {}), {})
    assert len(read_index(tmp_path / "i", "")[0].table) == 0


def test_it_is_replaced_at_once_or_not_at_all(listing, index, monkeypatch):
    before = index.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vidpool.data.catalogue.index.save_file", fail)
    with pytest.raises(DataError, match=r"cannot be written .*No space left"):
        write_index(index, listing, {})
    assert index.read_bytes() == before
    assert [path.name for path in index.parent.iterdir()] == [index.name]


def test_another_file_is_not_replaced(listing, tmp_path):
    for content in (b"precious", b""):
        (tmp_path / "notes").write_bytes(content)
        with pytest.raises(DataError, match="notes: cannot be read as an index"):
            write_index(tmp_path / "notes", listing, {})
        assert (tmp_path / "notes").read_bytes() == content
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="is not an index that"):
        write_index(tmp_path / "weights.safetensors", listing, {})


def test_none_there(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=f"^{path}: no such index file; make it with `vidpool"):
            read_index(path, "")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", "2", "version '2', but this vidpool reads version 1; make it again"),
        ("format", "something", "is not an index that `vidpool data check` made"),
        ("checksum", "0", "damaged .its checksum is wrong.; make it again"),
        ("contents", "{}", "damaged .its checksum is wrong."),
    ],
)
def test_other_metadata(index, key, value, message):
    from safetensors import safe_open

    with safe_open(index, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(index), index, metadata | {key: value})
    with pytest.raises(DataError, match=f"^{index}: .*{message}"):
        read_index(index, "")


def check_mutations(index, listing, seeds):
    whole = index.read_bytes()
    outcomes = set()
    for seed in seeds:
        index.write_bytes(mutated(whole, seed))
        begun = time.monotonic()
        try:
            same(read_index(index, "/now")[0], listing)
            outcomes.add("read")
        except DataError as error:
            outcomes.add("refused" if str(error).startswith(f"{index}: ") else str(error))
        assert time.monotonic() - begun < 10, seed
    assert "refused" in outcomes
    assert outcomes <= {"read", "refused"}


def test_damage_is_found(index, listing):
    check_mutations(index, listing, range(100))


@pytest.mark.slow
def test_damage_is_found_500_times(index, listing):
    check_mutations(index, listing, range(1000, 1500))


def test_fingerprints(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"abd")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    assert fingerprint(tmp_path / "a").startswith("ba7816bf")  # SHA-256's test vector
    with pytest.raises(DataError, match=f"^{tmp_path}: cannot be read"):
        fingerprint(tmp_path)
