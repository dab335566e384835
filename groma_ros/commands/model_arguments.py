"""Options that choose which model runs and how, shared by every command that runs one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from groma_ros.runtime.options import BACKENDS, RuntimeOptions

if TYPE_CHECKING:
    from pathlib import Path


def add_model_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *, required: bool = False, device: bool = False
) -> None:
    """Add --model, --backend, --precision and --threads.

    required: a model must be named, else the one that ships is taken; device: add --device too, for commands
    that run in one process.
    """
    default = "" if required else " (default: groma-tiny, which ships)"
    parser.add_argument(
        "--model",
        type=_model,
        required=required,
        metavar="MODEL",
        help=f"a model's name or its folder{default}",
    )
    parser.add_argument(
        "--backend", default="auto", help=f"what runs it: {', '.join(BACKENDS)} (default: auto)"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="of the model, e.g. fp32, int8 or q4_k_m (default: the model's own)",
    )
    if device:
        parser.add_argument("--device", help="cpu, cuda or cuda:N (default: the backend's choice)")
    parser.add_argument("--threads", type=int, help="on the CPU (default: the backend's choice)")


def runtime_options(args: argparse.Namespace) -> RuntimeOptions:
    """The options parsed by `add_model_arguments`. Raises ValueError for an unknown backend."""
    return RuntimeOptions(
        backend=args.backend,
        device=getattr(args, "device", None),
        precision=args.precision,
        threads=args.threads,
    )


def _model(text: str) -> Path:
    """The folder of a model; the text itself if there is none, which is reported when it is loaded."""
    from pathlib import Path

    from groma_ros.runtime.model_paths import find_model

    try:
        return find_model(text)
    except ValueError:
        return Path(text)
