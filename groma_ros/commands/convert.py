"""`groma convert`: graphs and GGUF of a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from groma_ros.export.convert import convert
from groma_ros.runtime.bundle import (
    GGUF_PRECISIONS,
    MANIFEST,
    ONNX_PRECISIONS,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma convert`."""
    parser.add_argument(
        "source",
        type=Path,
        help="folder of a checkpoint (config.json, weights, tokenizer.model) or of a bundle",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the bundle (default: the source, if that is a bundle)"
    )
    parser.add_argument(
        "--precision",
        default="",
        metavar="LIST",
        help=f"with commas, the default first: {', '.join(ONNX_PRECISIONS)} (graphs), "
        f"{', '.join(GGUF_PRECISIONS)} (language model for "
        "llama.cpp); default: those of the bundle, else fp32, else, of a language model over 2 GB, "
        "fp16,q4_k_m",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        help="pictures to take the ranges of 8-bit graphs from: a folder or a bag (default: rendered scenes)",
    )
    parser.add_argument(
        "--only", action="store_true", help="drop the graphs of all other precisions from the bundle"
    )
    parser.add_argument(
        "--no-weights",
        action="store_true",
        help="make a bundle to run only, without the weights that PyTorch reads",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """`groma convert` with the options of `add_arguments`; returns the exit status."""
    if args.out is None and not (args.source / MANIFEST).is_file():
        raise ValueError(f"{args.source} is not a bundle; name the folder to make one in with --out.")
    names = [name.strip() for name in args.precision.split(",") if name.strip()]
    bundle = convert(args.source, args.out or args.source, names, args.only, not args.no_weights, args.frames)
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
