"""Any module is a backbone: with a head, features, a modality, and back from its checkpoint."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from generated import CLASSES, Generated, quiet_trainer
from torch import nn

from vidpool.data.datamodule import MEAN, STD
from vidpool.data.views import normalize
from vidpool.errors import CheckpointError, ConfigError
from vidpool.inference.loading import load_classifier
from vidpool.nn import SoftPool2d, SoftPool3d
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4}


class Net(nn.Module):
    """A network of a user's own, which knows nothing of vidpool."""

    def __init__(self, classes=CLASSES, channels=3):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)
        )
        self.fc = nn.Linear(4, classes)

    def forward(self, clip):
        return self.fc(self.body(clip).mean((2, 3, 4)))


class Images(nn.Sequential):
    """The same for images."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(196, 5))


def clips(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_a_module_is_trained_and_loaded_again(tmp_path):
    classifier = VideoClassifier(Net(), CLASSES, lr=0.01, lr_schedule="constant", backbone_lr=0.1)
    assert isinstance(classifier.model.body[3], SoftPool3d)
    assert classifier.hparams.backbone == f"class:{Net.__module__}.Net"
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(classifier, Generated(8, **SMALL))
    groups = trainer.optimizers[0].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.001])
    assert groups[0]["param_names"] == ["fc.weight", "fc.bias"]
    path = tmp_path / "a.ckpt"
    trainer.save_checkpoint(path)

    loaded = VideoClassifier.load_from_checkpoint(path, network=Net()).eval()
    clip = clips(2, 3, 2, 16, 16)
    assert torch.equal(loaded(clip), classifier.eval()(clip))
    for load in (VideoClassifier.load_from_checkpoint, load_classifier):
        with pytest.raises(CheckpointError, match=r"\.Net, and .* as network=Net\(…\)") as caught:
            load(path)
        assert caught.value.argument == "network"
    again = VideoClassifier(Net(), CLASSES, lr_schedule="constant", backbone_lr=0.1)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(again, Generated(8, **SMALL), ckpt_path=path)
    assert trainer.global_step == 4


def test_features_are_what_enters_the_head():
    classifier = VideoClassifier(Net(), CLASSES).eval()
    clip = clips(2, 3, 2, 16, 16)
    expected = classifier.model.body(normalize(clip, MEAN, STD)).mean((2, 3, 4))
    assert torch.equal(classifier.features(clip), expected)


def test_a_first_convolution_in_2d_takes_images():
    classifier = VideoClassifier(Images(), 5)
    assert classifier.is_image_model
    assert isinstance(classifier.model[1], SoftPool2d)
    assert classifier(clips(2, 3, 1, 16, 16)).shape == (2, 5)
    with pytest.raises(ConfigError, match="takes images, not clips of 2 frames"):
        classifier(clips(2, 3, 2, 16, 16))


def test_the_backbone_is_frozen_by_name():
    classifier = VideoClassifier(Net(), CLASSES, freeze=["backbone"])
    assert classifier.frozen == ["body"]
    assert classifier.model.fc.weight.requires_grad


def test_learned_poolings_find_their_channels():
    classifier = VideoClassifier(Net(channels=2), CLASSES, pooling="lip", mean=(0, 0), std=(1, 1))
    assert classifier(clips(2, 2, 2, 16, 16)).shape == (2, CLASSES)


def test_multigrid_asks_nothing_of_a_module():
    classifier = VideoClassifier(Net(), CLASSES, lr_schedule="step", milestones=[1])
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=1, limit_val_batches=0)
    trainer.callbacks.append(Multigrid(long_cycle=False))
    trainer.fit(classifier, Generated(130))
    assert trainer.global_step == 2


@pytest.mark.parametrize(
    ("options", "message", "argument"),
    [
        ({"width": 8}, "width is an option of networks that are built by name.*Net", "width"),
        ({"backbone_options": {"gate": True}}, "gate is an option", "backbone_options"),
        ({"gradient_checkpointing": True}, "is an option", "gradient_checkpointing"),
        ({"num_classes": 7}, "Net has 3 logits for num_classes = 7", "num_classes"),
    ],
)
def test_options_that_a_module_does_not_have(options, message, argument):
    with pytest.raises(ConfigError, match=message) as caught:
        VideoClassifier(Net(), **{"num_classes": CLASSES} | options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("data", [Generated, "foreign"])
def test_classes_are_compared_with_the_data_whoever_made_the_two(data):
    made = Generated(8, **SMALL)
    if data == "foreign":
        import pytorch_lightning as pl

        class Foreign(pl.LightningDataModule):
            num_classes = 3

            def train_dataloader(self):
                return made.train_dataloader()

        made_by_user = Foreign()
    else:
        made_by_user = made
    name = type(made_by_user).__name__
    message = f"num_classes of the classifier is 5, but {name} has num_classes 3"
    with pytest.raises(ConfigError, match=message):
        quiet_trainer(max_epochs=1).fit(VideoClassifier("r3d_18", 5, width=2), made_by_user)
    if data != "foreign":
        with pytest.raises(ConfigError, match=message):
            quiet_trainer().validate(VideoClassifier("r3d_18", 5, width=2), made_by_user)


@pytest.mark.parametrize(
    ("backbone", "options", "message", "argument"),
    [
        (Net, {}, r"make an instance: Net\(…\)", "backbone"),
        (3, {}, "backbone must be the name of a network or a torch.nn.Module", "backbone"),
        ("r3d_81", {}, "did you mean", "backbone"),
        ("r3d_18", {"backbone_options": {"foo": 1}}, "foo", "backbone_options"),
        ("r3d_18", {"pooling": nn.MaxPool3d}, "register_pooling", "pooling"),
        ("r3d_18", {"freeze": "stem"}, r"list of names: \['stem'\]", "freeze"),
        ("r3d_18", {"lr_scheduler": 5}, "lr_scheduler must be a callable", "lr_scheduler"),
        ("r3d_18", {"lr_schedule": "cosin"}, "one of step, cosine, constant", "lr_schedule"),
    ],
)
def test_mistakes_name_their_argument(backbone, options, message, argument):
    with pytest.raises(ConfigError, match=message) as caught:
        VideoClassifier(backbone, num_classes=CLASSES, **options)
    assert caught.value.argument == argument


def test_numpy_values_are_taken():
    network = VideoClassifier(
        "r3d_18",
        num_classes=np.int64(3),
        width=2,
        lr_schedule="step",
        milestones=np.array([1.0, 2.0]),
    )
    assert network.hparams["milestones"] == [1.0, 2.0]
    assert type(network.hparams["num_classes"]) is int


class Named(pl.LightningDataModule):
    class_names = ("a", "b", "c", "d", "e", "f", "g", "h")

    def train_dataloader(self):
        return []


def test_classes_are_counted_by_their_names():
    with pytest.raises(ConfigError, match="but Named has num_classes 8"):
        quiet_trainer(max_epochs=1).fit(VideoClassifier("r3d_18", 3, width=2), Named())
