"""The reference outputs that lie beside the repository, with the weights they were made with."""

import json
import zlib
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2].parent / "shared" / "reference"


class Reference(NamedTuple):
    """What the public implementation computes, in float64."""

    shapes: dict[str, tuple[int, ...]]
    parameters: int
    training: bool
    weights: dict[str, torch.Tensor]
    clip: torch.Tensor
    logits: torch.Tensor


@pytest.fixture
def reference():
    """Function from a network's name to its Reference; skips where there is none."""

    def load(name):
        file = FOLDER / f"{name}.json"
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        content = json.loads(file.read_text())
        shapes = {key: tuple(shape) for key, shape in content["state_dict"].items()}
        clip = np.random.RandomState(20210105).standard_normal(content["input_shape"])
        return Reference(
            shapes=shapes,
            parameters=content["params"],
            training=content["mode"] == "train",
            weights={key: torch.as_tensor(_weight(key, shape)) for key, shape in shapes.items()},
            clip=torch.as_tensor(clip),
            logits=torch.tensor(content["output"], dtype=torch.float64),
        )

    return load


def _weight(key, shape):
    """Weight made from its key by the rule of the folder's README."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_mean"):
        return np.zeros(shape)
    if key.endswith("running_var"):
        return np.ones(shape)
    z = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    recurrent = ".lstm." in key
    if len(shape) > 1:
        return z * (3 if recurrent else 2**0.5) / prod(shape[1:]) ** 0.5
    if recurrent:
        return z
    return 1 + 0.1 * z if key.endswith("weight") else 0.1 * z
