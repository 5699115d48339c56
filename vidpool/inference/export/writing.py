"""Export of a trained network to a file, checked before it is kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save_file
from torch import nn

from vidpool import __version__
from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import atomic_write, check_output, write_json
from vidpool.inference.export.comparison import compare, example_shapes
from vidpool.inference.export.tracing import ImageModelOfClips, Limits, known_limits, trace
from vidpool.inference.loading import (
    EXTRA_FILE,
    load_network,
    need_onnx,
    restore_classifier,
)
from vidpool.models import model_info
from vidpool.models.weights import DESCRIPTION, load_checkpoint
from vidpool.train.checkpoints import CLASS
from vidpool.train.network import ARCHITECTURE

Weights = Literal["averaged", "raw"]
FORMATS = {
    "state_dict": (".pth", ".pt"),
    "safetensors": (".safetensors",),
    "torch_export": (".pt2",),
    "onnx": (".onnx",),
}
"""Formats by name, and the suffixes of their files."""
OPSET = 20
"""Version of ONNX's standard operators."""
TOLERANCE = 1e-4
INPUT = (
    "normalised clips: RGB pixels in [0, 1], minus preprocessing.mean, divided by preprocessing.std"
)


@dataclass(frozen=True)
class Exported:
    """An exported file."""

    path: Path
    manifest_path: Path
    manifest: dict[str, Any]
    """Content of the JSON file at `manifest_path`."""


def export(
    ckpt_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    format: str | None = None,
    weights: Weights = "averaged",
    fixed_size: bool = False,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Export the network of a checkpoint to a file, with a manifest next to it.

    Programs (`torch_export`, `onnx`) map normalised float32 clips `clip` (N, C, T, H, W) to
    `logits` (N, classes), of any N, and of any T, H and W where the network can be traced so. They
    hold nothing of vidpool's: SoftPool is made of standard operators. Class names and preprocessing
    are in every file: as `vidpool.json` in torch.export's archive, as the property `vidpool` of
    ONNX and safetensors, as the entry `vidpool` of a `.pth`.

    The file is loaded again and its logits compared with the network's, on clips of several sizes,
    before it gets its name.

    Args:
        ckpt_path: A checkpoint of `vidpool fit` or `vidpool import`, or a `.pth` or
            `.safetensors` of this function.
        out: The file; `out` with `.json` behind is the manifest.
        network: As for :func:`~vidpool.inference.loading.load_classifier`; it is copied.
        format: One of `FORMATS`; by default what the suffix of `out` says.
        weights: `averaged` takes those where the checkpoint has any, `raw` those that were trained.
        fixed_size: Keep T, H and W in programs as the checkpoint's clips have them.
        tolerance: Largest difference of logits that is accepted; of logits beyond 1, in parts of
            the largest.
        overwrite: Replace the files where they exist.
        progress: Called with what is being done.

    Raises:
        CheckpointError: The checkpoint cannot be used, or does not hold such weights.
        ConfigError: A value cannot work, a package is missing, the network cannot be traced, or the
            difference is too large; then nothing is written.
    """
    out = Path(out)
    format = _format(out, format)
    manifest_path = out.with_name(f"{out.name}.json")
    check_output(out, overwrite, FORMATS[format])
    check_output(manifest_path, overwrite, (".json",))
    if not tolerance > 0:
        raise ConfigError(f"tolerance must be positive, got {tolerance}", "tolerance")
    if weights not in get_args(Weights):
        raise ConfigError(f"weights must be one of {get_args(Weights)}, got {weights!r}", "weights")
    if format == "onnx":
        need_onnx()
    progress("reading the checkpoint")
    checkpoint = load_checkpoint(ckpt_path)
    taken = _choose(checkpoint, weights, ckpt_path)
    classifier, class_names, preprocessing = restore_classifier(
        checkpoint, ckpt_path, deepcopy(network)
    )
    model = classifier.model.float().to(memory_format=torch.contiguous_format)
    model.requires_grad_(False)
    clip_network = ImageModelOfClips(model) if classifier.is_image_model else model
    name = str(classifier.hparams["backbone"])
    channels = (classifier.hparams["backbone_options"] or {}).get("in_channels", 3)
    clip = (preprocessing.frames, preprocessing.crop, preprocessing.crop)
    limits = Limits("THW", "as was asked for") if fixed_size else known_limits(name)
    program = None
    if format in ("torch_export", "onnx"):
        progress(f"tracing {name}")
        program, limits = trace(
            clip_network, example_shapes(name, channels, clip, limits.fixed), limits
        )
    elif name.startswith(CLASS) or not (classifier.is_image_model or model_info(name).fixed):
        limits = Limits()
    sizes = zip("NTHW", (1, *clip), strict=True)
    n, *rest = (size if axis in limits.fixed else axis for axis, size in sizes)
    content = {
        "hyper_parameters": {key: classifier.hparams[key] for key in ARCHITECTURE},
        DESCRIPTION: {
            "class_names": class_names,
            "preprocessing": preprocessing.to_dict(),
            "weights": taken,
            "metrics": _metrics(checkpoint),
            "input": {
                "name": "clip",
                "dtype": "float32",
                "shape": [n, channels, *rest],
                "what": INPUT,
                "fixed_because": limits.reason or None,
            },
            "output": {"name": "logits", "dtype": "float32", "shape": [n, len(class_names)]},
            "versions": _versions(format),
        },
    }
    with atomic_write(out) as part, atomic_write(manifest_path) as note:
        progress(f"writing {format}")
        if format == "safetensors":
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_file(state, part, metadata={DESCRIPTION: json.dumps(content)})
        elif program is None:
            torch.save({"state_dict": model.state_dict(), **content}, part)
        elif format == "torch_export":
            _save_program(program, part, content)
        else:
            _save_onnx(program, part, content)
        progress("checking the file's logits")
        shapes = example_shapes(name, channels, clip, limits.fixed)
        # programs contain their network
        exported = load_network(part, "cpu", deepcopy(network) if program is None else None)
        manifest = {
            "file": out.name,
            "format": format,
            "bytes": part.stat().st_size,
            "sha256": _sha256(part),
            "model": content["hyper_parameters"],
            **content[DESCRIPTION],
            "check": compare(clip_network, exported, shapes, tolerance, out),
        }
        write_json(note, manifest)
    return Exported(out, manifest_path, manifest)


def _format(out: Path, format: str | None) -> str:
    """Return the given format, or that of the file's suffix.

    Raises:
        ConfigError: The format is unknown, or the suffix belongs to another.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got {format!r}", "format")
    found = next((name for name, suffixes in FORMATS.items() if out.suffix in suffixes), None)
    if found is None or format not in (None, found):
        formats = {format: FORMATS[format]} if format else FORMATS
        endings = "; ".join(f"{' or '.join(ends)} for {name}" for name, ends in formats.items())
        raise ConfigError(f"{out}: must end in {endings}", "out")
    return found


def _choose(checkpoint: dict[str, Any], weights: Weights, path: str | os.PathLike[str]) -> Weights:
    """Put the chosen weights into `state_dict`, and return which they are.

    Lightning's weight averaging saves averaged weights there, and trained ones under another name.
    """
    raw = checkpoint.get("current_model_state")
    saved = (checkpoint.get(DESCRIPTION) or {}).get("weights")
    if weights == "raw" and saved == "averaged":
        raise CheckpointError(
            f"{path}: holds averaged weights alone: export raw ones of the .ckpt", "weights"
        )
    if raw is None:
        return "averaged" if saved == "averaged" else "raw"
    if weights == "raw":
        checkpoint["state_dict"] = raw
    return weights


def _metrics(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics that a checkpoint contains."""
    if "callbacks" not in checkpoint:
        return (checkpoint.get(DESCRIPTION) or {}).get("metrics") or {}
    found: dict[str, Any] = {}
    for key, state in checkpoint["callbacks"].items():
        if not key.startswith("ModelCheckpoint") or not state.get("monitor"):
            continue
        scores = {"best": state.get("best_model_score"), "last": state.get("current_score")}
        found[state["monitor"]] = {k: float(v) for k, v in scores.items() if v is not None}
    found |= {key: checkpoint[key] for key in ("epoch", "global_step") if key in checkpoint}
    return found


def _versions(format: str) -> dict[str, Any]:
    versions: dict[str, Any] = {"vidpool": __version__, "torch": str(torch.__version__)}
    if format == "onnx":
        versions |= {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")}
        versions["onnx_opset"] = OPSET
    return versions


def _save_program(
    program: torch.export.ExportedProgram, path: Path, content: dict[str, Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with path.open("wb") as file:  # a path must be UTF-8
            torch.export.save(program, file, extra_files={EXTRA_FILE: json.dumps(content)})


def _save_onnx(program: torch.export.ExportedProgram, path: Path, content: dict[str, Any]) -> None:
    """Convert a program to ONNX's standard operators.

    Raises:
        ConfigError: ONNX has no equivalent of an operator.
    """
    import onnx

    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=["clip"],
                output_names=["logits"],
                verbose=False,
            )
    except Exception as error:  # the converter raises what it likes
        reason = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"this network cannot be said in ONNX: {reason[0]}") from error
    finally:
        exporter.setLevel(level)
    assert converted is not None
    model = converted.model_proto
    described = content[DESCRIPTION]
    for value, shape in (
        (model.graph.input[0], described["input"]["shape"]),
        (model.graph.output[0], described["output"]["shape"]),
    ):
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if isinstance(size, str):  # the tracer calls axes by numbers
                dim.dim_param = size
    del model.graph.value_info[:]  # which has these names too, and can be inferred
    onnx.helper.set_model_props(model, {DESCRIPTION: json.dumps(content)})
    foreign = {node.domain or node.op_type for node in model.graph.node if node.domain}
    if foreign or model.functions:
        raise ConfigError(f"this network needs operators beyond ONNX's own: {sorted(foreign)}")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
