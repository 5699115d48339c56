"""Short trainings whose learning rates, plans, clip seeds and batches are recorded.

As a script, ``python recorded.py FOLDER RUN DEVICES`` makes the videos in FOLDER if they are
missing, trains once, and writes FOLDER/RUN_rank<n>.json.
"""

import json
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytorch_lightning as pl
import torch

from vidpool.data.datasets.video_folder import VideoFolderDataModule
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.classifier import VideoClassifier

COUNTS = {"train": {"a": 7, "b": 3, "c": 2}, "val": {"a": 1, "b": 1, "c": 1}}
DATA = {"frames": 4, "stride": 2, "crop": 32, "short_side": 36, "batch_size": 4, "num_workers": 0}
COSINE = {"lr": 0.1, "lr_schedule": "cosine", "warmup_epochs": 0.5}
STEPS = {"lr": 0.05, "lr_schedule": "step", "milestones": [0.4, 1.2], "gamma": 0.3}
RUNS = {
    "constant": {"model": {**COSINE, "backbone_lr": 0.5, "layer_decay": 0.8}, "epochs": 2},
    "steps": {
        "model": {**STEPS, "optimizer": "adamw", "weight_decay": 0.05},
        "data": {"sampling": "class_balanced"},
        "epochs": 2,
    },
    "multigrid": {
        "model": COSINE,
        "data": {"batch_size": 2},
        "multigrid": {"long_cycle": False, "epoch_factor": 1.5},
        "epochs": 2,
    },
    "resumed": {"model": COSINE, "epochs": 2, "stop": 4},
    "two_processes": {"model": COSINE, "epochs": 2},
}
"""Settings of each run; ``stop`` is the step after which it is resumed with twice the rate."""


def write_videos(root):
    """Write the videos losslessly, so that every decoder gives the same frames everywhere."""
    for split, counts in COUNTS.items():
        for label, (name, count) in enumerate(counts.items()):
            for number in range(count):
                path = Path(root) / split / name / f"{number}.mkv"
                path.parent.mkdir(parents=True, exist_ok=True)
                random = np.random.default_rng([label, number, len(split)])
                with av.open(str(path), "w") as container:
                    stream = container.add_stream("ffv1", rate=12)
                    stream.width, stream.height, stream.pix_fmt = 48, 40, "bgr0"
                    for t in range(10 + number):
                        picture = random.integers(0, 256, (40, 48, 3)).astype(np.uint8)
                        picture[:, 4 * t : 4 * t + 8] = 80 * label
                        frame = av.VideoFrame.from_ndarray(picture)
                        frame.pts, frame.time_base = t, Fraction(1, 12)
                        container.mux(stream.encode(frame))
                    container.mux(stream.encode())


class RecordedData(VideoFolderDataModule):
    """Records the uint8 batches of training before they reach the device."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.batches = []

    def on_before_batch_transfer(self, batch, dataloader_idx):  # noqa: ARG002
        if self.trainer.training:
            clip = batch["clip"]
            assert clip.dtype == torch.uint8
            self.batches.append(
                {
                    "shape": list(clip.shape),
                    "videos": batch["video"].tolist(),
                    "seeds": batch["seed"],
                    "labels": batch["label"].tolist(),
                    "checksum": zlib.crc32(clip.contiguous().numpy().tobytes()),
                }
            )
        return batch


class Rates(pl.Callback):
    """Records learning rate and weight decay of each parameter group at each step."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
        groups = optimizer.param_groups
        self.steps.append([[group["lr"], group["weight_decay"]] for group in groups])


class Stop(pl.Callback):
    """Saves a checkpoint and stops after a number of steps."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):  # noqa: ARG002
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


def record(root, run, devices=1):
    """Train a run on videos below root and return what each step was given, and the weights."""
    settings = RUNS[run]
    if "stop" not in settings:
        return _train(root, settings, devices)
    checkpoint = Path(root) / "stopped.ckpt"
    _train(root, settings, devices, stop=Stop(settings["stop"], checkpoint))
    faster = {**settings, "model": {**settings["model"], "lr": 0.2, "weight_decay": 0.01}}
    return _train(root, faster, devices, checkpoint=str(checkpoint))


def _train(root, settings, devices, stop=None, checkpoint=None):
    pl.seed_everything(3, verbose=False)
    model = VideoClassifier("r3d_18", 3, width=4, **settings["model"])
    data = RecordedData(str(root), **{**DATA, **settings.get("data", {})})
    rates = Rates()
    callbacks = [rates, *([Multigrid(**settings["multigrid"])] if "multigrid" in settings else [])]
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp" if devices > 1 else "auto",
        devices=devices,
        max_epochs=settings["epochs"],
        callbacks=[*callbacks, *([] if stop is None else [stop])],
        default_root_dir=root,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    try:
        trainer.fit(model, data, ckpt_path=checkpoint)
    except (KeyboardInterrupt, SystemExit):
        assert stop is not None
    return {
        "batches": data.batches,
        "rates": rates.steps,
        "weights": {key: value.clone() for key, value in model.model.state_dict().items()},
    }


def write_record(folder, run, devices):
    """Train a run and write its record and weights, by rank."""
    recorded = record(folder, run, int(devices))
    rank = torch.distributed.get_rank() if int(devices) > 1 else 0
    torch.save(recorded.pop("weights"), Path(folder) / f"{run}_rank{rank}.pt")
    (Path(folder) / f"{run}_rank{rank}.json").write_text(json.dumps(recorded))


if __name__ == "__main__":
    write_record(*sys.argv[1:])
