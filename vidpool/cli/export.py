"""``vidpool export``: trained networks as ONNX, torch.export or weight files."""

from argparse import RawDescriptionHelpFormatter
from typing import Any

from rich.console import Console

from vidpool.cli.arguments import Parser, add_checkpoint
from vidpool.inference.export import FORMATS, Exported, export
from vidpool.inference.export.writing import TOLERANCE


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool export``."""
    args = _parser(verb).parse_args(arguments)
    with Console(stderr=True).status("") as status:
        exported = export(
            args.ckpt_path,
            args.output,
            format=args.format,
            weights=args.weights,
            fixed_size=args.fixed_size,
            tolerance=args.tolerance,
            overwrite=args.overwrite,
            progress=status.update,
        )
    _print(exported)
    return 0


def _parser(verb: str) -> Parser:
    parser = Parser(
        prog=f"vidpool {verb}",
        formatter_class=RawDescriptionHelpFormatter,
        description="Export a checkpoint's network to a file for other programs, with class names\n"
        "and preprocessing inside and a manifest, FILE.json, alongside. Its logits are compared\n"
        "with PyTorch's before the file is renamed to FILE.\n\n"
        "torch_export and onnx run without vidpool. They take normalized float32 clips\n"
        "(N, C, T, H, W), (RGB in [0, 1] - mean) / std, and return logits (N, classes);\n"
        "mean and std are in the file and in the manifest.",
        epilog="examples:\n"
        f"  vidpool {verb} runs/mine/fit_0/checkpoints/best.ckpt --output mine.onnx\n"
        f"  vidpool {verb} best.ckpt --format torch_export --output mine.pt2\n"
        "  vidpool predict mine.onnx video.mp4",
    )
    add = parser.add_argument
    add_checkpoint(add)
    formats = "; ".join(f"{name} ({', '.join(ends)})" for name, ends in FORMATS.items())
    add("--format", choices=FORMATS, help=f"{formats} (default: by the suffix of FILE)")
    add("--output", required=True, metavar="FILE", help="the file to write")
    add(
        "--weights",
        choices=("averaged", "raw"),
        default="averaged",
        help="averaged weights, if the checkpoint has any, or raw ones (default: %(default)s)",
    )
    add("--fixed_size", action="store_true", help="accept only clips of the checkpoint's T, H, W")
    add(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="largest accepted difference of logits (default: %(default)s)",
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
