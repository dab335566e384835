"""`groma build-engine`: build TensorRT engines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groma_ros.atomic_write import write_together
from groma_ros.bench.engine_check import check_engines, write_log
from groma_ros.commands.model_arguments import FindModel
from groma_ros.folder_lock import folder_lock
from groma_ros.progress import ProgressReporter
from groma_ros.runtime.bundle import ONNX_PRECISIONS, Bundle, read_network, require_graphs
from groma_ros.runtime.model_paths import shipped_model
from groma_ros.runtime.tensorrt.bindings import EnginePlan, TensorRT, trtexec_line
from groma_ros.runtime.tensorrt.engine_cache import Built, EngineCache
from groma_ros.runtime.tensorrt.gpu import Gpu, find_gpu
from groma_ros.runtime.tensorrt.vision import (
    ROLES,
    EngineRequest,
    build_engine,
    profiles,
    require_gpu,
    wanted_engines,
)

_WORKSPACE = 1 << 30  # bytes, used if there is no GPU to query


_PICTURES = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma build-engine`."""
    parser.add_argument(
        "--model",
        action=FindModel,
        metavar="MODEL",
        help="name or folder of a model (default: groma-tiny, which ships)",
    )
    parser.add_argument(
        "--precision",
        choices=ONNX_PRECISIONS,
        help="precision of the graphs (default: fp16 if the bundle has it)",
    )
    parser.add_argument(
        "--force-rebuild", action="store_true", help="build engines even if they are in the cache"
    )
    parser.add_argument(
        "--graphs",
        type=Path,
        metavar="DIR",
        help="instead of building, write the graphs for TensorRT to this folder; needs no GPU",
    )
    parser.add_argument(
        "--lower", action="store_true", help="with --graphs: write opset 17 with int32, for TensorRT 8.6"
    )
    parser.add_argument(
        "--check", action="store_true", help="also compare the engines with PyTorch and time them"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=_PICTURES,
        help=f"with --check: number of pictures (default: {_PICTURES})",
    )
    parser.add_argument("--seed", type=int, default=0, help="with --check: seed of the pictures (default: 0)")
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="with --check: file for hardware, versions and figures in Markdown",
    )
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma build-engine` with the options of `add_arguments`; returns the exit status."""
    if args.pictures < 1:
        raise ValueError(f"--pictures is {args.pictures}; it must be at least 1.")
    bundle = Bundle.load(args.model or shipped_model())
    if args.graphs is not None:
        with folder_lock(args.graphs):
            return _say(_write_graphs(bundle, args), args.json)
    if args.check and find_gpu() is None:
        return _say(
            {
                "checked": False,
                "why": "there is no NVIDIA GPU on this machine, so no engine was built or compared",
            },
            args.json,
        )
    gpu = require_gpu()
    library, store = TensorRT(), EngineCache()
    wanted = wanted_engines(bundle, library, gpu, args.precision)
    built = [
        build_engine(item, library, store, ProgressReporter(item.file), args.force_rebuild) for item in wanted
    ]
    document = _built(library, gpu, store, wanted, built)
    if not args.check:
        return _say(document, args.json)
    found = check_engines(bundle, wanted[0].key.precision, args.pictures, args.seed)
    document |= {"checked": True, "check": asdict(found), "ok": found.ok}
    if args.log:
        write_log(args.log, document)
    return _say(document, args.json) or int(not found.ok)


def _write_graphs(bundle: Bundle, args: argparse.Namespace) -> dict[str, Any]:
    """Write the graphs in the form that TensorRT reads, and the command lines that build engines from them on
    another machine."""
    from groma_ros.runtime.tensorrt.onnx_lowering import prepared

    require_graphs(bundle, bundle.vision_precisions)
    precision = args.precision or bundle.vision_precisions[0]
    rows = []
    for role, profile in zip(ROLES, profiles(read_network(bundle))):
        path = args.graphs / f"{role}.onnx"
        write_together({path: prepared(bundle.graph(role, precision).read_bytes(), args.lower)})
        line = trtexec_line(
            path, path.with_suffix(".engine"), None, EnginePlan(profile, _WORKSPACE), not args.lower
        )
        rows.append({"graph": str(path), "precision": precision, "trtexec": line})
    return {"graphs": rows}


def _built(
    library: TensorRT, gpu: Gpu, store: EngineCache, wanted: Sequence[EngineRequest], built: Sequence[Built]
) -> dict[str, Any]:
    rows = []
    for item, made in zip(wanted, built):
        if made.path is None:
            raise OSError(
                f"The engine of {item.file} was built but could not be written to {store.folder}; see the "
                "log."
            )
        graph = (
            item.bundle.directory / item.file
            if library.reads_opset_18
            else Path(f"GRAPHS/{item.key.role}.onnx")
        )
        line = trtexec_line(graph, made.path, store.timing_path(item.key), item.plan, library.strongly_typed)
        rows.append(
            {
                "graph": item.file,
                "precision": item.key.precision,
                "engine": str(made.path),
                "bytes": len(made.engine),
                "reused": made.reused,
                "seconds": round(made.seconds, 1),
                "trtexec": line,
            }
        )
    driver = ".".join(map(str, gpu.driver))
    machine = {
        "gpu": gpu.name,
        "capability": wanted[0].key.capability,
        "memory_mb": gpu.memory_mb,
        "driver": driver,
    }
    return {"model": wanted[0].bundle.name, "tensorrt": library.version, "machine": machine, "engines": rows}


def _say(document: dict[str, Any], as_json: bool) -> int:
    print(json.dumps(document, indent=1) if as_json else "\n".join(_lines(document)))
    return 0


def _lines(document: dict[str, Any]) -> list[str]:
    lines = []
    for row in document.get("graphs", []):
        lines += [row["graph"], f"  on the machine with the GPU: {row['trtexec']}"]
    if "machine" in document:
        lines.append(f"TensorRT {document['tensorrt']} on {document['machine']['gpu']}")
    for row in document.get("engines", []):
        how = "was in the cache" if row["reused"] else f"built in {row['seconds']:.1f} s"
        lines.append(
            f"{row['graph']:<22}{row['precision']:<6}{row['bytes'] / 1e6:>8.1f} MB  {how}  {row['engine']}"
        )
        lines.append(f"  by hand: {row['trtexec']}")
        if "--onnx=GRAPHS/" in row["trtexec"]:
            lines.append("  (GRAPHS is the folder of groma build-engine --graphs GRAPHS --lower)")
    if not document.get("checked", True):
        lines.append(f"Nothing was checked: {document['why']}.")
    if "check" in document:
        lines += [f"{name.replace('_', ' '):<22}{value}" for name, value in document["check"].items()]
        lines.append(
            "The engines answer as PyTorch does."
            if document["ok"]
            else "The engines do not answer as PyTorch does."
        )
    return lines
