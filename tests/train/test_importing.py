"""What an import knows of its source beyond the weights."""

import pytest
import torch

from vidpool.errors import CheckpointError, ConfigError
from vidpool.models import create_model
from vidpool.nn import SoftPool3d
from vidpool.train.classifier import VideoClassifier
from vidpool.train.importing import import_checkpoint, save


@pytest.fixture
def authors(tmp_path):
    """A file as the SRTG authors save them, of five classes and width 4, and its network."""
    torch.manual_seed(0)
    model = create_model("r3d_18", num_classes=5, width=4)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    path = tmp_path / "r3d_ep-0007.pth"
    torch.save({"epoch": 7, "state_dict": state, "optimizer": {"state": {}}}, path)
    return model, path


def test_classes_are_counted_and_the_network_keeps_its_pooling(authors):
    imported = import_checkpoint(authors[1], "r3d_18", width=4)
    assert imported.classifier.hparams["num_classes"] == 5
    assert imported.classifier.hparams["pooling"] is None
    assert isinstance(imported.classifier.model.pool, torch.nn.MaxPool3d)
    assert imported.classifier.description["class_names"] == ["0", "1", "2", "3", "4"]
    assert not imported.named


def test_pooling_that_it_was_trained_with(authors):
    options = {"gradient": "paper"}
    imported = import_checkpoint(
        authors[1], "r3d_18", width=4, pooling="soft", pooling_options=options
    )
    assert isinstance(imported.classifier.model.pool, SoftPool3d)
    assert imported.classifier.hparams["pooling_options"] == options


@torch.no_grad()
def test_the_authors_network_sees_what_it_was_trained_on(authors):
    model, path = authors
    imported = import_checkpoint(path, "r3d_18", width=4, bgr=True)
    assert imported.origin == "of the SRTG authors"
    described = imported.classifier.description["preprocessing"]
    pixels = torch.rand(2, 3, 4, 32, 32)

    def normalised(clip, mean, std):
        return (clip - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(3, 1, 1, 1)

    # they subtracted means in the order red, green, blue from frames in the opposite order
    mean, std = [124 / 255, 117 / 255, 104 / 255], [0.2348] * 3
    expected = model.eval()(normalised(pixels.flip(1), mean, std))
    ours = normalised(pixels, described["mean"], described["std"])
    torch.testing.assert_close(imported.classifier.eval()(ours), expected)


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("i3d", 4, {"frames": 64, "stride": 1, "mean": [0.5] * 3, "std": [0.5] * 3}),
        ("r2plus1d_18", 4, {"frames": 16, "crop": 224, "short_side": 256}),
        (
            "torchvision/r3d_18",
            None,
            {"crop": 112, "short_side": 128, "mean": [0.43216, 0.394666, 0.37645]},
        ),
        ("pytorchvideo/x3d_s", None, {"frames": 13, "stride": 6, "crop": 160, "std": [0.225] * 3}),
    ],
)
def test_usual_preprocessing_of_a_plain_file(name, width, expected, tmp_path):
    options = {} if width is None else {"width": width}
    torch.save(create_model(name, num_classes=3, **options).state_dict(), tmp_path / "a.pth")
    imported = import_checkpoint(
        tmp_path / "a.pth", name, width=width, preprocessing={"clips": 2, "crops": 1}
    )
    described = imported.classifier.description["preprocessing"]
    expected = {"clips": 2, "crops": 1, **expected}
    assert {key: described[key] for key in expected} == expected


def test_inflated_weights_are_given_pictures_as_in_imagenet(tmp_path):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    imported = import_checkpoint(tmp_path / "resnet18.pth", "r3d_18", inflate=True)
    assert imported.classifier.hparams["num_classes"] == 1000
    assert imported.classifier.description["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    fresh = import_checkpoint(tmp_path / "resnet18.pth", "r3d_18", inflate=True, num_classes=4)
    assert fresh.report.fresh_classifier == ("fc.bias", "fc.weight")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"class_names": ["a", "b"], "num_classes": 5}, ConfigError, "2 names for 5 classes"),
        ({"preprocessing": {"crop": 300}}, ConfigError, "must not be below the crop"),
        ({"pooling": "hip"}, ConfigError, "unknown pooling 'hip'"),
        ({"width": 8}, CheckpointError, "does not fit"),
        ({"backbone": "i3d"}, CheckpointError, "has no classifier of i3d"),
        ({"backbone": "i3d", "num_classes": 5}, CheckpointError, "does not fit"),
        ({"backbone": "r3d"}, ConfigError, "unknown model 'r3d'"),
    ],
)
def test_mistakes(authors, options, error, message):
    arguments = {"backbone": "r3d_18", "width": 4} | options
    with pytest.raises(error, match=message):
        import_checkpoint(authors[1], **arguments)


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".safetensors"])
def test_what_is_saved_is_imported_again(authors, tmp_path, suffix):
    names = list("vwxyz")
    first = import_checkpoint(authors[1], "r3d_18", width=4, pooling="soft", class_names=names)
    out = tmp_path / f"out{suffix}"
    save(first.classifier, out)
    given = {} if suffix == ".ckpt" else {"width": 4, "pooling": "soft"}
    again = import_checkpoint(out, "r3d_18", **given)
    for key, value in first.classifier.state_dict().items():
        assert torch.equal(again.classifier.state_dict()[key], value), key
    assert isinstance(again.classifier.model.pool, SoftPool3d)
    if suffix == ".ckpt":
        assert again.classifier.description == first.classifier.description
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([authors[1].name, out.name])


def test_lightning_loads_what_is_saved(authors, tmp_path):
    first = import_checkpoint(authors[1], "r3d_18", width=4, class_names=list("vwxyz"))
    save(first.classifier, tmp_path / "out.ckpt")
    loaded = VideoClassifier.load_from_checkpoint(tmp_path / "out.ckpt")
    assert loaded.description == first.classifier.description
    assert torch.equal(loaded.model.fc.weight, authors[0].fc.weight)


def test_files_are_kept(authors, tmp_path):
    classifier = import_checkpoint(authors[1], "r3d_18", width=4).classifier
    (tmp_path / "out.pth").write_text("mine")
    for out, message in {
        "out.pth": "give --overwrite",
        "out.npz": "must end in one of .ckpt",
        "none/out.pth": "no such folder",
    }.items():
        with pytest.raises(ConfigError, match=message):
            save(classifier, tmp_path / out)
    assert (tmp_path / "out.pth").read_text() == "mine"
    save(classifier, tmp_path / "out.pth", overwrite=True)
    assert (
        torch.load(tmp_path / "out.pth", weights_only=True).keys() == authors[0].state_dict().keys()
    )


def test_vidpools_own_checkpoint_keeps_its_networks_options(tmp_path):
    options = {"gate": True}
    saved = VideoClassifier(
        "srtg_r3d_18",
        num_classes=3,
        width=4,
        backbone_options=options,
        pooling_options={"gradient": "paper"},
    )
    saved.description = None
    save(saved, tmp_path / "a.ckpt")
    again = import_checkpoint(tmp_path / "a.ckpt", "srtg_r3d_18").classifier
    assert again.hparams["backbone_options"] == options
    assert again.model.pool.gradient == "paper"
    # the options of the pooling are not those of another
    other = import_checkpoint(tmp_path / "a.ckpt", "srtg_r3d_18", pooling="sum").classifier
    assert other.hparams["pooling_options"] is None


def test_options_of_no_pooling_are_an_error(authors):
    with pytest.raises(ConfigError, match=r"geometry.*need a pooling"):
        import_checkpoint(authors[1], "r3d_18", width=4, pooling_options={"geometry": "authors"})
