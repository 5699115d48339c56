"""Batch norm over groups of clips, beside plain batch norm of each group and of the whole."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model
from vidpool.nn import SubBatchNorm, split_batch_norm

CHANNELS = 3


def clips(count, *, seed=0, dtype=torch.double):
    generator = torch.Generator().manual_seed(seed)
    size = (count, CHANNELS, 2, 4, 4)
    x = torch.randn(size, generator=generator, dtype=dtype)
    # clips differ, so that the group they are in matters
    return x * torch.linspace(1, 3, count, dtype=dtype).view(-1, 1, 1, 1, 1) + x.mean(
        (2, 3, 4), True
    )


def norms(size_of_group, **options):
    """Sub-batch norm and plain batch norm with the same parameters."""
    plain = nn.BatchNorm3d(CHANNELS, **options).double()
    if plain.affine:
        nn.init.uniform_(plain.weight)
        nn.init.uniform_(plain.bias)
    split = SubBatchNorm(CHANNELS, size_of_group, **options).double()
    split.load_state_dict(plain.state_dict())
    return split, plain


@given(st.integers(1, 40), st.integers(1, 12))
def test_groups_are_normalised_by_themselves(count, size_of_group):
    split, plain = norms(size_of_group)
    x = clips(count)
    groups = x.tensor_split(max(1, count // size_of_group))
    lengths = [len(group) for group in groups]
    assert max(lengths) - min(lengths) <= 1
    assert min(lengths) >= min(size_of_group, count)
    assert max(lengths) < 2 * size_of_group
    expected = torch.cat([plain(group) for group in groups])
    torch.testing.assert_close(split(x), expected)


@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from([0.1, None]))
def test_running_statistics_are_those_of_the_whole_batch(count, size_of_group, momentum):
    split, plain = norms(size_of_group, momentum=momentum)
    for seed in range(3):
        x = clips(count, seed=seed)
        split(x)
        plain(x)
    for name, buffer in plain.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], buffer, msg=name)
    split.eval()
    plain.eval()
    torch.testing.assert_close(split(x), plain(x))


def test_gradients_are_those_of_the_groups():
    split, plain = norms(4)
    x, y = (clips(11).requires_grad_() for _ in range(2))
    cotangent = torch.randn_like(x)
    (split(x) * cotangent).sum().backward()
    (torch.cat([plain(group) for group in y.tensor_split(2)]) * cotangent).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(split.weight.grad, plain.weight.grad)
    torch.testing.assert_close(split.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_without_parameters_or_statistics(options):
    split, plain = norms(3, **options)
    x = clips(7)
    other = copy.deepcopy(plain)
    torch.testing.assert_close(split(x), torch.cat([other(part) for part in x.tensor_split(2)]))
    plain(x)
    torch.testing.assert_close(split.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_with_statistics_in_float32(dtype):
    split = SubBatchNorm(CHANNELS, 4)
    x = clips(8, dtype=torch.float32)
    found = split(x.to(dtype))
    assert found.dtype == dtype
    assert split.running_mean.dtype == torch.float32
    other = SubBatchNorm(CHANNELS, 4)
    torch.testing.assert_close(found.float(), other(x), atol=0.05, rtol=0.02)


def test_channels_last_stays():
    split, _ = norms(4)
    x = clips(8)
    found = split(x.to(memory_format=torch.channels_last_3d))
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found, split(x))


def test_a_network_keeps_its_keys_parameters_and_evaluation():
    model = create_model("r3d_18", num_classes=5, width=4)
    before = copy.deepcopy(model)
    parameters = list(model.parameters())
    names = split_batch_norm(model, 2)
    plain = [name for name, module in before.named_modules() if isinstance(module, nn.BatchNorm3d)]
    assert names == plain
    assert len(names) == 20
    assert not any(isinstance(module, nn.BatchNorm3d) for module in model.modules())
    assert list(model.state_dict()) == list(before.state_dict())
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    x = torch.randn(4, 3, 4, 16, 16)
    trained, whole = model(x), before(x)
    assert not torch.allclose(trained, whole)
    halves = torch.cat([copy.deepcopy(before)(half) for half in x.split(2)])
    torch.testing.assert_close(trained, halves)
    before.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.eval()(x), before.eval()(x))


def test_frozen_layers_stay_frozen():
    model = nn.Sequential(nn.BatchNorm3d(CHANNELS), nn.BatchNorm3d(CHANNELS)).double()
    model[0].eval()
    split_batch_norm(model, 2)
    assert [layer.training for layer in model] == [False, True]
    model(clips(4))
    assert model[0].num_batches_tracked == 0
    assert model[1].num_batches_tracked == 1


def test_a_shared_layer_stays_shared():
    layer = nn.BatchNorm3d(CHANNELS)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert split_batch_norm(model, 2) == ["0", "2"]
    assert model[0] is model[2]


def test_what_cannot_be_split():
    with pytest.raises(ConfigError, match="no batch norm"):
        split_batch_norm(nn.Sequential(nn.Conv3d(3, 3, 1)), 8)
    with pytest.raises(ConfigError, match=r"at least 1 clip .* 0"):
        split_batch_norm(nn.Sequential(nn.BatchNorm3d(3)), 0)
    with pytest.raises(ValueError, match="dimensions"):
        SubBatchNorm(3, 8)(torch.zeros(3))
