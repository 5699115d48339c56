"""Every registered network learns from the demo's videos, with SoftPool for its pooling."""

import pytest
import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from vidpool.data.datasets.demo import CLASSES, DemoClip, draw_clip, write_video
from vidpool.data.datasets.ucf101 import UCF101DataModule
from vidpool.data.views import normalize
from vidpool.errors import ConfigError
from vidpool.models import create_model, list_models, model_info
from vidpool.models.cost import pooling_layers
from vidpool.nn import swap_pooling
from vidpool.train.classifier import VideoClassifier

VIDEO = [name for name in list_models() if model_info(name).modality == "video"]
IMAGE = [name for name in list_models() if model_info(name).modality == "image"]
# one of each kind that is quick enough for the usual run
NARROW = ["r3d_18", "r2plus1d_50", "srtg_r3d_18", "ir_csn_50", "i3d", "mfnet"]
CLIPS = [DemoClip(label, group=4, number=label % 2 + 1) for label in range(4)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Four of the demo's videos, of four classes, half of them AVI."""
    root = tmp_path_factory.mktemp("demo")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    names = [f"{number} {name}\n" for number, name in enumerate(CLASSES, start=1)]
    (lists / "classInd.txt").write_text("".join(names))
    listed = [f"{clip.path} {clip.label + 1}\n" for clip in CLIPS]
    (lists / "trainlist01.txt").write_text("".join(listed))
    (lists / "testlist01.txt").write_text("".join(f"{clip.path}\n" for clip in CLIPS))
    for clip in CLIPS:
        (root / clip.path).parent.mkdir(exist_ok=True)
        write_video(root / clip.path, draw_clip(clip))
    return root


def clips_of(demo, size):
    frames, height, width = size
    assert height == width
    options = {"frames": frames, "stride": 2, "crop": height, "short_side": height}
    return UCF101DataModule(str(demo), batch_size=len(CLIPS), num_workers=0, **options)


def clip_size(name, least):
    info = model_info(name)
    return info.size if info.fixed else tuple(map(max, info.smallest, least))


class Losses(pl.Callback):
    """Notes the loss of each step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, *_):  # noqa: ARG002
        self.values.append(outputs["loss"].item())


def train(network, data, steps, precision):
    """Train as `vidpool fit` does, one step an epoch; the losses."""
    losses = Losses()
    pl.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=steps,
        limit_val_batches=0,
        gradient_clip_val=1.0,  # of the deepest SRTG networks, the first are 1e17
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(network, data)
    return losses.values


def assert_trains(name, demo, steps, precision, least=(8, 64, 64), **options):
    torch.manual_seed(0)
    size = clip_size(name, least)
    try:
        with torch.device("meta"):
            meta = create_model(name)
    except ConfigError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    swappable = any(layer.swapped for layer in pooling_layers(meta, size))
    network = VideoClassifier(
        name, len(CLASSES), pooling="soft" if swappable else None, lr=1e-3, **options
    )
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    losses = train(network, clips_of(demo, size), steps, precision)
    assert len(losses) == steps
    assert torch.tensor(losses).isfinite().all(), losses
    assert len(set(losses)) == steps
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.isfinite().all(), key
    moved = [key for key, p in network.named_parameters() if not torch.equal(p, before[key])]
    # what begins at 0 and comes before a batch norm gets no gradient
    assert {key for key in before if before[key].any()} <= set(moved)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_networks_train_on_demo_clips(name, demo):
    assert_trains(name, demo, 3, "32-true", least=(4, 32, 32), width=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEO)
def test_three_steps_on_demo_clips(name, demo):
    assert_trains(name, demo, 3, "32-true")


@pytest.mark.slow
@pytest.mark.usefixtures("bfloat16_convolutions")
@pytest.mark.parametrize("name", VIDEO)
def test_ten_steps_in_bfloat16(name, demo):
    assert_trains(name, demo, 10, "bf16-mixed")


@pytest.mark.slow
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("name", IMAGE)
def test_image_networks_train_on_demo_frames(name, demo, precision):
    data = clips_of(demo, (1, 96, 96))
    batch = next(iter(data.train_dataloader()))
    preprocessing = data.preprocessing
    frames = normalize(batch["clip"], preprocessing.mean, preprocessing.std)[:, :, 0]
    torch.manual_seed(0)
    network = create_model(name, num_classes=len(CLASSES))
    swap_pooling(network, functional=name.endswith(("inception_v3", "densenet121")))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(10 if precision else 3):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            loss = F.cross_entropy(network(frames), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert torch.tensor(losses).isfinite().all(), losses
    assert losses[-1] < losses[0]
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.isfinite().all(), key
