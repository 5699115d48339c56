"""``vidpool export``: trained networks as files that others run."""

import argparse
from typing import Any

from rich.console import Console

from vidpool.inference.export import FORMATS, Exported, export
from vidpool.inference.export.writing import TOLERANCE


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool export``."""
    args = _parser(verb).parse_args(arguments)
    with Console(stderr=True).status("") as status:
        exported = export(
            args.ckpt_path,
            args.out,
            format=args.format,
            weights=args.weights,
            fixed_size=args.fixed_size,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            progress=status.update,
        )
    _print(exported)
    return 0


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"vidpool {verb}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Write a checkpoint's network as a file that others run, with class names and\n"
        "preprocessing inside and a manifest, FILE.json, beside it. Its logits are compared\n"
        "with PyTorch's before it gets its name.\n\n"
        "torch_export and onnx run without vidpool. They take normalised float32 clips\n"
        "(N, C, T, H, W), RGB in [0, 1] minus mean over std, and give logits (N, classes);\n"
        "mean and std are in the file and in the manifest.",
        epilog="examples:\n"
        f"  vidpool {verb} --ckpt_path runs/mine/fit_0/checkpoints/best.ckpt --out mine.onnx\n"
        f"  vidpool {verb} --ckpt_path best.ckpt --format torch_export --out mine.pt2\n"
        "  vidpool predict --ckpt_path mine.onnx video.mp4",
    )
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="CKPT", help="of `vidpool fit` or `vidpool import`")
    formats = "; ".join(f"{name} ({', '.join(ends)})" for name, ends in FORMATS.items())
    add("--format", choices=FORMATS, help=f"{formats} (default: what FILE ends in)")
    add("--out", required=True, metavar="FILE")
    add(
        "--weights",
        choices=("averaged", "raw"),
        default="averaged",
        help="those averaged, where the checkpoint has any, or as trained (default: %(default)s)",
    )
    add("--fixed_size", action="store_true", help="take clips of the checkpoint's T, H, W only")
    add(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest difference of logits that is accepted (default: %(default)s)",
    )
    add("--overwrite", action="store_true", help="replace FILE and its manifest")
    return parser


def _print(exported: Exported) -> None:
    manifest: dict[str, Any] = exported.manifest
    check, versions, given = manifest["check"], manifest["versions"], manifest["input"]
    opset = f", opset {versions['onnx_opset']}" if "onnx_opset" in versions else ""
    name = manifest["model"]["backbone"]
    print(f"{name}, {manifest['weights']} weights: {manifest['format']}{opset}")
    shape = ", ".join(map(str, given["shape"]))
    print(f"clip ({shape}) -> logits ({', '.join(map(str, manifest['output']['shape']))})")
    if given["fixed_because"]:
        fixed = ", ".join(
            a for a, n in zip("NCTHW", given["shape"], strict=True) if a not in ("C", n)
        )
        print(f"{fixed} cannot change: {given['fixed_because']}")
    clips = ", ".join("x".join(map(str, clip)) for clip in check["clips"])
    print(
        f"checked on clips {clips}: max |difference| {check['max_difference']:.1e} of logits up to "
        f"{check['largest_logit']:.3g} (tolerance {check['tolerance']:g})"
    )
    if check["logits_range"] < 100 * check["tolerance"]:
        print("the check says little: these logits hardly differ from clip to clip")
    size = manifest["bytes"] / 2**20
    print(f"wrote {exported.path} ({size:.3g} MiB) and {exported.manifest_path}")
