"""Exported files that are damaged, or of somebody else."""

import json
import os
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from vidpool.errors import CheckpointError, ConfigError
from vidpool.inference.loading import load_network


@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".pth", ".safetensors"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=64))
def test_files_of_anything(tmp_path, suffix, content):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        load_network(path)


def test_a_zip_file_that_is_no_program(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as file:
        file.writestr("x.txt", "nothing")
    with pytest.raises(CheckpointError, match=r"x.pt2: cannot be read as a torch.export program"):
        load_network(tmp_path / "x.pt2")


def test_a_program_of_somebody_else(tmp_path):
    program = torch.export.export(nn.ReLU(), (torch.zeros(1),))
    torch.export.save(program, tmp_path / "x.pt2")
    with pytest.raises(CheckpointError, match=r"x.pt2: holds no class names or preprocessing"):
        load_network(tmp_path / "x.pt2")


def test_an_onnx_file_of_somebody_else(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match=r"x.onnx: holds no class names or preprocessing"):
        load_network(tmp_path / "x.onnx")
    for text in ("no JSON", "[1]", "{}", '{"vidpool": {"preprocessing": {}}}'):
        helper.set_model_props(model, {"vidpool": text})
        onnx.save(model, tmp_path / "x.onnx")
        with pytest.raises(CheckpointError, match=r"x.onnx: does not fit this version"):
            load_network(tmp_path / "x.onnx")
    with pytest.raises(ConfigError, match="device 'tpu' cannot be used"):
        load_network(tmp_path / "x.onnx", "tpu")


def test_no_such_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_network(tmp_path / "x.onnx")


def test_programs_and_classes_whose_names_are_not_utf8(tmp_path):
    from vidpool.data.views import Preprocessing
    from vidpool.inference.export.writing import _save_program

    name = os.fsdecode(b"caf\xe9")
    description = {
        "class_names": [name],
        "preprocessing": Preprocessing(4, 1, 36, 32, 1, 1, (0.5,) * 3, (0.5,) * 3).to_dict(),
    }
    program = torch.export.export(torch.nn.ReLU(), (torch.ones(1, 2),))
    path = tmp_path / f"{name}.pt2"
    _save_program(program, path, {"vidpool": description})
    network = load_network(path, "cpu")
    assert network.class_names == [name]
    assert network.logits(torch.tensor([[-1.0, 1.0]])).tolist() == [[0, 1]]

    onnx = pytest.importorskip("onnx")
    value = [onnx.helper.make_tensor_value_info(each, 1, [1, 2]) for each in "xy"]
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", value[:1], value[1:]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.helper.set_model_props(model, {"vidpool": json.dumps({"vidpool": description})})
    onnx.save(model, path.with_suffix(".onnx"))
    network = load_network(path.with_suffix(".onnx"), "cpu")
    assert network.class_names == [name]
    assert network.logits(torch.tensor([[-1.0, 1.0]])).tolist() == [[0, 1]]
