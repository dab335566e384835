"""`groma convert`: a checkpoint or a bundle becomes a bundle that runs without PyTorch."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from groma_ros.export.graphs import export_graphs
from groma_ros.export.measure import differences
from groma_ros.image import ImageTransform
from groma_ros.model.checkpoint import load_groma, original_state_dict
from groma_ros.model.groma import Groma
from groma_ros.prompts import PUBLISHED_TEMPLATE
from groma_ros.runtime.bundle import EMBEDDINGS, MANIFEST, ROLES, TOKENIZER, Bundle, BundleError
from groma_ros.runtime.onnx import load_onnx
from groma_ros.runtime.torch import load_model

LIMIT = 1e-3
"""A graph further than this from the network (worst difference over the largest magnitude) is not written into a bundle."""


def convert(source: Path, out: Path) -> Bundle:
    """Make a bundle with graphs of a checkpoint folder (published layout) or of a bundle; out may be the bundle itself.

    The manifest gets the sha256 of every file and the measured difference of every graph to the network in PyTorch. ValueError
    with a sentence for a source that cannot be read or exported, RuntimeError for a graph that does not compute the same.
    """
    if not source.is_dir():
        raise ValueError(f"The folder {source} does not exist; name a checkpoint or a model bundle.")
    bundle = _copy(source, out) if (source / MANIFEST).is_file() else _from_checkpoint(source, out)
    return add_graphs(bundle)


def add_graphs(bundle: Bundle, precision: str = "fp32") -> Bundle:
    """Write the graphs of a bundle's network into it and its manifest; the bundle as it then is. Errors as of `convert`."""
    parts = export_graphs(load_model(bundle))
    model = load_model(bundle)
    files = {**bundle.files, **bundle.write_files({EMBEDDINGS: _embeddings(model)})}
    bundle = dataclasses.replace(bundle, files=files)
    written = bundle.with_graphs(precision, parts, dict.fromkeys(ROLES, float("inf")))
    vision, language = load_onnx(written, "cpu", precision=precision)
    found = differences(model, vision, language)
    for role in ROLES:
        if not found[role] <= LIMIT:
            bundle.write_manifest(bundle.files)
            raise RuntimeError(f"The {role} graph differs by {found[role]:.1e} from the network, more than {LIMIT:g}; it is not listed.")
    bundle.with_graphs(precision, parts, found)
    return Bundle.load(bundle.directory)


def _embeddings(model: Groma) -> bytes:
    """The table of input embeddings, new tokens last, as float16 .npy."""
    with torch.no_grad():
        table = torch.cat([model.llm.model.embed_tokens.weight, model.new_input_embs.weight])
    stream = io.BytesIO()
    np.save(stream, table.half().numpy())
    return stream.getvalue()


def _copy(source: Path, out: Path) -> Bundle:
    """The bundle, in `out`, without graphs that another conversion wrote."""
    bundle = Bundle.load(source)
    files = {name: value for name, value in bundle.files.items() if not name.endswith((".onnx", ".gguf", ".npy"))}
    if out.resolve() != source.resolve():
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            shutil.copyfile(source / name, out / name)
    return dataclasses.replace(bundle, directory=out, files=files, graphs={})


def _from_checkpoint(source: Path, out: Path) -> Bundle:
    """A checkpoint in the published layout, with its SentencePiece tokenizer, as a bundle without graphs."""
    tokenizer = source / TOKENIZER
    if not tokenizer.is_file():
        raise ValueError(f"The checkpoint {source} holds no {TOKENIZER}; put the SentencePiece model of its vocabulary there.")
    if (out / MANIFEST).is_file():
        raise BundleError(f"{out} already holds a bundle; name a new folder for the checkpoint {source}.")
    model = load_groma(source, torch.float32)
    config = model.config
    bundle = Bundle(out, out.name, config.to_dict(), ImageTransform(config.image_size), PUBLISHED_TEMPLATE.to_dict())
    bundle.write({key: value.numpy() for key, value in original_state_dict(model).items()}, tokenizer.read_bytes())
    return Bundle.load(out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `groma convert`."""
    parser.add_argument("source", type=Path, help="folder of a checkpoint (config.json, weights, tokenizer.model) or of a bundle")
    parser.add_argument("--out", type=Path, help="folder of the bundle (default: the source, if that is a bundle)")
    parser.add_argument("--json", action="store_true", help="write one JSON document to standard output")


def run_convert(args: argparse.Namespace) -> int:
    """`groma convert` with the options of `add_arguments`; returns the exit status."""
    if args.out is None and not (args.source / MANIFEST).is_file():
        raise ValueError(f"{args.source} is not a bundle; name the folder to make one in with --out.")
    bundle = convert(args.source, args.out or args.source)
    made = [part for roles in bundle.graphs["precisions"].values() for part in roles.values()]
    rows = {part["file"]: {"bytes": bundle.files[part["file"]]["bytes"], "difference": part["difference"]} for part in made}
    if args.json:
        print(json.dumps({"bundle": str(bundle.directory), "graphs": rows}, indent=1))
    else:
        print("\n".join(f"{name:<22}{row['bytes']:>12} bytes   differs by {row['difference']:.1e}" for name, row in rows.items()))
    return 0
