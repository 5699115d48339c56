"""A ``vidpool fit`` that can be signalled, and distributed training, in forked processes.

A new interpreter would import PyTorch again, which takes seconds.
"""

import logging
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch

from vidpool.cli import main

FORK = multiprocessing.get_context("fork")
PATIENCE = 120  # seconds, on a machine with other work


class Fit:
    """A run that has been started.

    Attributes:
        pid: Its process, and the group of its processes.
    """

    def __init__(self, arguments, prepare=lambda: None):
        self._output = Path(f"output_{time.monotonic_ns()}.txt")
        self._process = FORK.Process(target=self._run, args=(arguments, prepare))
        self._process.start()
        self.pid = self._process.pid

    def _run(self, arguments, prepare):
        os.setpgid(0, 0)
        redirect_output(self._output)
        prepare()
        status = main(["fit", *arguments])
        sys.stderr.flush()
        os._exit(status)

    @property
    def output(self):
        """What it has printed."""
        return self._output.read_text() if self._output.exists() else ""

    def end(self):
        """Wait for its end and return the exit status, negative for a signal."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"the run did not end: {self.output[-2000:]}")
        return self._process.exitcode

    def wait_for(self, condition):
        """Wait until something is so, and return it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert self._process.is_alive(), self.output[-2000:]
            if time.monotonic() > deadline:
                self._process.kill()
                raise AssertionError(f"it did not come: {self.output[-2000:]}")
            time.sleep(0.002)
        return found


def redirect_output(path):
    """Append what this process prints from now on to a file, Lightning's log included."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
    for handler in logging.getLogger("pytorch_lightning").handlers:
        handler.stream = sys.stderr


def run_ranks(function, *arguments):
    """Call a function in two processes, the ranks 0 and 1 of a training with strategy ddp."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    processes = [
        FORK.Process(target=_run_rank, args=(common | {"LOCAL_RANK": rank}, function, arguments))
        for rank in "01"
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def _run_rank(environment, function, arguments):
    os.environ.update(environment)
    function(*arguments)


def last_checkpoint(run):
    """The last checkpoint of `run`, read as a resuming run reads it."""
    return torch.load(f"runs/tiny/{run}/checkpoints/last.ckpt", weights_only=True)
