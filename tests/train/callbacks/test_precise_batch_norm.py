"""Batch norm's statistics before validation, beside those of all the clips at once."""

import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, GeneratedClips
from torch import nn

from vidpool.data.schedule import ConstantSchedule, ScheduledSampler
from vidpool.data.views import normalize
from vidpool.errors import ConfigError
from vidpool.train.callbacks.precise_batch_norm import PreciseBatchNorm, update_batch_norm
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_statistics_are_means_over_batches():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.BatchNorm3d(4), nn.Dropout())
    model.double().eval()
    frozen = model[2].state_dict() | {}
    batches = [torch.randn(6, 3, 2, 5, 5, dtype=torch.double) * k for k in (1, 2, 4)]
    update_batch_norm(model, [model[1]], batches)
    activations = [model[0](batch) for batch in batches]
    means = torch.stack([x.mean((0, 2, 3, 4)) for x in activations])
    variances = torch.stack([x.var((0, 2, 3, 4)) for x in activations])
    torch.testing.assert_close(model[1].running_mean, means.mean(0))
    torch.testing.assert_close(model[1].running_var, variances.mean(0))
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())
    for name, value in model[2].state_dict().items():
        assert torch.equal(value, frozen[name])


class Freeze(pl.Callback):
    """Keeps the first batch norm in evaluation mode."""

    def on_train_batch_start(self, trainer, module, *_):  # noqa: ARG002
        module.model.stem[1].eval()


class Keep(pl.Callback):
    """Keeps the statistics that validation sees."""

    def on_validation_batch_start(self, trainer, module, *_):
        if not trainer.sanity_checking:
            self.state = {name: value.clone() for name, value in module.state_dict().items()}


def test_before_validation_in_training(tmp_path):
    pl.seed_everything(5, verbose=False)
    module = VideoClassifier("r3d_18", 3, width=4, lr=0.01, lr_schedule="constant")
    data, keep = Generated(32, batch_size=6), Keep()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[Freeze(), PreciseBatchNorm(batches=9), keep],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    # by hand: five full batches; the sixth, of two clips, is left out
    dataset = GeneratedClips(32)
    sampler = ScheduledSampler(dataset, ConstantSchedule(data.preprocessing.shape, 6), seed=5)
    module.load_state_dict(keep.state)
    second = module.model.stem[1]
    inputs = [
        normalize(dataset[requests]["clip"], data.preprocessing.mean, data.preprocessing.std)
        for requests in list(sampler)[:5]
    ]
    module.eval()
    assert second.num_batches_tracked == 0  # frozen from the start
    assert torch.equal(second.running_mean, torch.zeros(4))
    name, layer = next(
        (name, layer)
        for name, layer in module.model.named_modules()
        if isinstance(layer, nn.BatchNorm3d) and name != "stem.1"
    )
    seen = []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        for clip in inputs:
            module(clip)
    assert layer.num_batches_tracked == 5, name
    torch.testing.assert_close(
        layer.running_mean, torch.stack([x.mean((0, 2, 3, 4)) for x in seen]).mean(0)
    )
    torch.testing.assert_close(
        layer.running_var, torch.stack([x.var((0, 2, 3, 4)) for x in seen]).mean(0)
    )


def test_no_batches():
    with pytest.raises(ConfigError, match="at least 1 batch, got 0"):
        PreciseBatchNorm(0)
