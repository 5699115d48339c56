"""Exported files hold what the checkpoint holds, and compute what PyTorch computes."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from vidpool.errors import CheckpointError, ConfigError
from vidpool.inference.export import export
from vidpool.inference.export.comparison import compare
from vidpool.inference.loading import Network, load_classifier, load_network
from vidpool.inference.predictor import Predictor
from vidpool.models import create_model
from vidpool.models.weights import load_checkpoint, load_weights, read_weights
from vidpool.train.importing import import_checkpoint

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SUFFIXES = (".pth", ".safetensors", ".pt2", ".onnx")
SIZES = [(1, 3, 4, 32, 32), (3, 3, 20, 45, 58)]

WITHOUT_VIDPOOL = """
import sys
sys.modules["vidpool"] = None  # importing it fails
import torch
program = torch.export.load(sys.argv[1]).module()
clips = torch.load(sys.argv[2])
torch.save([program(clip) for clip in clips], sys.argv[3])
assert not any(name.startswith("vidpool.") for name in sys.modules)
"""


@pytest.fixture(scope="session")
def files(narrow, tmp_path_factory):
    """By suffix, what exporting the narrow network made."""
    folder = tmp_path_factory.mktemp("files")
    return {suffix: export(narrow, folder / f"r3d{suffix}") for suffix in SUFFIXES}


@torch.no_grad()
def expected(checkpoint, clips):
    classifier, _, _ = load_classifier(checkpoint)
    return [classifier(clip) for clip in clips]


def random_clips(scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(*size, generator=generator) for size in SIZES]


def close(found, wanted):
    """Assert what rounding in float32 leaves of equality, through eighteen layers."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=3e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_logits_are_the_checkpoints_whatever_the_clips_size(files, narrow, suffix):
    network = load_network(files[suffix].path, "cpu")
    clips = random_clips()
    with torch.no_grad():
        for clip, logits in zip(clips, expected(narrow, clips), strict=True):
            close(network.logits(clip), logits)
    assert network.class_names == list("abcdef")
    assert network.preprocessing.short_side == 36


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_predictor_takes_exported_files(files, narrow, wide, suffix):
    predictor = Predictor(narrow, device="cpu")
    path = files[suffix].path
    exported = Predictor(path, device="cpu")
    assert exported.class_names == predictor.class_names
    assert exported.preprocessing == predictor.preprocessing
    expected = predictor(wide).probabilities
    assert torch.allclose(exported(wide).probabilities, expected, atol=1e-5)
    if suffix in (".safetensors", ".pth"):
        assert torch.allclose(exported.features(wide), predictor.features(wide), atol=1e-5)
        return
    with pytest.raises(ConfigError, match=r"no features; they need a .ckpt") as caught:
        exported.features(wide)
    assert caught.value.argument == "path"
    with pytest.raises(ConfigError, match="contains its network") as caught:
        Predictor(path, network=torch.nn.Identity())
    assert caught.value.argument == "network"


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_large_values_are_pooled_exactly(files, narrow, suffix):
    network = load_network(files[suffix].path, "cpu")
    clips = random_clips(scale=1e4)
    with torch.no_grad():
        for clip, logits in zip(clips, expected(narrow, clips), strict=True):
            assert logits.isfinite().all()
            close(network.logits(clip), logits)


def test_the_program_runs_where_vidpool_cannot_be_imported(files, narrow, tmp_path):
    clips = random_clips()
    torch.save(clips, tmp_path / "clips.pth")
    arguments = [files[".pt2"].path, tmp_path / "clips.pth", tmp_path / "logits.pth"]
    subprocess.run(
        [sys.executable, "-c", WITHOUT_VIDPOOL, *map(str, arguments)], check=True, timeout=300
    )
    found = torch.load(tmp_path / "logits.pth")
    for mine, theirs in zip(expected(narrow, clips), found, strict=True):
        close(theirs, mine)


def test_onnx_has_standard_operators_and_named_axes(files):
    model = onnx.load(files[".onnx"].path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert not model.functions
    session = onnxruntime.InferenceSession(files[".onnx"].path, providers=["CPUExecutionProvider"])
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape) == ("clip", ["N", 3, "T", "H", "W"])
    assert given.type == "tensor(float)"
    assert (made.name, made.shape) == ("logits", ["N", 6])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_manifest_tells_what_a_deployer_needs(files, suffix):
    exported = files[suffix]
    manifest = json.loads(exported.manifest_path.read_text())
    assert manifest == json.loads(json.dumps(exported.manifest))
    assert exported.manifest_path.name == f"r3d{suffix}.json"
    content = exported.path.read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["bytes"] == len(content)
    assert manifest["model"]["backbone"] == "r3d_18"
    assert manifest["model"]["pooling"] == "soft"
    assert manifest["class_names"] == list("abcdef")
    assert manifest["preprocessing"]["mean"] == [0.45] * 3
    assert manifest["input"]["shape"] == ["N", 3, "T", "H", "W"]
    assert manifest["input"]["fixed_because"] is None
    assert manifest["weights"] == "raw"
    assert manifest["versions"]["torch"] == torch.__version__
    assert ("onnx_opset" in manifest["versions"]) == (suffix == ".onnx")
    check = manifest["check"]
    assert len(check["clips"]) == 3
    assert {clip[0] for clip in check["clips"]} == {1, 2}
    assert check["max_difference"] <= 1e-6
    if suffix in (".pth", ".safetensors"):
        assert check["max_difference"] == 0
    assert check["logits_range"] > 1e-3  # else the difference would say nothing


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_read_like_any_others(files, narrow, suffix):
    path = files[suffix].path
    saved = {k.removeprefix("model."): v for k, v in load_checkpoint(narrow)["state_dict"].items()}
    state = read_weights(path).state
    assert state.keys() == {key for key in saved if not key.startswith("train_")}
    assert all(torch.equal(state[key], saved[key]) for key in state)
    model = create_model("r3d_18", num_classes=6, width=4)
    assert load_weights(model, path).fresh == ()
    imported = import_checkpoint(path, "r3d_18")
    assert imported.named
    assert imported.origin == "of the checkpoint"
    assert imported.classifier.hparams["width"] == 4
    assert imported.classifier.hparams["pooling"] == "soft"
    assert imported.classifier.description["class_names"] == list("abcdef")


def test_weights_files_need_no_vidpool(files):
    content = torch.load(files[".pth"].path, weights_only=True)
    assert content["vidpool"]["class_names"] == list("abcdef")
    with safe_open(files[".safetensors"].path, "pt") as file:
        described = json.loads(file.metadata()["vidpool"])
    assert described["vidpool"]["class_names"] == list("abcdef")
    assert described["hyper_parameters"]["backbone"] == "r3d_18"


@pytest.fixture
def averaged(narrow, tmp_path):
    """A checkpoint as Lightning's weight averaging saves it, with callbacks' metrics."""
    checkpoint = torch.load(narrow, weights_only=True)
    state = checkpoint["state_dict"]
    checkpoint["current_model_state"] = state
    checkpoint["averaging_state"] = {"n_averaged": torch.tensor(7)}
    checkpoint["state_dict"] = {
        key: 0.5 * value if value.is_floating_point() else value for key, value in state.items()
    }
    checkpoint["callbacks"] = {
        "ModelCheckpoint{'monitor': 'val/top1', 'mode': 'max'}": {
            "monitor": "val/top1",
            "best_model_score": torch.tensor(0.75),
            "current_score": torch.tensor(0.5),
        },
        "ModelCheckpoint{'monitor': None}": {"monitor": None, "best_model_score": None},
    }
    checkpoint["epoch"], checkpoint["global_step"] = 11, 340
    torch.save(checkpoint, tmp_path / "averaged.ckpt")
    return tmp_path / "averaged.ckpt"


def test_averaged_or_raw(averaged, tmp_path):
    checkpoint = torch.load(averaged, weights_only=True)
    for weights, entry in (("averaged", "state_dict"), ("raw", "current_model_state")):
        exported = export(averaged, tmp_path / f"{weights}.pth", weights=weights)
        assert exported.manifest["weights"] == weights
        state = read_weights(exported.path).state
        for key, value in state.items():
            assert torch.equal(value, checkpoint[entry][f"model.{key}"])
        found = exported.manifest["metrics"]
        assert found == {"val/top1": {"best": 0.75, "last": 0.5}, "epoch": 11, "global_step": 340}
    again = export(tmp_path / "averaged.pth", tmp_path / "again.safetensors")
    assert again.manifest["weights"] == "averaged"
    assert again.manifest["metrics"]["val/top1"]["best"] == 0.75
    with pytest.raises(CheckpointError, match="holds averaged weights alone"):
        export(tmp_path / "averaged.pth", tmp_path / "raw2.pth", weights="raw")


def test_a_plain_checkpoint_has_raw_weights_only(narrow, tmp_path):
    assert export(narrow, tmp_path / "a.pth", weights="raw").manifest["weights"] == "raw"
    assert export(narrow, tmp_path / "b.pth", weights="averaged").manifest["weights"] == "raw"


@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_file_that_computes_something_else_is_not_kept(narrow, tmp_path, monkeypatch, wrong):
    def load_wrong(path, device, module):
        network = load_network(path, device, module)
        logits = network.logits
        return Network(
            lambda clip: logits(clip) + wrong, network.class_names, network.preprocessing, device
        )

    monkeypatch.setattr("vidpool.inference.export.writing.load_network", load_wrong)
    (tmp_path / "x.pth").write_text("mine")
    with pytest.raises(ConfigError, match="beyond the tolerance"):
        export(narrow, tmp_path / "x.pth", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]
    assert (tmp_path / "x.pth").read_text() == "mine"


def test_a_network_that_fails_on_another_size_is_told(narrow, tmp_path):
    classifier, names, preprocessing = load_classifier(narrow)

    def logits(clip):
        if clip.shape[2] != 4:
            raise RuntimeError("Expected 4 frames\nand more")
        return classifier(clip)

    exported = Network(logits, names, preprocessing, "cpu")
    shapes = [(1, 3, 4, 32, 32), (1, 3, 5, 32, 32)]
    with pytest.raises(ConfigError, match=r"x.onnx: .*\(1, 3, 5, 32, 32\) \(Expected 4 frames\)"):
        compare(classifier.model, exported, shapes, 1e-4, tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("x.bin", {}, "x.bin: must end in .pth or .pt for state_dict; .safetensors for"),
        ("x.pth", {"format": "onnx"}, "x.pth: must end in .onnx for onnx"),
        ("x.onnx", {"format": "caffe"}, "format must be one of .* got 'caffe'"),
        ("none/x.pth", {}, "none: no such folder"),
        ("x.pth", {"tolerance": 0.0}, "tolerance must be positive, got 0"),
        ("x.pth", {"tolerance": float("nan")}, "tolerance must be positive, got nan"),
        ("x.pth", {"weights": "best"}, "weights must be one of .* got 'best'"),
    ],
)
def test_mistakes_are_told_before_anything_is_done(narrow, tmp_path, out, options, message):
    with pytest.raises(ConfigError, match=message):
        export(narrow, tmp_path / out, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["x.pth", "x.pth.json"])
def test_nothing_is_overwritten_unasked(narrow, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError, match=f"{taken} exists; give --overwrite"):
        export(narrow, tmp_path / "x.pth")
    assert (tmp_path / taken).read_text() == "mine"
    export(narrow, tmp_path / "x.pth", overwrite=True)
    assert load_network(tmp_path / "x.pth").class_names == list("abcdef")


def test_a_missing_package_is_named(narrow, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"pip install 'vidpool\[export\]'"):
        export(narrow, tmp_path / "x.onnx")


def test_others_files_cannot_be_exported(tmp_path):
    torch.save(create_model("r3d_18", num_classes=6, width=4).state_dict(), tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match=r"plain\.pth: "):
        export(tmp_path / "plain.pth", tmp_path / "x.pth")
