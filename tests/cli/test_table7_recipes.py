"""The recipes of the paper's Table 7: that all are there, and what they amount to."""

import math
import re
from functools import cache
from pathlib import Path

import pytest
import torch

from vidpool.analysis.published import TABLE_7
from vidpool.cli import main
from vidpool.cli.training import parse_fit
from vidpool.data.views import ClipShape
from vidpool.nn import SoftPool3d
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.classifier import VideoClassifier

CONFIGS = Path(__file__).parents[2] / "configs"
ROWS = CONFIGS / "table7"
# names of recipes that are not those of the networks
NAMES = {"pytorchvideo/slowfast_r50_4x16": "slowfast_r50"}
IMPORTED = ("ir_csn_101", "slowfast_r50")  # never trained on HACS
CLASSES = {"hacs": 200, "kinetics700": 700, "ucf101": 101}
TRAINING_CLIPS = {"hacs": 490_000, "kinetics700": 530_000, "ucf101": 9_537}
DATA = {
    "hacs": "vidpool.data.datasets.hacs_kinetics.HACSDataModule",
    "kinetics700": "vidpool.data.datasets.hacs_kinetics.Kinetics700DataModule",
    "ucf101": "vidpool.data.datasets.ucf101.UCF101DataModule",
}
GPUS = 4
# epochs, rate, epochs at which it falls, batch on all GPUs, crop, smallest and largest stride
PAPER = {
    "hacs": (100, 0.1, [40, 80], 64, 256, 2, 2),
    "kinetics700": (100, 0.1, [40, 80], 64, 256, 4, 4),
    "ucf101": (100, 0.1, [40, 80], 64, 256, 2, 2),
}
AUTHORS = {
    "hacs": (120, 0.1, [40, 60, 75, 90], 48, 284, 1, 2),
    "kinetics700": (130, 0.05, [40, 70, 95], 32, 284, 4, 6),
    "ucf101": (100, 0.1, [15, 30, 40], 32, 256, 2, 2),
}
# of the paper's multigrid: clips, frames and crop of each quarter of an epoch, and its rate
MULTIGRID = [
    ([(512, 4, 182), (1024, 4, 128), (2048, 4, 90)], 0.1),
    ([(256, 8, 182), (512, 8, 128), (1024, 8, 90)], 0.05),
    ([(128, 8, 256), (256, 8, 182), (512, 8, 128)], 0.025),
    ([(64, 16, 256), (128, 16, 182), (256, 16, 128)], 0.0125),
]
# millions, with 400 classes
PARAMETERS = {
    "r3d_50": 36.73,
    "r3d_101": 69.06,
    "r2plus1d_50": 34.86,
    "i3d": 12.70,
    "ir_csn_101": 22.21,
    "mfnet": 8.00,
    "slowfast_r50": 34.48,
    "srtg_r3d_50": 56.91,
    "srtg_r2plus1d_50": 55.04,
    "srtg_r3d_101": 107.14,
}


def network_of(row):
    return NAMES.get(row.model, row.model)


def every_recipe():
    """(data set, network, whether with SoftPool, whether by the authors' settings) of each."""
    for data in DATA:
        for row in TABLE_7:
            network = network_of(row)
            if data == "hacs" and network in IMPORTED:
                assert row.accuracies[0] is None
                continue
            yield data, network, row.soft, False
            if row.soft or network.startswith("srtg_"):
                yield data, network, row.soft, True


def name_of(data, network, soft, authors):
    return f"{data}_{network}{'_softpool' * soft}{'_authors' * authors}"


def file_of(data, *recipe):
    return ROWS / data / f"{name_of(data, *recipe).removeprefix(f'{data}_')}.yaml"


def strategy_of(trainer):
    """Its short name, whether or not it has options."""
    strategy = trainer["strategy"]
    return strategy if isinstance(strategy, str) else strategy["class_path"].rpartition(".")[2]


EVERY = list(every_recipe())


@cache
def settings_of(*recipe):
    return parse_fit(["--config", str(file_of(*recipe))]).settings


def test_every_row_has_its_recipes():
    assert set(ROWS.rglob("*.yaml")) == {file_of(*recipe) for recipe in EVERY}
    assert len(EVERY) == 13 * 3 - 2 + 6 * 3


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: name_of(*recipe))
def test_it_amounts_to_what_was_published(recipe):
    data, network, soft, authors = recipe
    settings = settings_of(*recipe)
    assert settings["run"]["name"] == name_of(*recipe)
    options = settings["data"]["init_args"]
    model, trainer = settings["model"], settings["trainer"]
    published = (AUTHORS if authors else PAPER)[data]
    epochs, rate, milestones, batch, crop, *strides = published

    assert settings["data"]["class_path"] == DATA[data]
    assert (options["frames"], options["crop"]) == (16, crop)
    assert options["batch_size"] * GPUS == batch
    drawn = [round(options["stride"] * share) for share in options["augment"]["stride"]]
    assert drawn == strides
    views = (options["test_clips"], options["test_crops"])
    if authors:
        assert options["augment"]["crop"] == "short_side"
        short_side = {round(crop * share) for share in options["augment"]["short_side"]}
        assert short_side == {384}
        assert options["augment"]["authors"] == 0.8
        assert views == (1, 1)
        assert model["backbone_lr"] == (1.0 if data == "hacs" else 0.6)
        assert options["stride"] == {"hacs": 2, "kinetics700": 5, "ucf101": 2}[data]
    else:
        # clips of HACS are too short for more than one
        assert views == ((1, 3) if data == "hacs" else (10, 3))

    assert model["backbone"].rpartition("/")[2].startswith(network)
    assert model["pooling"] == ("soft" if soft else None)
    assert (model["optimizer"], model["momentum"], model["weight_decay"]) == ("sgd", 0.9, 1e-4)
    assert (model["lr"], model["lr_schedule"]) == (rate, "step")
    assert (model["milestones"], model["gamma"]) == (milestones, 0.1)
    assert trainer["max_epochs"] == epochs
    assert trainer["strategy"]["class_path"].endswith("DDPStrategy")
    assert (trainer["devices"], trainer["precision"]) == ("auto", "16-mixed")
    assert trainer["gradient_clip_val"] == 40

    start = model["init_from"]
    if data == "hacs":
        assert start is None
    elif network in IMPORTED:
        assert start == f"runs/imported/{network}.ckpt"
    else:
        # what the HACS recipe of the same network, pooling and settings leaves behind
        source = settings_of("hacs", *recipe[1:])
        assert start == f"runs/{source['run']['name']}/fit_0/checkpoints/best.ckpt"
        for name in ("backbone", "pooling", "pooling_options", "backbone_options", "width"):
            assert model[name] == source["model"][name]


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: name_of(*recipe))
def test_its_multigrid_works_with_its_data(recipe):
    data, _, _, authors = recipe
    settings = settings_of(*recipe)
    callbacks = settings["trainer"].get("callbacks") or []
    if authors and data == "ucf101":
        assert callbacks == []
        return
    (callback,) = callbacks
    assert callback["class_path"] == "vidpool.train.callbacks.multigrid.Multigrid"
    options = settings["data"]["init_args"]
    shape = ClipShape(options["frames"], options["stride"], options["crop"])
    epochs = settings["trainer"]["max_epochs"]
    schedule = Multigrid(**callback["init_args"]).schedule(
        shape, options["batch_size"], epochs, settings["model"]
    )
    assert schedule.check(TRAINING_CLIPS[data], GPUS) == []
    assert schedule.epochs == epochs
    if authors:
        largest = max(step.batch_size for phase in schedule.phases for step in phase.steps)
        assert largest * GPUS == 32 * AUTHORS[data][3]
        return
    for phase, (steps, rate) in zip(schedule.phases, MULTIGRID, strict=True):
        clips = [(s.batch_size * GPUS, s.shape.frames, s.shape.crop) for s in phase.steps]
        assert clips == steps
        assert {settings["model"]["lr"] * step.lr_factor for step in phase.steps} == {rate}
        assert {step.shape.stride for step in phase.steps} == {options["stride"]}


def test_the_papers_mean_clip():
    shapes = [shape for steps, _ in MULTIGRID for shape in steps]
    assert sum(frames for _, frames, _ in shapes) / 12 == 9
    assert math.isclose(sum(crop for _, _, crop in shapes) / 12, 161, abs_tol=0.5)


@pytest.mark.parametrize(
    "recipe", [("ucf101", network_of(row), row.soft, False) for row in TABLE_7], ids=str
)
def test_its_network_can_be_built(recipe):
    model = settings_of(*recipe)["model"]
    with torch.device("meta"):
        network = VideoClassifier(**{**model, "num_classes": 400}).model
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert parameters == pytest.approx(PARAMETERS[recipe[1]], abs=0.006)
    soft = [module for module in network.modules() if isinstance(module, SoftPool3d)]
    assert bool(soft) == recipe[2]
    assert {layer.gradient for layer in soft} <= {"paper"}


def test_schedule_prints_the_papers_table(capsys):
    command = [
        "schedule",
        "--config",
        "table7/hacs/srtg_r3d_101_softpool",
        "--clips",
        "30000",
        "--processes",
        "4",
    ]
    # one that is counted in no time
    command += ["--model.backbone", "r3d_18", "--model.width", "4"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    row = re.compile(r" (\d+) \(2\) x (\d+)² +(\d+) +([\d.]+) to ([\d.]+) ")
    found = [
        (int(batch), int(frames), int(crop), float(first), float(last))
        for frames, crop, batch, first, last in row.findall(printed)
    ]
    expected = [(*step, rate, rate / 100) for steps, rate in MULTIGRID for step in steps]
    # a quarter need not begin with the first step of the short cycle
    quarters = [sorted(found[n : n + 3]) for n in range(0, len(found), 3)]
    assert [line for quarter in quarters for line in quarter] == [
        pytest.approx(line, rel=0.01) for line in expected
    ]


@pytest.mark.parametrize(
    ("file", "devices", "strategy", "precision"),
    [
        ("cpu", 1, "auto", "32-true"),
        ("gpu", 1, "auto", "16-mixed"),
        ("ddp_fp16", "auto", "DDPStrategy", "16-mixed"),
        ("ddp_bf16", "auto", "DDPStrategy", "bf16-mixed"),
    ],
)
def test_trainers_go_with_any_recipe(file, devices, strategy, precision):
    trainer = CONFIGS / f"trainer/{file}.yaml"
    recipe = ROWS / "hacs/r3d_50.yaml"
    data = CONFIGS / "data/hacs.yaml"
    alone = parse_fit(["--config", str(data), "--config", str(trainer)]).settings["trainer"]
    assert (alone["devices"], alone["precision"]) == (devices, precision)
    assert strategy_of(alone) == strategy
    assert alone.get("gradient_clip_val") == (None if file == "cpu" else 40)
    # a trainer's config after a recipe leaves its callbacks and epochs
    together = parse_fit(["--config", str(recipe), "--config", str(trainer)]).settings["trainer"]
    assert together["precision"] == precision
    assert together["devices"] == devices
    assert strategy_of(together) == strategy
    assert together["max_epochs"] == 100
    assert len(together["callbacks"]) == 1
