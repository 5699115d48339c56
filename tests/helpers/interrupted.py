"""A training that is stopped and resumed, as a function and as a script for two processes.

As a script: ``python interrupted.py FOLDER DEVICES SCHEDULE WORKERS`` trains without a stop, with
one, and from there on; files in FOLDER say what each rank saw and what the weights became.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from generated import Generated
from small_network import small_classifier

from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.callbacks.precise_batch_norm import PreciseBatchNorm

STOP_AT = {"constant": 13, "paper": 16, "original": 16}  # steps; none ends an epoch


class Watch(pl.Callback):
    """Keeps what was trained on; saves a checkpoint in the middle of a step or after it."""

    def __init__(self, stop_at=None, hook="on_train_batch_end", path=None):
        self.seen = []
        self.stop_at = stop_at
        self.hook = hook
        self.path = path

    def _maybe_stop(self, trainer, hook):
        if hook == self.hook and len(self.seen) == self.stop_at:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            self.stop_at = None

    def on_train_batch_start(self, trainer, _, batch, batch_idx):
        shape = tuple(batch["clip"].shape)
        videos = batch["video"].tolist()
        rate = trainer.optimizers[0].param_groups[0]["lr"] if batch_idx else None
        self.seen.append((trainer.current_epoch, batch_idx, shape, videos, rate))
        self.seen[-1] += (float(batch["clip"].double().sum()),)

    def on_before_backward(self, trainer, *_):
        self._maybe_stop(trainer, "on_before_backward")

    def on_train_batch_end(self, trainer, *_):
        self._maybe_stop(trainer, "on_train_batch_end")


def train(
    folder,
    schedule,
    *,
    workers=0,
    devices=1,
    stop_at=None,
    hook="on_train_batch_end",
    resume=None,
    data=None,
):
    """Train a small network for a few epochs, on generated clips if not on others.

    Returns the weights, what was seen, and the checkpoint's path if it was to be stopped.
    """
    pl.seed_everything(7, verbose=False)
    constant = schedule == "constant"
    if data is None:
        data = Generated(70 if constant else 130 * devices, batch_size=8 if constant else 2)
        data.num_workers = workers
        data.worker_start = "fork" if workers else None
    steps = {"lr_schedule": "step", "milestones": [2]}
    model = small_classifier(lr=0.01, dropout=0.5, **steps)
    watch = Watch(stop_at, hook, Path(folder) / "stopped.ckpt")
    callbacks = [watch]
    if not constant:
        callbacks += [Multigrid(schedule, sub_batch_norm=4), PreciseBatchNorm(2)]
    trainer = pl.Trainer(
        accelerator="cpu",
        strategy="ddp" if devices > 1 else "auto",
        devices=devices,
        max_epochs=3,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data, ckpt_path=resume)
    return model.state_dict(), watch.seen, watch.path


def main(folder, devices, schedule, workers):
    """Train in three ways and leave the results in the folder, by rank."""
    options = {"devices": int(devices), "workers": int(workers)}
    whole = train(folder, schedule, **options)
    stopped = train(folder, schedule, stop_at=STOP_AT[schedule], **options)
    resumed = train(folder, schedule, resume=stopped[2], **options)
    rank = torch.distributed.get_rank()
    results = {"whole": whole[:2], "stopped": stopped[:2], "resumed": resumed[:2]}
    torch.save(results, Path(folder) / f"rank{rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
