"""How often a network is compiled under schedules of many shapes."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import plan_epoch
from vidpool.data.views import ClipShape
from vidpool.nn import SoftPool3d, split_batch_norm
from vidpool.train.classifier import VideoClassifier
from vidpool.train.network import RECOMPILATIONS, compile_network

BASE = ClipShape(8, 2, 32)


@pytest.fixture(autouse=True)
def _limits():
    with torch._dynamo.config.patch(recompile_limit=8):
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()


class Network(nn.Module):
    """Not a bare `nn.Sequential`, whose own forward PyTorch 2.11 does not compile."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            SoftPool3d(2),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        )

    def forward(self, clip):
        return self.layers(clip)


def classifier():
    """A classifier whose network is small enough to be compiled many times."""
    module = VideoClassifier("r3d_18", 3, width=4, compile=True)
    module.model = Network()
    return module


def train(module, schedule, clips):
    """Take the steps of four epochs' sizes; return the shapes of the batches."""
    shapes = []
    for epoch, count in enumerate(clips):
        for step in plan_epoch(schedule, epoch * schedule.epochs // len(clips), count):
            side = step.shape.crop
            shapes.append((step.batch_size, 3, step.shape.frames, side, side))
            module(torch.randn(shapes[-1])).sum().backward()
    return shapes


def compiled_apart(shapes):
    """Clip sizes, a single clip apart, and CPU convolutions of 16 clips or more."""
    return {(shape[1:], shape[0] == 1, shape[0] >= 16) for shape in shapes}


@pytest.mark.parametrize("variant", ["paper", pytest.param("original", marks=pytest.mark.slow)])
def test_one_compilation_for_each_clip_size(variant):
    """Batches of any size, the last one of an epoch too, share a compilation."""
    schedule = MultigridSchedule(BASE, 2, 20, (10,), variant)
    module, counter = classifier(), CompileCounter()
    compile_network(module.model, counter)
    shapes = train(module, schedule, (150, 143, 137, 150))
    sizes = {shape[1:] for shape in shapes}
    assert len(sizes) <= counter.frame_count <= len(compiled_apart(shapes)) < len(set(shapes))
    compiled = counter.frame_count
    others = train(module, schedule, (149, 145, 136, 149))
    assert set(others) - set(shapes)
    assert counter.frame_count - compiled <= len(compiled_apart(others) - compiled_apart(shapes))


@pytest.mark.slow
def test_with_sub_batch_norm_one_for_each_shape_at_most():
    schedule = MultigridSchedule(BASE, 2, 20)
    module, counter = classifier(), CompileCounter()
    split_batch_norm(module.model, 4)
    compile_network(module.model, counter)
    shapes = train(module, schedule, (150, 143))
    assert len({shape[1:] for shape in shapes}) <= counter.frame_count <= len(set(shapes))
    assert torch._dynamo.config.recompile_limit == RECOMPILATIONS


def test_compiled_results_are_the_same():
    torch.manual_seed(1)
    module = classifier()
    clip = torch.randn(5, 3, 4, 12, 12)
    plain = module.model(clip)
    compile_network(module.model, "aot_eager")
    torch.testing.assert_close(module(clip), plain)
    keys = list(module.state_dict())
    assert keys[:2] == ["model.layers.0.weight", "model.layers.0.bias"]


def test_compiling_twice_changes_nothing():
    module, counter = classifier(), CompileCounter()
    compile_network(module.model, counter)
    compile_network(module.model)
    module(torch.randn(2, 3, 4, 12, 12))
    assert counter.frame_count == 1
