"""The predictor: what it takes, what it returns, and that all ways in give the same."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint
from numbered_video import picture, write_video

from vidpool.data import VideoFolderDataModule, example_dataset
from vidpool.data.views import Preprocessing, normalize, views_of
from vidpool.errors import CheckpointError, ConfigError, VideoError
from vidpool.inference import loading
from vidpool.inference.export import export
from vidpool.inference.loading import load_classifier, restore_classifier
from vidpool.inference.predictor import Prediction, Predictor
from vidpool.models.weights import load_checkpoint
from vidpool.train import VideoClassifier, make_trainer
from vidpool.video import open_video
from vidpool.video.image_video import TensorVideo

COUNT = 30
SHARED = Path(__file__).parents[2].parent / "shared" / "videos"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of r3d_18 at width 4, for clips of 4 x 32 x 32; frames are scaled to 36."""
    return make_checkpoint(tmp_path_factory.mktemp("narrow") / "r3d.ckpt", "r3d_18", width=4)


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return Predictor(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A numbered video of 112 x 64 pixels."""
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", COUNT)


def test_a_prediction_of_a_file(checkpoint, predictor, video):
    found = predictor(video)
    assert (found.path, found.error) == (video, None)
    assert found.class_names == predictor.class_names == list("abcdef")
    assert found.probabilities.dtype == torch.float32
    assert found.probabilities.shape == (6,)
    assert found.probabilities.sum() == pytest.approx(1)
    classifier, names, preprocessing = load_classifier(checkpoint)
    assert predictor.preprocessing == preprocessing
    with open_video(video) as opened:
        views = views_of(opened, preprocessing)
    assert len(views) == 2
    with torch.no_grad():
        clips = normalize(views, preprocessing.mean, preprocessing.std)
        expected = classifier(clips).softmax(1).mean(0)
        features = classifier.features(clips).mean(0)
    assert torch.allclose(found.probabilities, expected, atol=1e-6)
    assert torch.allclose(predictor.features(video), features, atol=1e-6)
    ranked = found.top(6)
    assert [name for name, _ in ranked] == [names[i] for i in expected.argsort(descending=True)]
    assert ranked == sorted(ranked, key=lambda each: -each[1])
    assert found.top() == ranked[:5]
    assert found.top(99) == ranked
    assert found.top(1) == [(ranked[0][0], pytest.approx(float(expected.max()), abs=1e-6))]
    with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
        found.top(0)


def test_clips_and_crops(checkpoint, video):
    predictor = Predictor(checkpoint, clips=1, crops=3)
    assert (predictor.preprocessing.clips, predictor.preprocessing.crops) == (1, 3)
    with open_video(video) as opened:
        assert len(views_of(opened, predictor.preprocessing)) == 3
    assert predictor(video).error is None
    with pytest.raises(ConfigError, match="1 or 3 crops, got crops=2"):
        Predictor(checkpoint, crops=2)


def test_open_videos_stay_open(predictor, video):
    expected = predictor(video)
    with open_video(video) as opened:
        for _ in range(2):
            found = predictor(opened)
            assert found.path == video
            assert torch.equal(found.probabilities, expected.probabilities)
        assert torch.equal(predictor.features(opened), predictor.features(video))
    with pytest.raises(ValueError, match="closed"):
        predictor(opened)


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        # without loss, scaled or not; 36 is the short side that the network takes
        ("rgb.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "b_frames": 0}, (112, 64)),
        ("rgb.mkv", {"codec": "ffv1", "pix_fmt": "bgr0", "b_frames": 0}, (36, 50)),
        ("yuv.mp4", {}, (64, 36)),
    ],
)
def test_frames_in_memory_give_what_their_file_gives(predictor, tmp_path, name, options, size):
    path = write_video(tmp_path / name, COUNT, size=size, **options)
    expected = predictor(path)
    with open_video(path) as opened:
        frames = opened[:]
        views = views_of(opened, predictor.preprocessing)
    assert torch.equal(views_of(TensorVideo(frames), predictor.preprocessing), views)
    channels_last = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    for given in (frames, frames.numpy(), channels_last, channels_last.numpy()):
        found = predictor(given)
        assert (found.path, found.error) == (None, None)
        assert torch.equal(found.probabilities, expected.probabilities)
    assert torch.equal(predictor.features(frames), predictor.features(path))


def test_frames_in_memory_of_a_file_whose_colour_is_subsampled(predictor, video):
    """The decoder scales colour and brightness in one step, and frames are scaled as RGB."""
    with open_video(video) as opened:
        frames, views = opened[:], views_of(opened, predictor.preprocessing)
    difference = views_of(TensorVideo(frames), predictor.preprocessing).float() - views.float()
    assert difference.abs().mean() < 1.5
    assert torch.allclose(
        predictor(frames).probabilities, predictor(video).probabilities, atol=0.02
    )


def test_frames_in_memory_of_a_real_video(predictor):
    path = SHARED / "real_ucf_style.avi"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with open_video(path) as opened:
        frames = opened[:]
    expected = predictor(path).probabilities
    assert torch.allclose(predictor(frames).probabilities, expected, atol=0.02)


def test_lists(predictor, video, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video\n" * 9)
    frames = torch.stack([torch.from_numpy(picture(i, 112, 64)) for i in range(9)])
    frames = frames.permute(0, 3, 1, 2)
    with open_video(video) as opened:
        found = predictor([str(video), tmp_path / "text.mp4", opened, frames, "gone.mp4"])
    good, bad, again, memory, gone = found
    assert torch.equal(good.probabilities, predictor(video).probabilities)
    assert torch.equal(good.probabilities, again.probabilities)
    assert torch.equal(memory.probabilities, predictor(frames).probabilities)
    assert bad.probabilities is None
    assert bad.error.startswith(f"{tmp_path / 'text.mp4'}: ")
    assert bad.top(5) == []
    assert gone.error == "gone.mp4: no such file"
    assert predictor([]) == []
    assert len(predictor((video,))) == 1


def test_a_video_that_cannot_be_read(predictor, tmp_path):
    (tmp_path / "empty.mp4").touch()
    for path, reason in (
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path / "empty.mp4", "is empty"),
        (tmp_path, "is a folder"),
    ):
        found = predictor(path)
        assert found.path == path
        assert reason in found.error
        with pytest.raises(VideoError, match=reason):
            predictor.features(path)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "a video is a path, .* not int"),
        (None, TypeError, "not NoneType"),
        (b"a.mp4", TypeError, "not bytes"),
        (["a.mp4", 3], TypeError, "not int"),
        (torch.zeros(4, 3, 48, 48), TypeError, "uint8 .* not torch.float32"),
        (np.zeros((4, 3, 48, 48)), TypeError, "uint8 .* not float64"),
        (torch.zeros(4, 48, 48, 3, dtype=torch.uint8), ConfigError, r"\(T, 3, H, W\), not \(4, 48"),
        (torch.zeros(3, 48, 48, dtype=torch.uint8), ConfigError, r"\(T, 3, H, W\)"),
        (torch.zeros(0, 3, 48, 48, dtype=torch.uint8), ConfigError, r"not \(0, 3"),
    ],
)
def test_what_is_no_video(predictor, given, error, message):
    with pytest.raises(error, match=message):
        predictor(given)
    if not isinstance(given, list):
        with pytest.raises(error, match=message):
            predictor.features(given)


def test_a_list_is_checked_before_anything_is_read(predictor, video, monkeypatch):
    monkeypatch.setattr("vidpool.inference.predictor.read_views", lambda *_: pytest.fail("read"))
    with pytest.raises(TypeError):
        predictor([video, 3])


def test_features_can_be_trained_on(predictor, video):
    features = predictor.features(video)
    assert (features.dtype, features.ndim) == (torch.float32, 1)
    layer = torch.nn.Linear(len(features), 2)
    layer(features).sum().backward()
    assert torch.equal(layer.weight.grad[0], features)


def test_reprs(predictor, video, tmp_path):
    found = predictor(video)
    assert repr(found).startswith(f"Prediction({str(video)!r}, {found.top(1)[0][0]!r} 0.")
    assert repr(found).endswith(", …)")
    gone = predictor(tmp_path / "gone.mp4")
    assert repr(gone) == f"Prediction({str(gone.path)!r}, error={gone.error!r})"
    scores = torch.tensor([0.75, 0.25])
    assert repr(Prediction(None, ["a", "b"], scores)) == "Prediction(None, 'a' 0.750, 'b' 0.250)"


def test_decoders_and_devices(checkpoint, video):
    pytest.importorskip("decord")
    assert Predictor(checkpoint, decoder="decord")(video).error is None
    with pytest.raises(ConfigError, match="no decoder is called 'vlc'") as caught:
        Predictor(checkpoint, decoder="vlc")(video)
    assert caught.value.argument == "decoder"
    with pytest.raises(ConfigError, match="device 'tpu9' cannot be used") as caught:
        Predictor(checkpoint, device="tpu9")
    assert caught.value.argument == "device"


def test_square_pixels(checkpoint, tmp_path, monkeypatch):
    """Files are read with the pixels of training; a video that is open, as it was opened."""
    content = torch.load(checkpoint)
    content["vidpool"]["preprocessing"]["square_pixels"] = True
    torch.save(content, tmp_path / "square.ckpt")
    asked = []

    def opening(path, *arguments, square_pixels):
        asked.append(square_pixels)
        return open_video(path, *arguments, square_pixels=square_pixels)

    monkeypatch.setattr("vidpool.data.views.open_video", opening)
    path = write_video(tmp_path / "a.mp4", 9)
    Predictor(tmp_path / "square.ckpt")(path)
    Predictor(checkpoint)(path)
    assert asked == [True, False]


def test_a_video_of_one_picture_and_of_fewer_frames_than_a_clip(predictor, tmp_path):
    frames = torch.randint(0, 255, (1, 3, 40, 50), dtype=torch.uint8)
    assert predictor(frames).error is None
    with av.open(str(tmp_path / "a.png"), "w") as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 50, 40, "rgb24"
        image = np.ascontiguousarray(frames[0].permute(1, 2, 0).numpy())
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
    assert predictor(tmp_path / "a.png").error is None


class ModuleClassifier(loading.VideoClassifier):
    """Notes the module that it was given, and is built with a network of the same weights."""

    def __init__(self, backbone, **settings):
        given = [backbone]
        super().__init__("r3d_18", **settings)
        self.given = given
        self.hparams["backbone"] = "class:my_package.nets.Net"


@pytest.fixture
def module_checkpoint(checkpoint, tmp_path):
    content = load_checkpoint(checkpoint)
    content["hyper_parameters"]["backbone"] = "class:my_package.nets.Net"
    torch.save(content, tmp_path / "own.ckpt")
    return tmp_path / "own.ckpt"


def test_a_network_that_is_a_module(module_checkpoint, monkeypatch):
    """It is named in the checkpoint, never imported, and passed again."""
    with pytest.raises(CheckpointError, match=r"my_package\.nets\.Net.*as network=Net") as caught:
        Predictor(module_checkpoint)
    assert caught.value.argument == "network"
    monkeypatch.setattr(loading, "VideoClassifier", ModuleClassifier)
    module = torch.nn.Identity()
    content = load_checkpoint(module_checkpoint)
    classifier, _, _ = restore_classifier(content, "own.ckpt", module)
    assert classifier.given == [module]
    assert Predictor(module_checkpoint, network=module).class_names == list("abcdef")


class OwnNet(torch.nn.Module):
    """A network that no registry knows."""

    def __init__(self, outputs=2):
        super().__init__()
        self.conv = torch.nn.Conv3d(3, 4, 3, padding=1)
        self.fc = torch.nn.Linear(4, outputs)

    def forward(self, clip):
        return self.fc(self.conv(clip).relu().mean((2, 3, 4)))


def test_a_trained_module_predicts_wherever_its_class_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = {"frames": 2, "crop": 16, "short_side": 16, "batch_size": 4, "num_workers": 0}
    data = VideoFolderDataModule(str(example_dataset()), **size)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    trainer = make_trainer(max_epochs=1, **quiet)
    trainer.fit(VideoClassifier(OwnNet(), 2, pooling=None), data)
    path = Path(trainer.log_dir) / "checkpoints" / "last.ckpt"
    video = next(data.root.glob("val/run/*.mp4"))
    predictor = Predictor(path, network=OwnNet())
    assert predictor(video).probabilities.shape == (2,)
    assert predictor.features(video).shape == (4,)
    with pytest.raises(CheckpointError, match="the given network, OwnNet, does not fit") as caught:
        Predictor(path, network=OwnNet(3))
    assert caught.value.argument == "network"
    # a script's classes are in the module __main__, and in another one for those who import it
    moved = type("OwnNet", (OwnNet,), {"__module__": "elsewhere"})
    loaded = VideoClassifier.load_from_checkpoint(path, network=moved())
    assert loaded.hparams["backbone"] == "class:elsewhere.OwnNet"
    make_trainer(max_epochs=2, **quiet).fit(
        VideoClassifier(moved(), 2, pooling=None), data, ckpt_path="last"
    )


@pytest.mark.parametrize("argument", ["clips", "crops"])
def test_errors_name_the_predictors_own_arguments(checkpoint, argument):
    with pytest.raises(ConfigError) as caught:
        Predictor(checkpoint, **{argument: 0})
    assert caught.value.argument == argument


@pytest.mark.parametrize("suffix", [".safetensors", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_export_of_a_network_that_is_a_module(
    predictor, video, module_checkpoint, tmp_path, monkeypatch, suffix
):
    with pytest.raises(CheckpointError, match="as network"):
        export(module_checkpoint, tmp_path / "a.pth")
    monkeypatch.setattr(loading, "VideoClassifier", ModuleClassifier)
    module = torch.nn.Identity()
    exported = export(module_checkpoint, tmp_path / f"a{suffix}", network=module)
    assert exported.manifest["model"]["backbone"] == "class:my_package.nets.Net"
    assert exported.manifest["input"]["shape"] == ["N", 3, "T", "H", "W"]
    again = Predictor(exported.path, "cpu", network=module if suffix == ".safetensors" else None)
    expected = predictor(video).probabilities
    assert torch.allclose(again(video).probabilities, expected, atol=1e-5)


def test_only_one_place_normalizes(checkpoint, video, monkeypatch):
    calls = []

    def counting(clips, mean, std):
        calls.append(clips.dtype)
        return normalize(clips, mean, std)

    monkeypatch.setattr("vidpool.inference.predictor.normalize", counting)
    predictor = Predictor(checkpoint)
    predictor(video)
    predictor.features(video)
    assert calls == [torch.uint8] * 2
    assert isinstance(predictor.preprocessing, Preprocessing)
