"""``vidpool show saliency | activations | embedding``: on a trained network and real videos."""

import csv
import json
from pathlib import Path

import av
import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from torchvision.models import resnet18

from vidpool.cli import main
from vidpool.inference.loading import load_classifier


@pytest.fixture
def checkpoint(trained):
    return str(trained / "checkpoints/last.ckpt")


@pytest.fixture
def video(colours):
    return str(colours / "Red/v_Red_g02_c01.mp4")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A checkpoint of an image network of two classes, and the pictures that it is of."""
    root = tmp_path_factory.mktemp("pictures")
    for label, colour in (("n0", (220, 20, 20)), ("n1", (20, 20, 220))):
        for split in ("train", "val"):
            (root / split / label).mkdir(parents=True)
            for number in range(3):
                picture = Image.new("RGB", (80 + number, 72), colour)
                picture.save(root / split / label / f"{number}.JPEG")
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=2).state_dict(), root / "weights.pth")
    (root / "names.txt").write_text("n0\nn1\n")
    command = ["import", str(root / "weights.pth"), "--model", "torchvision/resnet18"]
    command += ["--classes", str(root / "names.txt"), "--output", str(root / "net.ckpt")]
    assert main(command) == 0
    return root


def frames_of(path):
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def results_of(path):
    content = json.loads(Path(path).read_text())
    assert content["vidpool"]
    assert content["command"].startswith("vidpool show ")
    return content["results"]


def test_saliency(checkpoint, video, capsys):
    assert main(["show", "saliency", checkpoint, video]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Red: ")
    assert all(f"wrote saliency.{suffix}" in told for suffix in ("json", "png", "mp4"))
    found = results_of("saliency.json")
    assert found["class"] == found["predicted"] == "Red"
    assert found["frames"] == [6, 8, 10, 12]  # the middle of 20 frames
    # clips of 32 pixels have one place left in layer4
    assert [each["layer"] for each in found["saliency"]] == 2 * ["layer3", "layer2", "layer1"]
    assert [each["method"] for each in found["saliency"]] == 3 * ["pyramid"] + 3 * ["gradcam"]
    assert all(each["kernels"] for each in found["saliency"][:3])
    assert imread("saliency.png").std() > 0.05
    shown = frames_of("saliency.mp4")
    assert len(shown) == 4
    assert shown[0].shape == (2 * 192, 4 * 192, 3)


def test_saliency_of_another_class_layer_and_method(checkpoint, video, capsys):
    command = ["show", "saliency", checkpoint, video, "--class", "Blue", "--output", "blue.png"]
    command += ["--layer", "layer2", "--depth", "1", "--method", "gradcam"]
    assert main(command) == 0
    assert "(predicted: Red" in capsys.readouterr().out
    found = results_of("blue.json")
    assert (found["class"], found["predicted"]) == ("Blue", "Red")
    assert [each["layer"] for each in found["saliency"]] == ["layer2"]
    assert main(command) == 1
    assert "blue.png exists; give --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_activations_by_weight(checkpoint, capsys):
    assert main(["show", "activations", checkpoint, "--iterations", "10"]) == 0
    told = capsys.readouterr().out
    assert "wrote activations.mp4" in told
    found = results_of("activations.json")
    assert found["kernels by"] == "weights"
    assert found["layer"] == "layer3"
    assert [each["class"] for each in found["classes"]] == ["Red", "Green", "Blue", "White"]
    for each in found["classes"]:
        assert each["activation after"] > each["activation before"]
    assert frames_of("activations.mp4")[0].shape == (192, 4 * 192, 3)


def test_activations_of_no_side(checkpoint, capsys):
    assert main(["show", "activations", checkpoint, "--iterations", "1", "--side", "0"]) == 1
    assert "iterations and side must be at least 1, got 1 and 0" in capsys.readouterr().err


def test_activations_by_examples(checkpoint, recipe):
    command = ["show", "activations", checkpoint, "--config", str(recipe), "--iterations", "3"]
    command += ["--class", "Blue", "--class", "Red", "--side", "48", "--output", "a.png"]
    assert main(command) == 0
    found = results_of("a.json")
    assert found["kernels by"] == "examples"
    assert found["settings"] == {
        "iterations": 3,
        "side": 48,
        "lr": 0.1,
        "last_lr": 0.01,
        "weight_decay": 1e-6,
        "blur": 1.0,
        "shift": 3,
        "seed": 0,
    }
    assert len(found["classes"]) == 2
    shown = frames_of("a.mp4")[0]
    assert shown.shape == (2 * 192, 2 * 192, 3)
    example = shown[40:150, 40:150].mean((0, 1))
    assert example[2] > 100 > example[0]  # blue


def test_the_papers_settings_are_taken(checkpoint):
    command = ["show", "activations", checkpoint, "--paper", "--iterations", "1", "--side", "32"]
    assert main([*command, "--class", "Red"]) == 0
    settings = results_of("activations.json")["settings"]
    assert (settings["blur"], settings["shift"], settings["iterations"]) == (0, 0, 1)


def test_embedding(checkpoint, recipe, colours, capsys):
    command = ["show", "embedding", checkpoint, "--config", str(recipe), "--clusters", "6"]
    assert main(command) == 0
    assert "12 videos: PCA kept" in capsys.readouterr().out
    found = results_of("embedding.json")
    assert found["videos"] == 12
    # videos of one colour lie together
    assert found["silhouette"] > 0.3
    assert sum(cluster["videos"] for cluster in found["clusters"]) == 12
    assert imread("embedding.png").std() > 0.05
    with Path("embedding.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert all(row["file"].startswith(f"{colours}/{row['class']}/") for row in rows)


def test_the_embeddings_features_are_those_of_the_classifier(checkpoint, recipe):
    from vidpool.analysis.embedding import video_features
    from vidpool.analysis.examples import choose_videos
    from vidpool.cli.configs import make_datamodule

    classifier, names, preprocessing = load_classifier(checkpoint)
    datamodule = make_datamodule("show embedding", ["--config", str(recipe)])
    videos = choose_videos(datamodule, "val", [names.index("Red"), names.index("Blue")], 3, seed=1)
    assert len(videos) == 3
    assert set(videos.label.tolist()) <= {names.index("Red"), names.index("Blue")}
    assert [v.path for v in videos] == [
        v.path for v in choose_videos(datamodule, "val", [0, 2], 3, seed=1)
    ]
    videos = choose_videos(datamodule, "val")
    found = video_features(classifier, preprocessing, datamodule, videos)
    logits = classifier.model.fc(found.features)
    assert (logits.argmax(1) == found.label).float().mean() > 0.8


def test_videos_that_cannot_be_read_are_left_out_and_told(
    checkpoint, recipe, colours, tmp_path, capsys
):
    import shutil

    root = shutil.copytree(colours, tmp_path / "colours")
    (root / "Red/v_Red_g01_c01.avi").write_text("no video")
    command = ["show", "embedding", checkpoint, "--config", str(recipe), "--data.root", str(root)]
    assert main(command) == 1
    assert "v_Red_g01_c01.avi: is not a video" in capsys.readouterr().err
    assert main([*command, "--data.on_bad_video", "skip"]) == 0
    told = capsys.readouterr().out
    assert "1 videos could not be read, such as" in told
    assert "11 videos: PCA kept" in told
    assert len(results_of("embedding.json")["bad videos"]) == 1


@pytest.mark.slow
def test_networks_that_take_pictures(pictures, capsys):
    checkpoint, picture = str(pictures / "net.ckpt"), str(pictures / "val/n1/0.JPEG")
    data = ["--data", "vidpool.data.datasets.image_folder.ImageFolderDataModule"]
    data += ["--data.root", str(pictures), "--data.num_workers", "0"]
    assert main(["show", "saliency", checkpoint, picture, "--depth", "2"]) == 0
    assert [each["layer"] for each in results_of("saliency.json")["saliency"]] == [
        "layer4",
        "layer3",
        "layer4",
        "layer3",
    ]
    command = ["show", "activations", checkpoint, "--iterations", "2", "--side", "64"]
    assert main([*command, *data]) == 0
    assert results_of("activations.json")["kernels by"] == "examples"
    assert main(["show", "embedding", checkpoint, *data]) == 0
    assert results_of("embedding.json")["features"] == 512
    assert "mp4" not in capsys.readouterr().out
    assert not list(Path().glob("*.mp4"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--class", "Reed"], "has no class 'Reed', but 6 others, such as Red"),
        (["--layer", "layer9"], "layer 'layer9' is not in this network; did you mean"),
        (["--depth", "0"], "--depth must be at least 1, got 0"),
        (["--threshold", "nan"], "--threshold must lie within [0, 1], got nan"),
        (["--device", "tpu9"], "device 'tpu9' cannot be used"),
        (["--output", "a.pdf"], "a.pdf: --output must end in .png"),
    ],
)
def test_mistakes_of_saliency_are_told(checkpoint, video, capsys, options, told):
    assert main(["show", "saliency", checkpoint, video, *options]) == 1
    assert told in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["saliency", "CKPT", "none.mp4"], "none.mp4: no such file"),
        (["saliency", "none.ckpt", "none.mp4"], "none.ckpt"),
        (["activations", "CKPT", "--class", "Pink"], "has no class 'Pink'"),
        (["activations", "CKPT", "--iterations", "0"], "iterations and side must be at least 1"),
        (["activations", "CKPT", "--side", "-1"], "iterations and side must be at least 1"),
        (["activations", "CKPT", "--lr", "0"], "rates must be above 0"),
        (["activations", "CKPT", "--data.root", "x"], "needs --config FILE"),
        (["embedding", "CKPT"], "needs --config FILE"),
        (["embedding", "CKPT", "--config", "none.yaml"], "none.yaml: no such config file"),
        (
            ["embedding", "CKPT", "--config", "RECIPE", "--limit", "0"],
            "--limit must be at least 1",
        ),
        (["embedding", "CKPT", "--config", "RECIPE", "--limit", "3"], "an embedding needs 5"),
        (["embedding", "CKPT", "--config", "RECIPE", "--class", "Pink"], "no class 'Pink'"),
        (["embedding", "CKPT", "--config", "RECIPE", "--output", "none/a.png"], "no such folder"),
    ],
)
def test_mistakes_are_told(checkpoint, recipe, capsys, command, told):
    given = {"CKPT": checkpoint, "RECIPE": str(recipe)}
    assert main(["show", *(given.get(part, part) for part in command)]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("what", ["saliency", "activations", "embedding"])
def test_help_has_an_example(capsys, what):
    with pytest.raises(SystemExit) as end:
        main(["show", what, "--help"])
    assert end.value.code == 0
    assert f"example: vidpool show {what} " in capsys.readouterr().out
