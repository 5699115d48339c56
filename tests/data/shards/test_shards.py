"""Shards hold what the files do, and every clip comes once, whoever reads."""

import io
import json
import tarfile
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_video import numbers, write_video
from pytorch_lightning.callbacks import ModelCheckpoint
from watched import Watched, watch

from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.data.schedule import ClipRequest, ConstantSchedule, Step, mix_seeds
from vidpool.data.shards import reader as shard_reader
from vidpool.data.shards import writer as shard_writer
from vidpool.data.shards.datamodule import ShardDataModule, ShardLoader
from vidpool.data.shards.reader import Shard, ShardClips
from vidpool.data.shards.writer import make_shards
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError, DataError, VideoError

SMALL = {
    "frames": 4,
    "stride": 2,
    "crop": 16,
    "short_side": 20,
    "batch_size": 4,
    "test_clips": 2,
    "test_crops": 1,
    "num_workers": 0,
    "augment": Augmentation(brightness=0.2),
}


def one_by_one(function, items, workers):  # noqa: ARG001
    for item in items:
        yield item, function(item)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(shard_writer, "in_processes", one_by_one)


@pytest.fixture(scope="module")
def files(colours):
    return UCF101DataModule(str(colours), **SMALL)


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    """Shards of the colours: 18 training and 12 test videos."""
    out = tmp_path_factory.mktemp("shards") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shard_writer, "in_processes", one_by_one)
        make_shards(files, out, size=0.02)
    return out


def catalogue(folder):
    return json.loads((folder / "shards.json").read_text())


def test_shards_hold_every_video_once(files, folder, colours):
    listed = catalogue(folder)
    assert listed["class_names"] == files.class_names
    assert len(listed["shards"]["train"]) > 3
    for split in ("train", "test"):
        videos = files.videos(split)
        found = []
        for shard in listed["shards"][split]:
            samples = list(webdataset.WebDataset(str(folder / shard["name"]), shardshuffle=False))
            assert len(samples) == shard["videos"]
            for sample in samples:
                about = json.loads(sample["json"])
                ((number, label, start, end),) = about["videos"]
                assert (start, end, about["frames"]) == (None, None, 20)
                assert videos[number].path == str(colours / about["path"])
                assert videos[number].label == label
                suffix = about["path"].rpartition(".")[2]
                assert sample[suffix] == (colours / about["path"]).read_bytes()
                found.append(number)
        assert sorted(found) == list(range(len(videos)))
        # training is shuffled, testing is not
        assert (found == sorted(found)) == (split == "test")


def test_making_shards_goes_on_where_it_ended(files, tmp_path, folder):
    out = tmp_path / "out"
    report = make_shards(files, out, size=0.02)
    total = report.made
    assert (report.kept, report.videos, report.bad) == (0, {"train": 18, "test": 12}, [])
    (out / "shards.json").unlink()
    (out / "train-000001.tar").unlink()
    again = make_shards(files, out, size=0.02)
    assert (again.made, again.kept) == (1, total - 1)
    for path in (*folder.glob("*.tar"), folder / "shards.json"):
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in folder.iterdir())
    with pytest.raises(DataError, match=r"other settings .seed differs"):
        make_shards(files, out, size=0.02, seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    with pytest.raises(DataError, match="something else"):
        make_shards(files, tmp_path / "other")
    with pytest.raises(DataError, match=r"mine.txt is a file: choose"):
        make_shards(files, tmp_path / "other" / "mine.txt")
    with pytest.raises(DataError, match=r"mine.txt/x: .*Not a directory.*: choose"):
        make_shards(files, tmp_path / "other" / "mine.txt" / "x")
    with pytest.raises(ConfigError, match=r"size .* got 0"):
        make_shards(files, tmp_path / "third", size=0)


def test_clips_of_one_file_are_one_sample(tmp_path):
    root = tmp_path / "root"
    (root / "a.b").mkdir(parents=True)
    write_video(root / "a.b" / "long.x.mp4", 75, size=(64, 64))  # 3 s
    (root / "a.b" / "text.mp4").write_text("no video")
    lines = ["a.b/long.x.mp4,yes,0,1", "a.b/long.x.mp4,no,2,3", "a.b/text.mp4,no,0,1"]
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text("path,label,start,end\n" + "\n".join(lines) + "\n")
    report = make_shards(VideoFolderDataModule(str(root), **SMALL), tmp_path / "out")
    assert report.videos == {"train": 2, "val": 2}
    assert len(report.bad) == 2
    assert report.bad[0].startswith(str(root / "a.b" / "text.mp4"))
    whole = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0)
    data = ShardDataModule(
        str(tmp_path / "out"), **{**SMALL, "crop": 64, "short_side": 64, "augment": whole}
    )
    for epoch in range(3):
        loader = data.train_dataloader()
        loader.set_epoch(epoch)
        (batch,) = loader
        for clip, label in zip(batch["clip"].transpose(1, 2), batch["label"], strict=True):
            low = 0 if data.class_names[label] == "yes" else 50
            assert all(low <= number < low + 25 for number in numbers(clip))
    assert sorted(batch["video"].tolist()) == [0, 1]


def test_clips_beyond_the_end_of_a_file_are_left_out_alone(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name in ("some", "none"):
        write_video(root / f"{name}.mp4", 50, size=(32, 32))  # 2 s
    lines = [
        "some.mp4,a,0,1",
        "some.mp4,b,3,4",
        "some.mp4,a,5,6",
        "some.mp4,b,1,3",
        "none.mp4,a,2,3",
    ]
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text("path,label,start,end\n" + "\n".join(lines) + "\n")
    report = make_shards(VideoFolderDataModule(str(root), **SMALL), tmp_path / "out")
    assert report.videos == {"train": 2, "val": 2}
    some, none = root / "some.mp4", root / "none.mp4"
    assert sorted(report.bad) == sorted(
        2
        * [
            f"{some}: ends at 2.000 s, before 3.0 s",
            f"{some}: ends at 2.000 s, before 5.0 s",
            f"{none}: ends at 2.000 s, before 2.0 s",
        ]
    )
    data = ShardDataModule(str(tmp_path / "out"), **SMALL)
    (batch,) = data.val_dataloader()
    assert [data.class_names[label] for label in batch["label"]] == ["a", "b"]


def test_frames_are_not_put_into_shards(tmp_path):
    root = tmp_path / "root"
    (root / "video").mkdir(parents=True)
    (root / "video" / "frames.db").touch()
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text("path,label\nvideo,yes\n")
    data = VideoFolderDataModule(str(root), **SMALL)
    with pytest.raises(DataError, match=rf"^{root / 'video'}: is a folder, but shards are made of"):
        make_shards(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_clip_is_the_one_that_the_file_gives(files, folder):
    data = ShardDataModule(str(folder), **SMALL)
    loader = data.train_dataloader()
    loader.set_epoch(3)
    dataset = files.train_dataloader().dataset
    for batch in loader:
        shape = ClipShape(4, 2, 16)
        seeds = [(v, mix_seeds(loader.scheduled.seed, 3, v)) for v in batch["video"].tolist()]
        requests = [ClipRequest(video, shape, seed) for video, seed in seeds]
        expected = dataset[requests]
        assert batch.keys() == expected.keys()
        for name in ("clip", "label", "video", "counted"):
            assert torch.equal(batch[name], expected[name])
        assert batch["seed"] == expected["seed"]
        assert (batch["requested"], batch["bad"]) == (4 if len(batch["seed"]) == 4 else 2, [])


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_is_that_of_the_files(files, folder, split):
    def read(data):
        loader = getattr(data, f"{split}_dataloader")()
        assert len(loader.dataset.videos) == 12
        batches = list(loader)
        assert len(loader) == len(batches)
        return batches

    # one process keeps the order
    for one, other in zip(read(files), read(ShardDataModule(str(folder), **SMALL)), strict=True):
        for name in ("clip", "label", "video", "counted"):
            assert torch.equal(one[name], other[name])


class Fake:
    """Shards without files: what they hold is made up as it is read."""

    def __init__(self, sizes):
        firsts = [0, *accumulate(sizes)]
        self.first = {f"/{number}.tar": first for number, first in enumerate(firsts[:-1])}
        self.shards = [Shard(Path(f"/{i}.tar"), size) for i, size in enumerate(sizes)]
        self.sizes = {f"/{i}.tar": size for i, size in enumerate(sizes)}

    def samples(self, sources):
        for source in sources:
            url = source["url"]
            for i in range(self.sizes[url]):
                number = self.first[url] + i
                about = {"path": "x", "frames": 1, "videos": [[number, 0, None, None]]}
                yield {"__key__": "k", "mp4": b"", "json": json.dumps(about)}


def read_nothing(video, request):  # noqa: ARG001
    return {
        "clip": torch.tensor([[request.index, request.shape.crop]]),
        "label": torch.zeros(1, dtype=torch.int64),
        "video": torch.zeros(1, dtype=torch.int64),
        "counted": torch.tensor([request.counted]),
        "seed": [request.seed],
        "requested": 1,
        "bad": [],
    }


class Varying:
    def step(self, epoch, step, used):  # noqa: ARG002
        return Step(ClipShape(1, 1, 10 + step), 1 + (epoch + step) % 3)


def epoch_of(fake, patched, ranks, workers, clips=1, epoch=0, done=0, **options):
    """What each rank gets: lists of batches, as a loader would put the processes' together."""
    patched.setattr("webdataset.tarfile_samples", fake.samples)
    result = []
    for rank in range(ranks):
        dataset = ShardClips(
            fake.shards,
            sum(fake.sizes.values()),
            clips,
            read_nothing,
            num_replicas=ranks,
            rank=rank,
            **options,
        )
        dataset.begin(epoch, done)
        processes = []
        for worker in range(workers):
            info = SimpleNamespace(id=worker, num_workers=workers)
            patched.setattr(shard_reader, "get_worker_info", lambda info=info: info)
            processes.append(list(dataset))
        in_turn = []
        while any(processes):
            in_turn += [process.pop(0) for process in processes if process]
        result.append(in_turn)
    return result


LAYOUTS = {
    "sizes": st.lists(st.integers(1, 7), min_size=1, max_size=6),
    "ranks": st.integers(1, 4),
    "workers": st.integers(1, 4),
    "epoch": st.integers(0, 3),
}


@settings(max_examples=60)
@given(**LAYOUTS, varying=st.booleans())
def test_training_loses_and_doubles_no_clip(sizes, ranks, workers, epoch, varying):
    schedule = Varying() if varying else ConstantSchedule(ClipShape(1, 1, 10), 2)
    with pytest.MonkeyPatch.context() as patched:
        options = {"schedule": schedule, "epoch": epoch, "buffer": 3}
        of_ranks = epoch_of(Fake(sizes), patched, ranks, workers, **options)
    videos = [v for batches in of_ranks for batch in batches for v in batch["video"].tolist()]
    assert len(set(videos)) == len(videos)
    assert len(videos) == sum(sizes) // ranks * ranks or (
        varying and len(videos) > sum(sizes) - ranks
    )
    # all ranks make the same steps, in the schedule's order
    shapes = [[(len(b["video"]), int(b["clip"][0, 1])) for b in batches] for batches in of_ranks]
    assert all(shape == shapes[0] for shape in shapes)
    if varying:
        assert [crop for _, crop in shapes[0]] == [10 + step for step in range(len(shapes[0]))]


@settings(max_examples=60)
@given(**LAYOUTS, clips=st.integers(1, 3))
def test_evaluation_counts_every_clip_once(sizes, ranks, workers, epoch, clips):
    schedule = ConstantSchedule(ClipShape(1, 1, 10), 2)
    with pytest.MonkeyPatch.context() as patched:
        options = {"schedule": schedule, "epoch": epoch, "shuffle": False, "clips": clips}
        of_ranks = epoch_of(Fake(sizes), patched, ranks, workers, **options)
    counted = []
    for batches in of_ranks:
        assert len(batches) == len(of_ranks[0])
        for batch in batches:
            pairs = zip(batch["video"].tolist(), batch["clip"][:, 0].tolist(), strict=True)
            counted += [p for p, real in zip(pairs, batch["counted"].tolist(), strict=True) if real]
    expected = [(video, clip) for video in range(sum(sizes)) for clip in range(clips)]
    assert sorted(counted) == expected


@settings(max_examples=40)
@given(**LAYOUTS, share=st.floats(0, 1))
def test_a_resumed_epoch_goes_on(sizes, ranks, workers, epoch, share):
    options = {"schedule": Varying(), "epoch": epoch, "buffer": 3}
    fake = Fake(sizes)
    with pytest.MonkeyPatch.context() as patched:
        whole = epoch_of(fake, patched, ranks, workers, **options)
        done = int(share * len(whole[0]))
        rest = epoch_of(fake, patched, ranks, workers, done=done, **options)
    for one, other in zip(whole, rest, strict=True):
        assert [batch["seed"] for batch in one[done:]] == [batch["seed"] for batch in other]


def test_order_is_that_of_seed_and_epoch():
    fake = Fake([5, 5, 5, 5])

    def order(epoch, seed):
        options = {"schedule": ConstantSchedule(ClipShape(1, 1, 10), 4), "buffer": 6}
        with pytest.MonkeyPatch.context() as patched:
            (batches,) = epoch_of(fake, patched, 1, 1, epoch=epoch, seed=seed, **options)
        return [v for batch in batches for v in batch["video"].tolist()]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*pair)) for pair in ((0, 0), (1, 0), (0, 1), (1, 1))}) == 4
    assert order(0, 0) != sorted(order(0, 0))


def test_processes_under_lightning(folder, tmp_path):
    data = ShardDataModule(str(folder), **{**SMALL, "num_workers": 2})
    model, _ = watch(data, tmp_path)
    orders = []
    for epoch in range(3):
        batches = model.seen[epoch]
        assert [len(batch["label"]) for batch in batches] == [4, 4, 4, 4, 2]
        orders.append([v for batch in batches for v in batch["video"].tolist()])
        assert sorted(orders[-1]) == list(range(18))
    assert orders[0] != orders[1] != orders[2]


class Interrupted(Watched):
    """Ends after some batches."""

    last = None

    def on_train_batch_end(self, *_):
        if self.trainer.global_step == self.last:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt


def test_lightning_resumes_in_the_middle_of_an_epoch(folder, tmp_path):
    def fit(last=None, ckpt_path=None):
        model = Interrupted()
        model.last, model.checkpoint = last, tmp_path / "last.ckpt"
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        data = ShardDataModule(str(folder), **SMALL)
        with suppress(KeyboardInterrupt, SystemExit):
            trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=False)
        return {epoch: [b["seed"] for b in batches] for epoch, batches in model.seen.items()}

    whole = fit()
    assert [len(batches) for batches in whole.values()] == [5, 5]
    assert fit(last=7) == {0: whole[0], 1: whole[1][:2]}
    assert fit(ckpt_path=tmp_path / "last.ckpt") == {1: whole[1][2:]}


@pytest.mark.parametrize("in_shards", [True, False])
@pytest.mark.parametrize("after_validation", [True, False])
def test_lightning_resumes_after_an_epoch(
    in_shards, after_validation, colours, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(Watched, "validation_step", lambda *_: None, raising=False)

    def fit(epochs, ckpt_path=None):
        model = Watched()
        saving = ModelCheckpoint(
            tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=not after_validation
        )
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            logger=False,
            callbacks=[saving],
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        data = (
            ShardDataModule(str(folder), **SMALL)
            if in_shards
            else UCF101DataModule(str(colours), **SMALL)
        )
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=False)
        return {epoch: [b["seed"] for b in batches] for epoch, batches in model.seen.items()}

    whole = fit(3)
    assert [len(batches) for batches in whole.values()] == [5, 5, 5]
    assert fit(3, tmp_path / "epoch=0.ckpt") == {1: whole[1], 2: whole[2]}
    assert fit(3, tmp_path / "epoch=1.ckpt") == {2: whole[2]}


def test_other_processes_cannot_resume_an_epoch(folder):
    loader = ShardDataModule(str(folder), **SMALL).train_dataloader()
    for state in ({"epoch": 0, "made": 0, "workers": 4}, {"epoch": 1, "made": 5, "workers": 4}):
        loader.load_state_dict(state)
        assert len(list(loader)) == 5
    loader.load_state_dict({"epoch": 0, "made": 2, "workers": 4})
    with pytest.raises(ConfigError, match=r"num_workers was 4 and is 0"):
        list(loader)
    assert isinstance(loader, ShardLoader)


@pytest.fixture
def spoilt(folder, tmp_path):
    """A copy of the shards whose first test video is no video."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    name = tmp_path / "test-000000.tar"
    with tarfile.open(name) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
    with tarfile.open(name, "w") as tar:
        for number, (member, content) in enumerate(members):
            if number < 2 and not member.name.endswith("json"):
                content = b"no video" * 9
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path


def test_bad_videos_are_named_by_shard_and_path(spoilt, files):
    name = Path(files.videos("test")[0].path).name
    with pytest.raises(VideoError, match=rf"^{spoilt}/test-000000.tar: .*{name}: is not a video"):
        list(ShardDataModule(str(spoilt), **SMALL).val_dataloader())
    lenient = ShardDataModule(str(spoilt), **SMALL, on_bad_video="skip")
    first, *rest = lenient.val_dataloader()
    assert first["counted"].tolist() == [False, True, True, True]
    assert len(first["bad"]) == 1
    assert name in first["bad"][0]
    assert all(batch["counted"].all() for batch in rest)


def test_bad_videos_of_training_are_left_out(spoilt):
    listed = catalogue(spoilt)
    for part in ("shards", "sizes"):
        listed[part]["train"] = listed[part]["test"]
    (spoilt / "shards.json").write_text(json.dumps(listed))
    data = ShardDataModule(str(spoilt), **{**SMALL, "batch_size": 50}, on_bad_video="skip")
    (batch,) = data.train_dataloader()
    assert batch["requested"] == 12
    assert len(batch["label"]) == len(batch["seed"]) == len(batch["clip"]) == 11
    assert len(batch["bad"]) == 1


def test_broken_shards_are_named(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "test-000000.tar"
    for content in (broken.read_bytes()[:1700], b"", b"x" * 5000):
        broken.write_bytes(content)
        with pytest.raises(DataError, match=f"^{broken}: "):
            list(ShardDataModule(str(tmp_path), **SMALL).val_dataloader())
    broken.unlink()
    with pytest.raises(DataError, match=f"^{broken}: cannot be read"):
        list(ShardDataModule(str(tmp_path), **SMALL).val_dataloader())
    (tmp_path / "shards.json").write_text("{")
    with pytest.raises(DataError, match=r"shards\.json: cannot be read"):
        ShardDataModule(str(tmp_path))
    (tmp_path / "shards.json").unlink()
    with pytest.raises(DataError, match="not complete, repeat `vidpool data shard`"):
        ShardDataModule(str(tmp_path))
    with pytest.raises(DataError, match="holds no shards, made by `vidpool data shard`"):
        ShardDataModule(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="sampling class_balanced needs videos in any order"):
        ShardDataModule(str(folder), sampling="class_balanced")
    with pytest.raises(ConfigError, match="shuffle_buffer"):
        ShardDataModule(str(folder), shuffle_buffer=0)
