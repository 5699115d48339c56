"""Squeeze and recursion against the LSTM's equations; the gate against a search step by step."""

import pytest
import torch
from torch import nn

from vidpool.models.srtg import SqueezeRecursion, cycle_consistent


def lstm_by_hand(lstm, sequence):
    """Output of a one-way LSTM for one (T, C) sequence, from the equations in PyTorch's manual."""
    for layer in range(lstm.num_layers):
        w_ih, w_hh, b_ih, b_hh = lstm.all_weights[layer]
        hidden = cell = torch.zeros_like(sequence[0])
        outputs = []
        for step in sequence:
            i, f, g, o = (w_ih @ step + b_ih + w_hh @ hidden + b_hh).chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            outputs.append(hidden)
        sequence = torch.stack(outputs)
    return sequence


def consistent_by_hand(first, second):
    """Whether two (T, C) sequences are cycle-consistent."""
    for i, step in enumerate(first):
        j = min(range(len(second)), key=lambda j: (second[j] - step).norm().item())
        back = min(range(len(first)), key=lambda k: (first[k] - second[j]).norm().item())
        if back != i:
            return False
    return True


class Answer(nn.Module):
    """Stands for an LSTM: gives the first clip its own sequence backwards, the others ones."""

    def forward(self, sequence):
        output = torch.ones_like(sequence)
        output[:, 0] = sequence[:, 0].flip(0) + 0.01
        return output, None


@pytest.mark.parametrize("layers", [1, 2])
def test_output_is_the_map_times_the_lstm_of_its_averages(layers):
    torch.manual_seed(0)
    block = SqueezeRecursion(5, layers=layers).double()
    x = torch.randn(3, 5, 4, 2, 3, dtype=torch.float64)
    for clip, output in zip(x, block(x), strict=True):
        weights = lstm_by_hand(block.lstm, clip.mean(dim=(2, 3)).T).T
        torch.testing.assert_close(output, clip * weights[:, :, None, None])


def test_training_and_evaluation_are_the_same():
    block = SqueezeRecursion(5)
    x = torch.randn(2, 5, 4, 2, 2)
    assert torch.equal(block.train()(x), block.eval()(x))


def test_a_gate_is_off_unless_asked_for_and_adds_no_keys():
    assert not SqueezeRecursion(4).gate
    assert list(SqueezeRecursion(4, gate=True).state_dict()) == list(
        SqueezeRecursion(4).state_dict()
    )


def test_gate_weighs_the_consistent_clips_only():
    torch.manual_seed(0)
    block = SqueezeRecursion(5, gate=True)
    block.lstm = Answer()
    x = torch.randn(3, 5, 4, 2, 2)
    output = block(x)
    weights = x[0].mean(dim=(2, 3)).flip(1) + 0.01
    torch.testing.assert_close(output[0], x[0] * weights[:, :, None, None])
    assert torch.equal(output[1:], x[1:])
    block.gate = False
    assert torch.equal(block(x)[0], output[0])


def test_gate_lets_gradients_of_both_sorts_of_clips_through():
    torch.manual_seed(0)
    block = SqueezeRecursion(2, gate=True).double()
    # one step is consistent with whatever its answer is, equal steps never are
    for x, weighed in ((torch.randn(2, 2, 1, 2, 2), True), (torch.ones(2, 2, 3, 2, 2), False)):
        x = x.double().requires_grad_()
        output = block(x)
        assert torch.equal(output, x) is not weighed
        assert torch.autograd.gradcheck(block, x)
        grads = torch.autograd.grad(output.sum(), list(block.parameters()), allow_unused=True)
        assert any(grad is not None and grad.abs().max() > 0 for grad in grads) is weighed


def test_consistency_is_that_of_a_search_step_by_step():
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(200, 3, 4, generator=generator)
    second = first[:, [2, 0, 1]] + 0.9 * torch.randn(200, 3, 4, generator=generator)
    expected = [consistent_by_hand(a, b) for a, b in zip(first, second, strict=True)]
    assert 50 < sum(expected) < 150
    assert cycle_consistent(first, second).tolist() == expected
    assert cycle_consistent(second, first).tolist() == expected


def test_consistency_of_sequences_of_unequal_length():
    line = torch.arange(4.0)[None, :, None]
    finer = torch.arange(0, 4, 0.5)[None, :, None] + 0.1
    assert cycle_consistent(line, finer).tolist() == [True]
    assert cycle_consistent(finer, line).tolist() == [False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_consistency_of_close_steps_in_half_precision(dtype):
    steps = torch.tensor([1, 1.0625, 1.125])[None, :, None].to(dtype).expand(1, 3, 64)
    assert cycle_consistent(steps, steps).tolist() == [True]
    assert cycle_consistent(steps, steps[:, :1].expand(1, 3, 64)).tolist() == [False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gate", [False, True])
def test_under_autocast(gate, half, dtype):
    torch.manual_seed(0)
    block = SqueezeRecursion(8, gate=gate)
    x = torch.rand(2, 8, 4, 3, 3)
    expected = block(x)
    with torch.autocast("cpu", half):
        output = block(x.to(dtype).requires_grad_())
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=2e-2, rtol=5e-2)
    output.sum().backward()
    if not gate:
        assert all(p.grad.isfinite().all() for p in block.parameters())
