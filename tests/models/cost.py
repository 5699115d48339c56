"""What a network costs, counted on the meta device as the tables of the literature do."""

from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import nn


class Cost(NamedTuple):
    """Multiply-adds of one clip, in billions."""

    multiply_adds: float
    """Of convolutions and linear layers."""
    with_elementwise: float
    """Those, and 2 a batch-norm element, 1 a ReLU element, and the LSTMs' products."""


@contextmanager
def shapes_of_lstms_only():
    """Let LSTMs give empty outputs of the right shape; on meta they go slowly step by step."""

    def forward(self, sequence):
        return sequence.new_empty(*sequence.shape[:-1], self.hidden_size), None

    with patch.object(nn.LSTM, "forward", forward):
        yield


def count(model, frames, side):
    """Cost of one clip of 3 x frames x side x side; the model has to be on the meta device."""
    totals = {"products": 0, "elementwise": 0, "lstm": 0}

    def add(module, inputs, output):
        if isinstance(module, nn.Conv3d | nn.Linear):
            totals["products"] += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.BatchNorm3d):
            totals["elementwise"] += 2 * output.numel()
        elif isinstance(module, nn.ReLU):
            totals["elementwise"] += output.numel()
        elif isinstance(module, nn.LSTM):
            steps, clips, _ = inputs[0].shape
            matrices = (p.numel() for p in module.parameters() if p.ndim == 2)
            totals["lstm"] += steps * clips * sum(matrices)

    handles = [module.register_forward_hook(add) for module in model.modules()]
    with torch.no_grad(), shapes_of_lstms_only():
        model(torch.empty(1, 3, frames, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return Cost(totals["products"] / 1e9, sum(totals.values()) / 1e9)
