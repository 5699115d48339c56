import pytest
import torch

from vidpool.errors import CheckpointError
from vidpool.models import create_model
from vidpool.train.finetuning import load_initial_weights


def network(num_classes=5, width=4):
    return create_model("r3d_18", num_classes=num_classes, width=width)


@pytest.fixture
def saved(tmp_path):
    model = network()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "saved.ckpt")
    return model, tmp_path / "saved.ckpt"


def test_all_weights_are_taken_where_the_classes_are_the_same(saved):
    model, path = saved
    other = network()
    assert load_initial_weights(other, path) == []
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_a_classifier_of_other_classes_stays_fresh(saved):
    model, path = saved
    other = network(num_classes=7)
    classifier = other.fc.weight.clone()
    assert load_initial_weights(other, path) == ["fc.bias", "fc.weight"]
    assert torch.equal(other.fc.weight, classifier)
    assert torch.equal(other.stem[0].weight, model.stem[0].weight)


def test_another_backbone_is_refused_and_nothing_changed(saved):
    other = network(width=8)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"does not fit.*first is layer1.*backbone and width"):
        load_initial_weights(other, saved[1])
    for key, value in other.state_dict().items():
        assert torch.equal(before[key], value), key


def test_weights_of_others_start_a_training_too(tmp_path):
    model, other = network(), network(num_classes=7)
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {}}, tmp_path / "theirs.pth")
    assert load_initial_weights(other, tmp_path / "theirs.pth") == ["fc.bias", "fc.weight"]
    assert torch.equal(other.stem[0].weight, model.stem[0].weight)
