"""The classifier normalizes uint8 clips, however they are fed to it."""

import warnings

import pytest
import pytorch_lightning as pl
import torch
from generated import CLASSES, Generated, quiet_trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from vidpool.data import VideoFolderDataModule, example_dataset
from vidpool.data.datamodule import MEAN, STD
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import normalize
from vidpool.errors import ConfigError
from vidpool.train.batches import as_dict, prepare
from vidpool.train.classifier import VideoClassifier

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4}
GREY = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def classifier(num_classes=CLASSES, **options):
    torch.manual_seed(0)
    return VideoClassifier("r3d_18", num_classes, width=2, lr_schedule="constant", **options)


def clips(count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, 2, 16, 16), generator=generator, dtype=torch.uint8)


def test_uint8_clips_are_normalized_in_forward_and_features():
    network = classifier(**GREY).eval()
    normalized = normalize(clips(), **GREY)
    assert torch.equal(network(clips()), network(normalized))
    assert torch.equal(network.features(clips()), network.features(normalized))
    assert not torch.equal(network(clips()), classifier().eval()(clips()))


def test_mean_and_std_are_plain_values_that_half_precision_does_not_round():
    network = classifier().eval()
    network.to(torch.bfloat16)
    assert (network.mean, network.std) == (MEAN, STD)
    seen = []
    network.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(clips())
    assert torch.equal(seen[0], normalize(clips(), MEAN, STD).bfloat16())


def test_the_mean_loss_is_float32_in_half_precision(bfloat16_convolutions):  # noqa: ARG001
    network = classifier()
    trainer = quiet_trainer(max_epochs=1, precision="bf16-true", limit_val_batches=0)
    trainer.fit(network, Generated(8, **SMALL))
    assert network.train_loss.mean_value.dtype == torch.float32
    assert next(network.parameters()).dtype == torch.bfloat16


def test_every_way_of_feeding_gives_the_same_loss():
    pl.seed_everything(0, verbose=False)  # generated clips depend on it
    network, trainer = classifier(lr=1e-3), quiet_trainer(max_epochs=1)
    trainer.fit(network, datamodule=Generated(8, **SMALL, **GREY))
    assert (network.mean, network.std) == (GREY["mean"], GREY["std"])

    def loss(**options):
        found = quiet_trainer().validate(network, verbose=False, **options)
        return found[0]["val/loss"]

    right = loss(datamodule=Generated(8, **SMALL, **GREY))
    loader = Generated(8, **SMALL, **GREY).val_dataloader()
    assert loss(dataloaders=loader) == pytest.approx(right)
    pairs = [(batch["clip"], batch["label"]) for batch in loader]
    assert loss(dataloaders=DataLoader(pairs, batch_size=None)) == pytest.approx(right)
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(clip).softmax(1) for clip, _ in pairs])
    labels = torch.cat([label for _, label in pairs])
    by_hand = -scores[range(len(labels)), labels].log().mean()
    assert float(by_hand) == pytest.approx(right, rel=1e-5)


def test_a_training_step_without_a_trainer_takes_pairs():
    network = classifier().eval()
    label = torch.tensor([0, 2])
    expected = F.cross_entropy(network(normalize(clips(), MEAN, STD)), label)
    assert torch.equal(network.training_step((clips(), label), 0), expected)
    assert torch.equal(network.training_step({"clip": clips(), "label": label}, 0), expected)


def test_floats_in_0_to_1_are_warned_of_once():
    network = classifier().eval()
    with pytest.warns(UserWarning, match=r"lie in \[0, 1\]: they are taken as normalized"):
        scaled = network(clips().float() / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(network(clips().float() / 255), scaled)
        classifier().eval()(normalize(clips(), MEAN, STD))


def test_other_clips_are_refused():
    with pytest.raises(ConfigError, match=r"must be uint8, or normalized floats, but are .*int64"):
        classifier()(clips().long())
    with pytest.raises(
        ConfigError, match=r"shape \(N, 3, T, H, W\).* but have \(2, 4, 2, 16, 16\)"
    ):
        classifier()(torch.zeros(2, 4, 2, 16, 16, dtype=torch.uint8))


def test_given_values_must_be_those_of_the_data():
    with pytest.raises(ConfigError, match=r"in the classifier, and .* in the data") as caught:
        quiet_trainer(max_epochs=1).fit(classifier(**GREY), Generated(8, **SMALL))
    assert caught.value.argument == "mean"
    with pytest.raises(ConfigError, match="mean is given without std"):
        classifier(mean=(0.5, 0.5, 0.5))
    with pytest.raises(ConfigError, match="std positive ones"):
        classifier(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.0))


def test_a_training_loader_without_its_datamodule_brings_its_values():
    size = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4, "num_workers": 0}
    data = VideoFolderDataModule(str(example_dataset()), **size, **GREY)
    network = classifier(num_classes=2)
    quiet_trainer(max_epochs=1, limit_train_batches=1).fit(network, data.train_dataloader())
    assert (network.mean, network.std) == (GREY["mean"], GREY["std"])
    other = classifier(num_classes=2, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2))
    with pytest.raises(ConfigError, match=r"in the classifier, and .* in the data"):
        quiet_trainer(max_epochs=1).fit(other, data.train_dataloader())


def test_loaded_values_must_be_those_of_the_data(tmp_path):
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(classifier(), Generated(8, **SMALL, **GREY))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = VideoClassifier.load_from_checkpoint(tmp_path / "a.ckpt")
    assert (loaded.mean, loaded.std) == (GREY["mean"], GREY["std"])
    for verb in ("fit", "validate"):
        with pytest.raises(ConfigError, match=r"in the checkpoint|in the data"):
            getattr(quiet_trainer(max_epochs=2), verb)(
                classifier(), datamodule=Generated(8, **SMALL), ckpt_path=tmp_path / "a.ckpt"
            )


def test_change_normalize_and_mix_on_the_device():
    augment = Augmentation(brightness=0.5, mixup=1.0, on_device=True)
    batch = {
        "clip": clips(4),
        "label": torch.tensor([0, 1, 2, 0]),
        "seed": [5, 6, 7, 8],
        "augment": augment,
    }
    network = classifier(**GREY)
    found = network.on_after_batch_transfer(batch, 0)
    changed = torch.stack(
        [
            augment.change(clip, seed)
            for clip, seed in zip(clips(4).transpose(1, 2), batch["seed"], strict=True)
        ]
    ).transpose(1, 2)
    expected, target = augment.mix(
        normalize(changed, **GREY), batch["label"], CLASSES, batch["seed"]
    )
    assert torch.equal(found["clip"], expected)
    assert torch.equal(found["target"], target)
    assert torch.equal(found["label"], target.argmax(1))
    again = network.prepare(found)
    assert torch.equal(again["clip"], expected)


@pytest.mark.parametrize("batch", [{"x": torch.zeros(2)}, "clip", 3, [1, 2, 3]])
def test_what_is_no_batch_is_refused(batch):
    with pytest.raises(ConfigError, match="a batch must be a dict with 'clip' and 'label'"):
        as_dict(batch)


def test_a_batch_of_vidpools_keeps_its_other_entries():
    dataset = Generated(8, **SMALL).train_dataloader().dataset
    shape = Generated(8, **SMALL).preprocessing.shape
    batch = dataset[[ClipRequest(3, shape, 1), ClipRequest(4, shape, 2)]]
    found = prepare(batch, MEAN, STD, CLASSES)
    assert found.keys() == batch.keys()
    assert batch["clip"].dtype == torch.uint8
