"""Training and testing whose outcome must not depend on the number of processes."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from generated import Generated, GeneratedClips
from small_network import small_classifier
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.nn import split_batch_norm

BATCH = 4  # clips on each of two processes
CLIPS = {"frozen": 28, "split": 24}  # the last batch of 28 has two clips on each of two processes
VIDEOS = (7, 9, 1)  # that are tested on
VIEWS = (10, 3)


class Validated(Generated):
    """With 7 clips to validate on, which two processes cannot share evenly."""

    def val_dataloader(self):
        return self._loader(GeneratedClips(7), self.eval_schedule, shuffle=False)


class Watch(pl.Callback):
    """Keeps the first step's gradients, each epoch's metrics, and the views that were tested."""

    def __init__(self, frozen=False):
        self.frozen = frozen
        self.gradients = {}
        self.metrics = []
        self.videos = []
        self.clips = []
        self.scores = None

    def on_train_start(self, trainer, module):  # noqa: ARG002
        module.train_loss.set_dtype(torch.float64)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):  # noqa: ARG002
        if self.frozen:
            for layer in module.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
        if trainer.global_step == 0:
            for name, parameter in module.named_parameters():
                self.gradients[name] = parameter.grad.clone()

    def on_train_epoch_end(self, trainer, module):  # noqa: ARG002
        self.metrics.append({k: v.clone() for k, v in trainer.callback_metrics.items()})

    def on_test_batch_start(self, trainer, module, batch, batch_idx):  # noqa: ARG002
        counted = batch["counted"]
        self.videos += batch["video"][counted].tolist()
        self.clips += batch["clip"][counted].double().flatten(1).sum(1).tolist()

    def on_test_epoch_end(self, trainer, module):  # noqa: ARG002
        self.scores = module.scores.mean_scores()

    def on_test_end(self, trainer, module):  # noqa: ARG002
        self.metrics.append(dict(trainer.callback_metrics))


def _trainer(folder, devices, watch):
    return pl.Trainer(
        accelerator="cpu",
        strategy="ddp" if devices > 1 else "auto",
        devices=devices,
        precision="64-true",
        max_epochs=2,
        callbacks=[watch],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _classifier(classes, lr=0.1):
    pl.seed_everything(7, verbose=False)
    steps = {"lr": lr, "lr_schedule": "step", "milestones": [1]}
    return small_classifier(classes, **steps)


def train(folder, case, devices):
    """Train for two epochs on batches of 8 clips, however many processes share them."""
    # what training amplifies of rounding errors grows with the rate
    model = _classifier(3, lr={"frozen": 0.05, "split": 0.002}[case])
    before = {name: value.detach().double() for name, value in model.named_parameters()}
    if case == "split" and devices == 1:
        # the statistics that two processes have
        split_batch_norm(model.model, BATCH)
    watch = Watch(frozen=case == "frozen")
    data = Validated(CLIPS[case], frames=4, crop=16, short_side=16, batch_size=2 * BATCH // devices)
    _trainer(folder, devices, watch).fit(model, data)
    steps = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    return {"gradients": watch.gradients, "way of weights": steps, "metrics": watch.metrics}


def test(folder, videos, devices, root):
    """Test with ten clips and three crops on some videos, whose lists are in the folder."""
    watch = Watch()
    data = UCF101DataModule(
        str(root),
        lists=str(Path(folder) / f"lists_{videos}"),
        frames=4,
        crop=32,
        short_side=36,
        batch_size=4,
        test_clips=VIEWS[0],
        test_crops=VIEWS[1],
        num_workers=0,
    )
    _trainer(folder, devices, watch).test(_classifier(6), data, verbose=False)
    return {
        "metrics": watch.metrics[-1],
        "scores": watch.scores,
        "videos": watch.videos,
        "clips": watch.clips,
    }


def run(folder, devices, root):
    """Train with frozen and with split batch norm and test on some of the videos below root."""
    results = {case: train(folder, case, devices) for case in CLIPS}
    return results | {videos: test(folder, videos, devices, root) for videos in VIDEOS}


def run_rank(folder, root):
    """Do so as one of two processes; FOLDER/rank<n>.pt tells what it saw."""
    results = run(folder, 2, root)
    torch.save(results, Path(folder) / f"rank{torch.distributed.get_rank()}.pt")
