import pytest
import torch

from vidpool.errors import CheckpointError
from vidpool.models import create_model
from vidpool.train.checkpoint import init_from, load_checkpoint


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
    assert init_from(other, path) == []
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_a_classifier_of_other_classes_stays_fresh(saved):
    model, path = saved
    other = network(num_classes=7)
    classifier = other.fc.weight.clone()
    assert init_from(other, path) == ["fc.bias", "fc.weight"]
    assert torch.equal(other.fc.weight, classifier)
    assert torch.equal(other.stem[0].weight, model.stem[0].weight)


def test_another_backbone_is_refused_and_nothing_changed(saved):
    other = network(width=8)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"does not fit.*first is layer1.*model\.width"):
        init_from(other, saved[1])
    for key, value in other.state_dict().items():
        assert torch.equal(before[key], value), key


def test_files_that_are_no_checkpoint(tmp_path, saved):
    (tmp_path / "text").write_text("text")
    (tmp_path / "empty").touch()
    torch.save([1, 2], tmp_path / "list")
    whole = saved[1].read_bytes()
    (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
    for name, message in {
        "absent": "no such checkpoint file",
        "text": "cannot be read",
        "empty": "cannot be read",
        "short": "cannot be read",
        "list": "is no Lightning checkpoint",
    }.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
