"""Columns of videos: what goes in comes out, also in other processes."""

import math
import pickle
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidpool.data.catalogue.table import LabelledVideo, Status, TableBuilder, VideoTable

# whatever a file system allows; surrogates stand for bytes that are not UTF-8
names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=9
).filter(lambda name: name not in (".", ".."))
times = st.floats(0, 1e6)
videos = st.builds(
    lambda folder, name, label, start, more, length: LabelledVideo(
        f"{folder}/{name}", label, start, None if start is None else start + more, length
    ),
    names,
    names,
    st.integers(-1, 700),
    st.none() | times,
    st.floats(0.1, 1e3),
    st.none() | st.integers(1, 10**6),
)


@given(st.lists(videos))
def test_what_goes_in_comes_out(some):
    table = VideoTable.of(some)
    assert len(table) == len(some)
    assert list(table) == some
    assert [table[i - len(some)] for i in range(len(some))] == some


@given(st.lists(videos, min_size=1), st.data())
def test_selections(some, data):
    table = VideoTable.of(some)
    first, end = (data.draw(st.integers(0, len(some))) for _ in range(2))
    assert list(table[first:end]) == some[first:end]
    chosen = data.draw(st.lists(st.integers(0, len(some) - 1)))
    assert list(table.select(torch.tensor(chosen, dtype=torch.long))) == [some[i] for i in chosen]
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(some), max_size=len(some))))
    assert list(table.select(mask)) == [v for v, kept in zip(some, mask, strict=True) if kept]


def test_a_name_that_is_not_utf8():
    name = b"caf\xe9 -x'\".mp4".decode("utf-8", "surrogateescape")
    table = VideoTable.of([LabelledVideo(f"/a b/{name}", 0)])
    assert table[0].path == f"/a b/{name}"


@pytest.mark.parametrize("index", [3, -4])
def test_beyond_the_end(index):
    with pytest.raises(IndexError, match=f"no video {index} in a table of 3"):
        _ = VideoTable.of([LabelledVideo("a/b.mp4", 0)] * 3)[index]


def test_videos_of_one_file():
    builder = TableBuilder("/root")
    file = builder.add_file("deep/down", "a.mp4", frames=90)
    builder.add_video(file, 2, 1.5, 3.5)
    builder.add_video(file, 1, 2.0)
    builder.add_video(builder.add_file("", "b.mp4"), -1)
    assert list(builder.build()) == [
        LabelledVideo("/root/deep/down/a.mp4", 2, 1.5, 3.5, 90),
        LabelledVideo("/root/deep/down/a.mp4", 1, 2.0, math.inf, 90),
        LabelledVideo("/root/b.mp4", -1),
    ]


def test_bad_videos():
    builder = TableBuilder("/root")
    for status in Status:
        builder.add_video(builder.add_file("", f"{status}.mp4", status), 0)
    table = builder.build()
    assert table.bad().tolist() == [False, False, True, True]
    table.span[1] = 0
    assert table.bad().tolist() == [False, True, True, True]


def paths_of(table, pipe):
    pipe.send([video.path for video in table])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_it(start):
    table = VideoTable.of([LabelledVideo(f"a/{i}.mp4", i) for i in range(20)])[5:]
    context = get_context(start)
    ours, theirs = context.Pipe()
    process = context.Process(target=paths_of, args=(table, theirs))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == [f"a/{i}.mp4" for i in range(5, 20)]
    process.join()


def test_a_process_is_given_a_handle_and_no_copy():
    few, many = (VideoTable.of([LabelledVideo("a/b.mp4", 0)] * n) for n in (10, 100_000))
    assert len(ForkingPickler.dumps(many)) < len(ForkingPickler.dumps(few)) + 500
    assert list(pickle.loads(pickle.dumps(few))) == list(few)
