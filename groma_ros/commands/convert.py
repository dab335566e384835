"""`groma convert`: export a model as ONNX graphs and GGUF."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groma_ros.runtime.bundle import (
    GGUF_PRECISIONS,
    MANIFEST,
    ONNX_PRECISIONS,
)
from groma_ros.runtime.model_paths import find_checkpoint, find_model, is_name, models_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma convert`."""
    parser.add_argument(
        "source",
        help="name of a checkpoint downloaded by `groma fetch`, or folder of a checkpoint "
        "(config.json, weights, tokenizer.model) or of a bundle",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the bundle (default: the source, if it is a bundle; for a fetched checkpoint "
        "its name in the models folder)",
    )
    parser.add_argument(
        "--precision",
        default="",
        metavar="LIST",
        help=f"comma-separated precisions, the default first: {', '.join(ONNX_PRECISIONS)} (graphs), "
        f"{', '.join(GGUF_PRECISIONS)} (language model for llama.cpp); default: those of the "
        "bundle, else fp32, else, for a language model over 2 GB, fp16,q4_k_m",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        help="folder of pictures or bag to calibrate 8-bit graphs on (default: rendered scenes)",
    )
    parser.add_argument(
        "--only", action="store_true", help="remove the graphs of all other precisions from the bundle"
    )
    parser.add_argument(
        "--no-weights",
        action="store_true",
        help="leave out the weights, which only PyTorch needs",
    )
    parser.add_argument(
        "--strict", action="store_true", help="reject a checkpoint with keys that the network does not have"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma convert` with the options of `add_arguments`; returns the exit status."""
    from groma_ros.export.convert import convert

    source, out = _places(args.source, args.out)
    names = [name.strip() for name in args.precision.split(",") if name.strip()]
    bundle = convert(source, out, names, args.only, not args.no_weights, args.frames, args.strict)
    rows = {
        f"{role} {precision}": {
            "file": part["file"],
            "bytes": bundle.files[part["file"]]["bytes"],
            "difference": part["difference"],
        }
        for precision, roles in bundle.graphs["precisions"].items()
        for role, part in roles.items()
    }
    if args.json:
        print(json.dumps({"bundle": str(bundle.directory), "graphs": rows}, indent=1))
        return 0
    if "q4_k_m" in names and "q4_k_m" not in bundle.gguf_precisions:
        print(
            "The rows of its language model do not divide by 256, so it has q4_0 in place of q4_k_m.",
            file=sys.stderr,
        )
    for name, row in rows.items():
        print(f"{name:<22}{row['file']:<28}{row['bytes']:>14} bytes   differs by {row['difference']:.1e}")
    return 0


def _places(source: str, out: Path | None) -> tuple[Path, Path]:
    """Return the folder to convert and that of the bundle. Raises ValueError if the second is ambiguous."""
    folder = Path(source).expanduser()
    if not folder.is_dir() and is_name(source):
        checkpoint = find_checkpoint(source)
        made = models_folder() / source
        if checkpoint and not (made / MANIFEST).is_file():
            return checkpoint, out or made
        folder = find_model(source)
    if out is None and not (folder / MANIFEST).is_file():
        if not folder.is_dir():
            raise ValueError(f"The folder {folder} does not exist; name a checkpoint or a model bundle.")
        raise ValueError(f"{folder} is not a bundle; name the folder to make one in with --out.")
    return folder, out or folder
