"""Graphs of PyTorch's own operators, for clips of any size where that can be."""

import pytest
import torch
from checkpoints import make_checkpoint
from torch import nn

from vidpool.errors import ConfigError
from vidpool.inference.export import export
from vidpool.inference.export.tracing import Limits, known_limits, trace
from vidpool.models import list_models, model_info
from vidpool.nn import SoftPool3d

# the usual run has those with the most options
POOLS = [
    pytest.param({"kernel_size": 2}, marks=pytest.mark.slow),
    pytest.param({"kernel_size": 3, "stride": 2, "padding": 1}, marks=pytest.mark.slow),
    pytest.param(
        {"kernel_size": (1, 3, 3), "stride": (1, 2, 2), "ceil_mode": True}, marks=pytest.mark.slow
    ),
    {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": (2, 3, 2), "stride": 1, "dilation": (1, 2, 3), "gradient": "paper"},
]


@pytest.mark.parametrize("geometry", POOLS)
def test_soft_pool_of_any_size_and_any_values(geometry):
    pool = SoftPool3d(**geometry)
    program, limits = trace(pool, [(2, 2, *size) for size in ((4, 8, 8), (5, 9, 7))], Limits())
    assert limits.fixed == ""
    namespaces = {
        node.target.namespace
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    }
    assert namespaces == {"aten"}
    run = program.module()
    for size in [(1, 2, 4, 7, 7), (3, 2, 5, 9, 8), (2, 2, 60, 21, 30)]:
        x = torch.randn(*size)
        for values in (x, 1e3 * x, x - 1e30, x.where(x > 0, -torch.inf), -x.abs() - 200):
            expected = pool(values)
            torch.testing.assert_close(run(values), expected, rtol=1e-5, atol=1e-6)


class _OfSize(nn.Module):
    """A network with a Python branch on something of the clip."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        if self.branch(x):
            x = 2 * x
        return self.fc(x.mean((2, 3, 4)))


def test_what_depends_on_the_clips_size_is_traced_for_one():
    network = _OfSize(lambda x: x.shape[3] == x.shape[4] == 8)
    program, limits = trace(network, [(1, 3, 4, 8, 8), (2, 3, 4, 9, 8)], Limits())
    assert limits == Limits("THW", "torch.export traces this network for one size only")
    clip = torch.randn(3, 3, 4, 8, 8)
    torch.testing.assert_close(program.module()(clip), network(clip))


def test_what_depends_on_values_cannot_be_traced():
    with pytest.raises(ConfigError, match=r"^torch.export cannot trace this network: \S+"):
        trace(_OfSize(lambda x: x.sum() > 0), [(1, 3, 4, 8, 8)], Limits())


def test_limits_are_of_networks_that_exist():
    fixed = {name for name in list_models() if known_limits(name).fixed}
    assert {name for name in list_models() if model_info(name).fixed} < fixed
    assert {"i3d", "srtg_r3d_18", "pytorchvideo/slowfast_r50_8x8"} < fixed
    assert "r3d_50" not in fixed


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("backbone", "settings", "shape"),
    [
        ("r2plus1d_18", {"width": 4}, ["N", 3, "T", "H", "W"]),
        ("srtg_r3d_18", {"width": 4}, ["N", 3, 8, "H", "W"]),
        (
            "srtg_r2plus1d_18",
            {"width": 4, "backbone_options": {"gate": True}},
            ["N", 3, 8, "H", "W"],
        ),
        ("mfnet", {"width": 4}, ["N", 3, "T", "H", "W"]),
        ("ir_csn_50", {"width": 4}, ["N", 3, "T", "H", "W"]),
        ("i3d", {"width": 8}, ["N", 3, 8, 64, 64]),
        ("pytorchvideo/x3d_xs", {"pooling": None}, ["N", 3, "T", "H", "W"]),
        ("pytorchvideo/slowfast_r50_8x8", {}, ["N", 3, 8, "H", "W"]),
        ("torchvision/r2plus1d_18", {"pooling": None}, ["N", 3, "T", "H", "W"]),
        ("torchvision/s3d", {}, ["N", 3, "T", "H", "W"]),
        ("torchvision/resnet18", {"frames": 1}, ["N", 3, 1, "H", "W"]),
        ("torchvision/swin3d_t", {"pooling": None}, ["N", 3, 8, 64, 64]),
    ],
)
def test_every_family(backbone, settings, shape, suffix, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    settings = {"frames": 8, "crop": 64, **settings}
    checkpoint = make_checkpoint(tmp_path / "x.ckpt", backbone, **settings)
    exported = export(checkpoint, tmp_path / f"x{suffix}")
    assert exported.manifest["input"]["shape"] == shape
    check = exported.manifest["check"]
    assert check["max_difference"] <= 1e-5 * max(1, check["largest_logit"])
