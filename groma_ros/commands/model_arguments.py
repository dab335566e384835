"""Options that choose the model and how it runs, shared by every command that runs one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from groma_ros.runtime.options import BACKENDS, RuntimeOptions


class FindModel(argparse.Action):
    """Stores the folder (Path) of the model that a name or a path denotes.

    Raises ValueError as `find_model` does; argparse passes it on, so the message is the same as elsewhere.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Find the model."""
        from groma_ros.runtime.model_paths import find_model

        setattr(namespace, self.dest, find_model(str(values)))


def add_model_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, *, required: bool = False, device: bool = False
) -> None:
    """Add --model, --backend, --precision and --threads.

    required: a model must be given, else the shipped one is used; device: add --device too, for commands
    that run in one process.
    """
    default = "" if required else " (default: groma-tiny, which ships)"
    parser.add_argument(
        "--model",
        action=FindModel,
        required=required,
        metavar="MODEL",
        help=f"name or folder of a model{default}",
    )
    parser.add_argument("--backend", default="auto", help=f"backend: {', '.join(BACKENDS)} (default: auto)")
    parser.add_argument(
        "--precision",
        default="auto",
        help="precision of the model, e.g. fp32, int8 or q4_k_m (default: the model's own)",
    )
    if device:
        parser.add_argument("--device", help="cpu, cuda or cuda:N (default: the backend's choice)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the backend's choice)")


def runtime_options(args: argparse.Namespace) -> RuntimeOptions:
    """Return the options parsed by `add_model_arguments`. Raises ValueError for an unknown backend."""
    return RuntimeOptions(
        backend=args.backend,
        device=getattr(args, "device", None),
        precision=args.precision,
        threads=args.threads,
    )
