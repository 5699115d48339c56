"""``vidpool env`` says what is installed and what is compiled."""

import platform

import pytest
import torch

from vidpool.cli import env, main


def test_says_what_there_is(capsys):
    assert main(["env"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["torch"].startswith(torch.__version__)
    assert lines["Python"].startswith(platform.python_version())
    assert lines["decord"]


@pytest.mark.parametrize(
    ("compiled", "cuda", "cpu_line", "cuda_line"),
    [
        (set(), None, "plain PyTorch", "no CUDA part"),
        (set(), "13.0", "plain PyTorch", "plain PyTorch"),
    ],
)
def test_says_what_is_missing_and_how_to_get_it(monkeypatch, compiled, cuda, cpu_line, cuda_line):
    monkeypatch.setattr(env, "COMPILED", compiled)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert cpu_line in env.cpu_kernels()
    assert "again from source" in env.cpu_kernels()
    assert cuda_line in env.cuda_kernels()


@pytest.mark.skipif("cpu" not in env.COMPILED, reason="not compiled")
def test_names_the_instruction_set(monkeypatch):
    monkeypatch.setenv("VIDPOOL_CPU_CAPABILITY", "baseline")
    assert env.cpu_kernels() == "compiled kernels for baseline"
