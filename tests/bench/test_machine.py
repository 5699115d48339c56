"""The description of the machine, and the warm heap."""

import platform
import subprocess
import sys

import pytest
import torch

from vidpool.bench import machine

PAGES = """
import resource
import torch
from vidpool.bench.machine import keep_heap_warm

assert keep_heap_warm()
x = torch.zeros(2**24)  # 64 MiB, above any threshold that glibc would choose itself
for _ in range(10):  # until the holes that freed copies leave are large enough
    x.clone()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    x.clone()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heap is glibc's")
def test_a_warm_heap_fetches_no_new_pages():
    run = subprocess.run(
        [sys.executable, "-c", PAGES], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(run.stdout) < 1000  # each copy has 16384


def test_elsewhere_the_heap_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(machine.ctypes, "CDLL", None)
    assert machine.keep_heap_warm() is False


def test_the_name_of_the_cpu(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast: 3 GHz\nprocessor\t: 1\n")
    assert machine.cpu_name(cpuinfo) == "Fast: 3 GHz"
    cpuinfo.write_text("processor\t: 0\n")  # as on many Arm machines
    elsewhere = machine.cpu_name(cpuinfo)
    assert elsewhere
    assert machine.cpu_name(tmp_path / "none") == elsewhere


def test_what_is_said_of_a_cpu():
    said = machine.describe_machine("cpu")
    assert said["device_name"] == machine.cpu_name()
    assert said["torch"] == torch.__version__
    assert said["threads"] == torch.get_num_threads()
    assert said["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
