import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from vidpool.errors import ConfigError
from vidpool.nn import SoftPool3d
from vidpool.train.classifier import VideoClassifier


def classifier(**options):
    return VideoClassifier("r3d_18", num_classes=6, width=4, **options)


def test_pooling_is_swapped_or_kept():
    soft = classifier(pooling_options={"gradient": "paper"})
    assert isinstance(soft.model.pool, SoftPool3d)
    assert soft.model.pool.gradient == "paper"
    assert isinstance(classifier(pooling=None).model.pool, torch.nn.MaxPool3d)


def test_memory_format_changes_nothing_but_speed():
    torch.manual_seed(0)
    first = classifier().eval()
    second = classifier(channels_last=True).eval()
    second.load_state_dict(first.state_dict())
    assert second.model.stem[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    clip = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(first(clip), second(clip), rtol=1e-4, atol=1e-5)


def test_state_dict_holds_the_network_alone():
    assert all(key.startswith("model.") for key in classifier().state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "lr must be positive, got -1"),
        ({"momentum": 1.0}, r"within \[0, 1\)"),
        ({"weight_decay": -1}, "must not be negative"),
        ({"warmup_epochs": -1}, "warmup_epochs must not be negative, got -1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must lie within \[0, 1\), got 1"),
        ({"dropout": 1.5}, "dropout"),
        ({"pooling": "hip"}, "unknown pooling 'hip'"),
        ({"pooling": None, "pooling_options": {"gradient": "paper"}}, "need a pooling"),
        ({"backbone_options": {"width": 8}}, "give width as width"),
        ({"backbone_options": {"in_channels": "3"}}, "in_channels must be a whole number.* '3'"),
        ({"backbone_options": {"gradient_checkpointing": True}}, "as gradient_checkpointing"),
    ],
)
def test_values_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        classifier(**options)


def test_any_video_network_with_any_pooling():
    clip = torch.randn(2, 4, 4, 32, 32)
    options = {"in_channels": 4, "gate": True}
    network = VideoClassifier(
        "srtg_r3d_18",
        num_classes=5,
        width=4,
        backbone_options=options,
        pooling="lip",
        gradient_checkpointing=True,
    )
    assert network(clip).shape == (2, 5)
    assert network.model.gradient_checkpointing
    with pytest.raises(
        ConfigError, match=r"torchvision/r3d_18.*pooling=None keeps the network's own"
    ):
        VideoClassifier("torchvision/r3d_18", num_classes=5)
    plain = VideoClassifier("torchvision/r3d_18", num_classes=5, pooling=None)
    assert plain(clip[:, :3]).shape == (2, 5)
    pictures = VideoClassifier("torchvision/resnet18", num_classes=5)
    assert pictures(clip[:, :3, :1]).shape == (2, 5)
    with pytest.raises(ConfigError, match="takes images, not clips of"):
        pictures(clip[:, :3])


def test_mixed_clips_are_trained_towards_the_shares_of_their_classes(monkeypatch):
    network = classifier(label_smoothing=0.1)
    monkeypatch.setattr(network, "log", lambda *_, **__: None)
    monkeypatch.setattr(network, "log_dict", lambda *_, **__: None)
    logits = torch.randn(3, 6)
    monkeypatch.setattr(network, "forward", lambda _: logits)
    target = torch.tensor([[0.7, 0.3, 0, 0, 0, 0], [0, 0, 0, 0, 0.4, 0.6], [0, 0, 1.0, 0, 0, 0]])
    batch = {"clip": torch.zeros(3), "label": target.argmax(1), "requested": 3, "bad": []}
    smoothed = 0.9 * target.double() + 0.1 / 6
    expected = -(smoothed * logits.double().log_softmax(1)).sum(1).mean()
    loss = network.training_step({**batch, "target": target}, 0)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(network.training_step(batch, 0)) != pytest.approx(float(expected), rel=1e-5)
    top1 = network.train_accuracies.compute()["train/top1"]
    assert float(top1) == pytest.approx(
        float((logits.argmax(1) == target.argmax(1)).float().mean())
    )


def test_trains_from_a_loader_of_clips_and_labels():
    class Rates(pl.Callback):
        values = ()

        def on_before_optimizer_step(self, trainer, *_):
            self.values += (trainer.optimizers[0].param_groups[0]["lr"],)

    clips = [{"clip": torch.randn(3, 4, 16, 16), "label": torch.tensor(i % 6)} for i in range(8)]
    rates = Rates()
    pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[rates],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(classifier(lr=0.1, lr_schedule="cosine"), DataLoader(clips, batch_size=4))
    assert rates.values == pytest.approx([0.1, 0.085355, 0.05, 0.014645], rel=1e-4)
