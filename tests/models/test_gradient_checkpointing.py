"""Gradient checkpointing of the networks of other libraries: nothing changes but the memory."""

import copy

import pytest
import torch
from torch import nn

from vidpool.models import create_model


def train_once(model, x, aux=False):
    torch.manual_seed(1)  # dropout and stochastic depth
    logits = model(x)
    loss = sum(part.square().mean() for part in logits) if aux else logits.square().mean()
    loss.backward()


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("pytorchvideo/x3d_xs", (4, 33, 40), {}),
        pytest.param("pytorchvideo/slowfast_r50_8x8", (8, 32, 32), {}, marks=pytest.mark.slow),
        ("torchvision/r3d_18", (4, 20, 24), {}),
        ("torchvision/swin3d_t", (4, 32, 32), {}),
        ("torchvision/resnet18", (33, 40), {}),
        ("torchvision/googlenet", (33, 40), {"aux_logits": True}),
        pytest.param("torchvision/mvit_v2_s", (16, 224, 224), {}, marks=pytest.mark.slow),
    ],
)
def test_checkpointing_changes_nothing_but_the_memory(name, size, options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, gradient_checkpointing=True, **options).train()
    plain = copy.deepcopy(model)
    plain.gradient_checkpointing = False
    batch = 1 if size == (16, 224, 224) else 2
    x = torch.randn(batch, 3, *size)
    kept = {}
    for network in (model, plain):
        kept[network] = 0

        def pack(tensor, network=network):
            # feature maps; parameters are there anyway
            is_map = tensor.ndim > 2 and not isinstance(tensor, nn.Parameter)
            kept[network] += tensor.numel() * is_map
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            train_once(network, x, aux=bool(options))
    assert kept[model] < kept[plain] / 2
    for (key, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), key
    for (key, p), q in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(p, q), key
