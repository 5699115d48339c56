"""Costs against the paper's tables, fvcore, and formulas written by hand."""

import pytest
import torch
from torch import nn

from vidpool.errors import ConfigError
from vidpool.models import create_model
from vidpool.models.cost import measure_cost, pooling_layers, values_per_channel
from vidpool.nn import AdaptiveSoftPool3d, swap_pooling


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


# Table 7's GFLOPs, of 32 x 224 x 224 clips and 400 classes; parameters in millions
TABLE_7 = {
    "r3d_50": (36.73, 53.16),
    "r3d_101": (69.06, 78.52),
    "r2plus1d_50": (34.86, 50.04),
    "r2plus1d_101": (67.22, 75.43),  # not in the table
}


@pytest.mark.parametrize("name", TABLE_7)
def test_the_papers_count_is_the_papers(name):
    cost = measure_cost(on_meta(name), (32, 224, 224))
    millions, billions = TABLE_7[name]
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=1e-3)
    assert cost.paper / 1e9 == pytest.approx(billions, rel=2e-4)


def test_convolutions_and_linear_layers_alone():
    cost = measure_cost(on_meta("r3d_50"), (8, 160, 160))
    assert cost.conv_linear / 1e9 == pytest.approx(7.04, rel=1e-3)


class Small(nn.Module):
    """Everything that is counted, and pooling, which is not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 8, (1, 3, 3), stride=2, padding=(0, 1, 1), groups=1)
        self.norm = nn.BatchNorm3d(8)
        self.plain_norm = nn.BatchNorm3d(8, affine=False)
        self.pool = nn.MaxPool3d(2)
        self.lstm = nn.LSTM(8, 6, num_layers=2)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(self.plain_norm(self.norm(self.conv(x)).relu()).relu_())
        x, _ = self.lstm(x.mean(dim=(3, 4)).permute(2, 0, 1))
        return self.fc(x[-1])


def test_each_part_by_hand():
    model = Small()
    cost = measure_cost(model, (8, 12, 20))
    cells = 8 * 4 * 6 * 10  # channels and positions after the convolution
    assert cost.products == cells * 27 + 6 * 5
    assert cost.batch_norm == 2 * cells + cells
    assert cost.relu == 2 * cells
    # two steps in time; four gates, of the input and of the six hidden units, in two layers
    assert cost.recurrent == 2 * 4 * 6 * ((8 + 6) + (6 + 6))
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.conv_linear == cost.products
    assert cost.fvcore == cost.products + 3 * cells
    assert cost.paper == cost.fvcore + 2 * cells + cost.recurrent


def test_a_recurrent_model_of_its_own():
    lstm = nn.LSTM(7, 3, batch_first=True)
    assert measure_cost(lstm, (7,), channels=11).recurrent == 11 * 4 * 3 * (7 + 3)


def test_fvcore_counts_the_same():
    fvcore = pytest.importorskip("fvcore.nn")
    model = create_model("r2plus1d_18", num_classes=7, width=8).eval()
    clip = torch.zeros(1, 3, 8, 32, 32)
    analysis = fvcore.FlopCountAnalysis(model, clip).unsupported_ops_warnings(False)
    assert measure_cost(model, (8, 32, 32)).fvcore == analysis.total()


def test_the_model_stays_as_it_is():
    model = Small().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure_cost(model, (8, 12, 20))
    pooling_layers(model, (8, 12, 20))
    assert model.training
    assert model.lstm.training
    for key, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[key]), key
    assert isinstance(model.pool, nn.MaxPool3d)
    assert not model.pool._forward_hooks
    assert model(torch.randn(2, 3, 8, 12, 20)).shape == (2, 5)


@pytest.mark.parametrize("name", ["r3d_18", "mfnet", "i3d"])
def test_values_that_batch_norm_gets_of_a_clip(name):
    network = create_model(name, num_classes=2)
    sizes = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.register_forward_pre_hook(lambda _, x: sizes.append(x[0][0, 0].numel()))
    network(torch.randn(2, 3, 4, 32, 32))
    assert values_per_channel(network, (4, 32, 32)) == min(sizes)
    assert values_per_channel(network, (2, 16, 16)) == 1
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        network(torch.randn(1, 3, 2, 16, 16))


def test_batch_norms_that_are_not_trained_need_no_values():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(4), nn.BatchNorm2d(3))
    assert values_per_channel(network, (4, 8)) == 2
    network[2].eval()
    assert values_per_channel(network, (4, 8)) == 32
    assert values_per_channel(network.eval(), (4, 8)) is None


def test_a_size_that_cannot_be_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="Small cannot take 3 channels of size 1x1x1"):
        measure_cost(Small(), (1, 1, 1))
    with pytest.raises(ConfigError, match="Small cannot take 4 channels"):
        pooling_layers(Small(), (8, 12, 20), channels=4)


class OwnPadding(nn.AvgPool3d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1)))


def test_pooling_layers():
    model = nn.Sequential(
        nn.MaxPool3d([1, 3, 3], (1, 2, 2), [0, 1, 1]),  # PyTorchVideo gives lists
        nn.ReLU(),
        OwnPadding(2, ceil_mode=True),
        nn.AdaptiveAvgPool3d((2, 1, 1)),
    )
    model[1].unused = nn.MaxPool2d(2)  # in the model, but no part of its forward pass
    layers = {layer.name: layer for layer in pooling_layers(model, (5, 9, 12))}
    assert list(layers) == ["0", "1.unused", "2", "3"]
    assert layers["0"].kind == "MaxPool3d"
    assert layers["0"].geometry == {
        "kernel_size": (1, 3, 3),
        "stride": (1, 2, 2),
        "padding": (0, 1, 1),
    }
    assert layers["0"].sizes == ((5, 9, 12), (5, 5, 6))
    assert layers["1.unused"].sizes is None
    assert layers["1.unused"].geometry == {"kernel_size": 2, "stride": 2}
    assert layers["2"].kind == "OwnPadding"
    assert layers["2"].geometry == {"kernel_size": 2, "stride": 2, "ceil_mode": True}
    assert layers["2"].sizes == ((5, 5, 6), (3, 3, 4))
    assert layers["3"].geometry == {"output_size": (2, 1, 1)}
    swapped = {name for name, layer in layers.items() if layer.swapped}
    assert swapped == {"0", "1.unused"}


class Calls(nn.Module):
    """Pools by functions: a map twice, and all of it, which swap_pooling leaves alone."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = nn.functional.avg_pool2d(nn.functional.max_pool2d(self.pool(x), 3, 2, 1), 2)
        return nn.functional.avg_pool2d(x, 2, 1)


class Branches(Calls):
    """Cannot be traced."""

    def forward(self, x):
        return super().forward(x) if x.is_meta or x.sum() > 0 else x


def test_calls_are_listed_after_the_layers():
    block = Calls()
    layers = pooling_layers(nn.Sequential(block, nn.Upsample(scale_factor=16), block), (32, 48))
    assert [(layer.name, layer.kind) for layer in layers] == [
        ("0.pool", "MaxPool2d"),
        ("0.max_pool2d", "MaxPool2d"),
        ("0.avg_pool2d", "AvgPool2d"),
        ("2.max_pool2d", "MaxPool2d"),
        ("2.avg_pool2d", "AvgPool2d"),
    ]
    assert [(layer.swapped, layer.called) for layer in layers[:2]] == [(True, False), (False, True)]
    assert layers[1].geometry == {"kernel_size": 3, "stride": 2, "padding": 1}
    assert type(block) is Calls


def test_what_swap_pooling_would_refuse_is_listed_all_the_same():
    model = nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, divisor_override=2), Branches())
    layers = pooling_layers(model, (64, 64))
    assert [layer.name for layer in layers] == ["0", "1", "2.pool"]
    assert all(layer.swapped for layer in layers)
    with pytest.raises(ConfigError, match="divisor_override"):
        swap_pooling(model)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool3d(1), AdaptiveSoftPool3d(1)])
def test_nothing_to_swap(pool):
    (layer,) = pooling_layers(nn.Sequential(pool), (4, 4, 4))
    assert layer.geometry == {"output_size": 1}
    assert layer.sizes == ((4, 4, 4), (1, 1, 1))
    assert not layer.swapped
