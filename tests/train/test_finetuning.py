import pytest
import pytorch_lightning as pl
import torch
from generated import Generated, quiet_trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.errors import CheckpointError, ConfigError
from vidpool.models import create_model, list_models
from vidpool.models.weights import heads_of
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.callbacks.precise_batch_norm import PreciseBatchNorm
from vidpool.train.classifier import VideoClassifier
from vidpool.train.finetuning import describe, freeze_modules, lr_scales, stages

pytestmark = pytest.mark.filterwarnings("ignore")
# deeper ones of a family have the same stages
NETWORKS = [name for name in list_models() if not name.endswith(("_34", "_101", "_152", "_200"))]


def classifier(**options):
    return VideoClassifier("r3d_18", num_classes=3, **{"width": 4, "lr": 0.01} | options)


def trained(model, *callbacks, resume=None, epochs=1, size=24, path=None, processes=1, **options):
    """Train on a few generated clips."""
    trainer = quiet_trainer(
        devices=processes,
        strategy="ddp_spawn" if processes > 1 else "auto",
        max_epochs=epochs,
        callbacks=list(callbacks),
    )
    trainer.fit(model, Generated(size, **{"batch_size": 4} | options), ckpt_path=resume)
    if path is not None:
        trainer.save_checkpoint(path)
    return trainer


def copy_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def create_meta(name, **options):
    try:
        with torch.device("meta"):
            return create_model(name, **options)
    except ConfigError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))


# of the network's rates


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_follow_the_network_and_hold_all_but_the_classifier(name):
    model = create_meta(name)
    names = stages(model)
    assert len(names) >= 5
    heads = tuple(f"{head}." for head in heads_of(model))
    for parameter, _ in model.named_parameters():
        holders = [stage for stage in names if parameter.startswith(f"{stage}.")]
        assert len(holders) == (not parameter.startswith(heads)), parameter


def test_stages_by_name():
    assert stages(create_meta("r3d_18")) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    names = stages(create_meta("torchvision/mvit_v2_s"))
    assert names[:3] == ["conv_proj", "pos_encoding", "blocks.0"]
    assert names[-2:] == ["blocks.15", "norm"]
    x3d = stages(create_meta("pytorchvideo/x3d_s"))
    assert x3d[:2] == ["blocks.0", "blocks.1"]
    assert x3d[-1] == "blocks.5.pool"  # beside the classifier


def test_rates_fall_by_stage_towards_the_input():
    scales = lr_scales(create_meta("r3d_18"), 0.5, 0.1)
    assert scales["fc.weight"] == scales["fc.bias"] == 1
    found = {key.partition(".")[0]: value for key, value in scales.items()}
    assert (found["layer4"], found["layer3"]) == pytest.approx((0.05, 0.005))
    assert scales["stem.0.weight"] == pytest.approx(0.5 * 0.1**5)
    assert set(lr_scales(create_meta("r3d_18"), 1.0, 1.0).values()) == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone_lr": 0.0}, r"backbone_lr must be positive, got 0\.0.*freeze to \[backbone\]"),
        ({"backbone_lr": float("nan")}, "backbone_lr must be positive, got nan"),
        ({"layer_decay": 0.0}, r"layer_decay must lie within \(0, 1\], got 0"),
        ({"layer_decay": 1.1}, "got 1.1"),
        ({"freeze": ["layer5"]}, r"'layer5' matches no module.*stem, layer1, .*layer4; backbone"),
        ({"freeze": ["stem", ""]}, "'' matches no module"),
        ({"freeze": ["*"]}, "leaves nothing to train"),
        ({"freeze": ["backbone", "fc"]}, "leaves nothing to train"),
    ],
)
def test_values_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        classifier(**options)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_each_group_follows_the_schedule_at_its_own_rate(optimizer):
    class Rates(pl.Callback):
        seen = ()

        def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
            groups = optimizer.param_groups
            self.seen += ({round(group["lr_scale"], 6): group["lr"] for group in groups},)

        def on_train_batch_end(self, trainer, *_):
            logged.append(float(trainer.callback_metrics["lr"]))

    rates, logged = Rates(), []
    model = classifier(
        backbone_lr=0.5, layer_decay=0.9, optimizer=optimizer, lr_schedule="step", milestones=[1]
    )
    trained(model, rates, epochs=2, size=8)
    assert logged == pytest.approx([0.01, 0.01, 0.001, 0.001])  # the classifier's
    scales = [1.0, *(0.5 * 0.9**stage for stage in range(1, 6))]
    for seen, lr in zip(rates.seen, logged, strict=True):
        assert seen == pytest.approx({round(scale, 6): lr * scale for scale in scales})


def test_a_lower_rate_moves_the_backbone_less():
    moves = []
    for factor in (1.0, 0.1):
        pl.seed_everything(0, verbose=False)
        model = classifier(backbone_lr=factor, momentum=0.0, weight_decay=0.0)
        before = copy_of(model.model)
        trained(model, size=4)  # a single step
        after = model.model.state_dict()
        moves.append({key: after[key] - before[key] for key in ("stem.0.weight", "fc.weight")})
    fast, slow = (move["stem.0.weight"] for move in moves)
    torch.testing.assert_close(slow, 0.1 * fast, rtol=1e-2, atol=1e-7)
    torch.testing.assert_close(moves[1]["fc.weight"], moves[0]["fc.weight"])


# of freezing


def assert_frozen(model, before, frozen, rounding=0.0):
    """What is frozen is as it was, statistics too; all other parameters moved."""
    prefixes = tuple(f"{name}." for name in frozen)
    for key, value in model.state_dict().items():
        if key.startswith(prefixes):
            torch.testing.assert_close(value, before[key], rtol=0, atol=rounding)
    for key, parameter in model.named_parameters():
        if not key.startswith(prefixes):
            assert not torch.equal(parameter, before[key]), key
    statistics = [key for key in before if "running" in key and not key.startswith(prefixes)]
    for key in statistics:
        assert not torch.equal(model.state_dict()[key], before[key]), key


@pytest.mark.parametrize(
    ("options", "callbacks"),
    [
        ({}, []),
        ({"gradient_checkpointing": True, "optimizer": "adamw", "weight_decay": 0.1}, []),
        ({"lr_schedule": "step", "milestones": [1]}, [Multigrid, PreciseBatchNorm]),
        ({}, [EMAWeightAveraging, PreciseBatchNorm]),
    ],
    ids=["plain", "gradient_checkpointing", "multigrid", "averaged"],
)
def test_what_is_frozen_stays_as_it_was(options, callbacks):
    settings = {
        Multigrid: {"variant": "original", "sub_batch_norm": 4},
        PreciseBatchNorm: {"batches": 2},
    }
    model = classifier(freeze=["stem", "layer[12]"], **options)
    before = copy_of(model.model)
    multigrid = {"size": 130, "batch_size": 2} if Multigrid in callbacks else {}
    trained(model, *(kind(**settings.get(kind, {})) for kind in callbacks), epochs=2, **multigrid)
    # PyTorch's average of equal values is not quite that value
    rounding = 1e-5 if EMAWeightAveraging in callbacks else 0.0
    assert_frozen(model.model, before, ["stem", "layer1", "layer2"], rounding)


@pytest.mark.parametrize(
    "name", ["i3d", "srtg_r3d_18", "mfnet", "pytorchvideo/x3d_xs", "torchvision/mvit_v2_s"]
)
def test_the_classifier_alone_is_trained_on_a_frozen_backbone(name):
    model = create_meta(name, num_classes=3)
    frozen = freeze_modules(model, ["backbone"])
    heads = tuple(f"{head}." for head in heads_of(model))
    training = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert training == [key for key, _ in model.named_parameters() if key.startswith(heads)]
    assert frozen == stages(model)


def test_train_leaves_frozen_modules_in_evaluation_mode():
    model = classifier(freeze=["layer1"], dropout=0.5)
    for _ in range(2):  # as made, for Lightning need not call train(), and after train()
        norms = {
            name: module.training
            for name, module in model.model.named_modules()
            if isinstance(module, _BatchNorm)
        }
        assert norms == {name: not name.startswith("layer1.") for name in norms}
        assert model.model.dropout.training
        model.train()
    assert not any(module.training for module in model.eval().modules())


def test_says_what_trains_at_which_rate():
    model = create_model("r3d_18", num_classes=3, width=4)
    freeze_modules(model, ["stem"])
    text = describe(model, lr_scales(model, 0.5, 1.0), 0.1, ["stem"])
    stem = sum(p.numel() for p in model.stem.parameters())
    rest = sum(p.numel() for p in model.parameters()) - stem - 99
    assert text == (
        "classifier: 99 parameters at learning rate 0.1; "
        f"backbone: {rest:,} parameters at learning rate 0.05; frozen: {stem:,} parameters (stem)"
    )
    decayed = describe(model, lr_scales(model, 0.5, 0.5), 1.0, ["stem"])
    assert "at learning rate 0.0312 to 0.25" in decayed


@pytest.mark.parametrize(
    "options", [{"freeze": ["stem"]}, {"backbone_lr": 0.5}, {"init_from": "saved"}]
)
def test_says_so_when_training_starts(options, tmp_path, caplog):
    if "init_from" in options:
        options = {"init_from": str(tmp_path / "saved.pt")}
        torch.save(classifier().model.state_dict(), tmp_path / "saved.pt")
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        trained(classifier(**options), size=4)
    assert "classifier: 99 parameters at learning rate 0.01; backbone:" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", logger="pytorch_lightning"):
        trained(classifier(), size=4)
    assert "classifier:" not in caplog.text


# of starting and going on


def test_as_many_but_other_classes_start_a_fresh_classifier(tmp_path):
    source = classifier()
    path = tmp_path / "trained.ckpt"
    trained(source, size=4, path=path)
    saved = torch.load(path, weights_only=True)

    def classifier_after(class_names):
        torch.save(saved | {"vidpool": saved["vidpool"] | {"class_names": class_names}}, path)
        model = classifier(init_from=str(path), freeze=["backbone"], lr=1e-30)
        fresh = model.model.fc.weight.clone()
        trained(model, size=4)
        assert torch.equal(model.model.stem[0].weight, source.model.stem[0].weight)
        return fresh, model.model.fc.weight

    fresh, found = classifier_after(["red", "green", "blue"])
    assert torch.equal(found, source.model.fc.weight)
    fresh, found = classifier_after(["green", "red", "blue"])
    assert torch.equal(found, fresh)


def test_a_resumed_run_does_not_need_what_it_started_from(tmp_path):
    path, stopped = tmp_path / "trained.ckpt", tmp_path / "stopped.ckpt"
    trained(classifier(), size=4, path=path)
    trained(classifier(init_from=str(path)), size=4, path=stopped)
    path.unlink()
    model = classifier(init_from=str(path))
    assert trained(model, resume=str(stopped), epochs=2, size=4).current_epoch == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_keeps_what_is_frozen_and_may_change_rates(tmp_path, optimizer):
    path = tmp_path / "saved.ckpt"
    options = {"freeze": ["stem"], "optimizer": optimizer}
    first = classifier(backbone_lr=0.5, **options)
    trained(first, path=path)
    before = copy_of(first.model)
    again = classifier(backbone_lr=0.1, **options)
    trainer = trained(again, resume=path, epochs=2)
    assert_frozen(again.model, before, ["stem"])
    scales = {group["lr_scale"] for group in trainer.optimizers[0].param_groups}
    assert scales == {1.0, 0.1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ["layer1"]}, r"freeze is \['stem'\] in the checkpoint and \['layer1'\]"),
        ({}, r"freeze is \['stem'\] in the checkpoint and None here.*as init_from"),
        ({"freeze": ["stem"], "layer_decay": 0.5}, "layer_decay is 1.0 in .* and 0.5 here"),
    ],
)
def test_another_grouping_cannot_be_resumed(tmp_path, options, message):
    trained(classifier(freeze=["stem"]), size=4, path=tmp_path / "saved.ckpt")
    with pytest.raises(CheckpointError, match=message):
        trained(classifier(**options), resume=tmp_path / "saved.ckpt", size=4)


def test_a_checkpoint_of_before_there_were_names_of_parameters_is_resumed(tmp_path):
    path = tmp_path / "old.ckpt"
    trained(classifier(), size=4, path=path)
    saved = torch.load(path, weights_only=True)
    for group in saved["optimizer_states"][0]["param_groups"]:
        del group["param_names"], group["lr_scale"]
    for name in ("freeze", "backbone_lr", "layer_decay"):
        del saved["hyper_parameters"][name]
    torch.save(saved, path)
    assert trained(classifier(), resume=path, size=4, epochs=2).global_step == 2


@pytest.mark.slow
def test_a_frozen_network_can_be_compiled():
    model = classifier(freeze=["stem", "layer1"], compile=True)
    before = copy_of(model.model)
    model.model.compile(backend="eager")
    trained(model, size=8)
    assert_frozen(model.model, before, ["stem", "layer1"])


@pytest.mark.slow
def test_what_is_frozen_does_not_trouble_two_processes():
    model = classifier(freeze=["stem", "layer[12]"], backbone_lr=0.5)
    before = copy_of(model.model)
    trained(model, processes=2)
    assert_frozen(model.model, before, ["stem", "layer1", "layer2"])
