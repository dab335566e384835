"""`groma verify`: compare the network with recorded tensors, or a bundle's graphs with its network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from groma_ros.runtime.model_paths import MANIFEST, find_model, is_name

if TYPE_CHECKING:
    from groma_ros.export.self_check import SelfCheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groma verify`."""
    parser.add_argument(
        "target",
        help="name or folder of a model, whose graphs are compared with its network in PyTorch on a "
        "picture; or a folder with config.json, meta.json and recorded tensors",
    )
    parser.add_argument("--image", type=Path, help="picture to check a model on (default: a generated one)")
    parser.add_argument("--goal", default="the red box", help="goal to ask (default: the red box)")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run(args: argparse.Namespace) -> int:
    """Run `groma verify`. Returns 0 if the compared values are equal, else 1. Raises ValueError for an
    unusable folder."""
    folder = Path(args.target).expanduser()
    if not (folder / MANIFEST).is_file() and (folder.is_dir() or not is_name(args.target)):
        return _recorded(folder, args.json)
    from groma_ros.export.measure import drawn_picture
    from groma_ros.export.self_check import self_check
    from groma_ros.io.images import compressed_to_rgb
    from groma_ros.runtime.bundle import Bundle
    from groma_ros.runtime.first_load import ensure_tried
    from groma_ros.runtime.options import RuntimeOptions

    bundle = Bundle.load(find_model(args.target))
    picture = compressed_to_rgb(args.image.read_bytes(), args.image.suffix) if args.image else drawn_picture()
    for precision in (*bundle.precisions, *bundle.gguf_precisions):
        backend = "llama_cpp" if precision in bundle.gguf_precisions else "onnx"
        ensure_tried(bundle, RuntimeOptions(backend=backend, precision=precision, device="cpu"))
    found = self_check(bundle, picture, args.goal)
    print(json.dumps(found.to_dict(), indent=1) if args.json else "\n".join(_lines(found, args.goal)))
    return 0 if found.ok else 1


def _recorded(folder: Path, as_json: bool) -> int:
    from rich.console import Console

    from groma_ros.model.reference import Reference
    from groma_ros.model.verify import print_report, verify

    report = verify(Reference.load(folder))
    if as_json:
        print(json.dumps(report.to_dict()))
    else:
        print_report(report, Console())
    return 0 if report.ok else 1


def _lines(found: SelfCheck, goal: str) -> list[str]:
    lines = [
        f"{item.precision:<8}{item.role:<16}differs by {item.difference:.1e} of at most {item.limit:g}  "
        f"{'ok' if item.ok else 'WRONG'}"
        for item in found.stages
    ]
    lines += [f"stages not compared: {found.not_compared}"] if found.not_compared else []
    lines.append(f"answers to {goal!r}:")
    for answer in found.answers:
        best = " ".join(f"{value:.0f}" for value in answer.boxes[0]) if answer.boxes else "no box"
        same = "as the first" if answer.as_first else "another box than the first"
        lines.append(
            f"{answer.precision:<8}{answer.backend:<16}presence {answer.presence:.2f}  {best}  ({same})"
        )
    return lines
