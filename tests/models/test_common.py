"""Gradient checkpointing: nothing changes but the memory."""

import copy

import pytest
import torch
from torch import nn

from vidpool.models.common import Chain, run_block


class Counting(nn.Module):
    """Block with batch norm that counts how often it is computed."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm3d(3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.bn(self.conv(x)).relu()


def test_chain_has_the_keys_of_a_sequential():
    blocks = [nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1)]
    assert list(Chain(*blocks).state_dict()) == list(nn.Sequential(*blocks).state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_recomputing_changes_no_output_gradient_or_statistic(training):
    torch.manual_seed(0)
    chain = Chain(Counting(), Counting()).train(training)
    again = copy.deepcopy(chain)
    for _ in range(2):
        x = torch.randn(2, 3, 2, 4, 4)
        output, expected = again(x, gradient_checkpointing=True), chain(x)
        assert torch.equal(output, expected)
        output.square().sum().backward()
        expected.square().sum().backward()
    assert [block.calls for block in chain] == [2, 2]
    assert [block.calls for block in again] == [4, 4]
    for (name, p), q in zip(again.named_parameters(), chain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), name
    assert chain[0].bn.num_batches_tracked == 2 * training
    for (name, p), q in zip(again.named_buffers(), chain.buffers(), strict=True):
        assert torch.equal(p, q), name


def test_a_second_backward_pass_moves_no_statistic_either():
    block = Counting()
    output = run_block(block, torch.randn(2, 3, 2, 4, 4), gradient_checkpointing=True).sum()
    mean, batches = block.bn.running_mean, block.bn.num_batches_tracked
    kept = mean.clone()
    output.backward(retain_graph=True)
    output.backward()
    assert block.calls == 3
    assert block.bn.running_mean is mean
    assert block.bn.num_batches_tracked is batches
    assert torch.equal(mean, kept)
    assert batches == 1


def test_buffers_are_the_blocks_own_after_an_error_while_recomputing():
    block = Counting()
    output = run_block(block, torch.randn(2, 3, 2, 4, 4), gradient_checkpointing=True).sum()
    mean = block.bn.running_mean
    block.conv = nn.Conv3d(5, 3, 1)
    with pytest.raises(RuntimeError):
        output.backward()
    assert block.bn.running_mean is mean


def test_without_gradients_nothing_is_recomputed():
    block = Counting()
    with torch.no_grad():
        run_block(block, torch.randn(2, 3, 2, 4, 4), gradient_checkpointing=True)
    assert block.calls == 1


def test_less_is_kept_for_the_backward_pass():
    chain = Chain(*(Counting() for _ in range(4)))
    kept = {}
    for gradient_checkpointing in (False, True):
        saved = 0

        def pack(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        x = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            chain(x, gradient_checkpointing=gradient_checkpointing)
        kept[gradient_checkpointing] = saved
    assert kept[True] < kept[False] / 2
