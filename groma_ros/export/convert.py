"""`groma convert`: make a bundle that runs without PyTorch from a checkpoint or another bundle."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from groma_ros.atomic_write import LOCK_NAME, AtomicFile, naming_file, take_over, write_together
from groma_ros.export.calibration_frames import read_frames
from groma_ros.export.graphs import LARGEST
from groma_ros.export.making import Maker
from groma_ros.file_checks import check_disk, refuse_pointer
from groma_ros.folder_lock import folder_lock
from groma_ros.model.weight_files import read_config
from groma_ros.model.weights import Halves, Weights, write_halves
from groma_ros.network_config import GromaConfig
from groma_ros.preprocessing import ImageTransform
from groma_ros.progress import shown
from groma_ros.runtime.bundle import (
    EMBEDDINGS,
    GGUF_PRECISIONS,
    MANIFEST,
    ONNX_PRECISIONS,
    ROLES,
    TOKENIZER,
    WEIGHTS,
    Bundle,
    BundleError,
    described,
    read_network,
)
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE
from groma_ros.tokenization.tokenizer import GromaTokenizer

MAKING = ".making-"
"""Start or end of the names of temporary folders; the next run deletes those left over."""
LARGE = ("fp16", "q4_k_m")
"""Default precisions for a language model that does not fit into one graph file."""


def convert(
    source: Path,
    out: Path,
    precisions: Sequence[str] = (),
    only: bool = False,
    weights: bool = True,
    frames: Path | None = None,
    strict: bool = False,
) -> Bundle:
    """Make a bundle from a checkpoint folder (published layout) or a bundle; `out` may be the source bundle
    itself.

    precisions: of `ONNX_PRECISIONS` and `GGUF_PRECISIONS`; the first of each becomes the default of a new
    bundle. If empty: those of the source, else fp32, else `LARGE`. only: a bundle converted in place drops
    all others. weights: whether a bundle made from a checkpoint includes the weights, which only PyTorch
    reads. frames: images for calibrating 8-bit graphs, as from `calibration_frames.read_frames`. strict:
    reject checkpoint keys that the network does not have, instead of ignoring them.

    Weights are read and written one at a time. The manifest gets the sha256 of every file and the measured
    difference of every graph to the network in PyTorch. Raises ValueError for a source that cannot be read or
    converted as requested, RuntimeError for a graph whose results differ.
    """
    if not source.is_dir():
        raise ValueError(f"The folder {source} does not exist; name a checkpoint or a model bundle.")
    _check_names(precisions)
    if out.resolve() == source.resolve():
        with folder_lock(out):
            for left in out.glob(f"{MAKING}*"):  # left by a killed conversion
                shutil.rmtree(left, ignore_errors=True)
            return _convert(source, out, precisions, only, weights, frames, strict)
    if (out / MANIFEST).is_file():
        raise BundleError(f"{out} already holds a bundle; name a new folder for what is made of {source}.")
    with place_beside(out) as place:
        _convert(source, place, precisions, only, weights, frames, strict)
    return Bundle.load(out)


def _convert(
    source: Path,
    out: Path,
    precisions: Sequence[str],
    only: bool,
    weights: bool,
    frames: Path | None,
    strict: bool,
) -> Bundle:
    if (source / MANIFEST).is_file():
        bundle, tensors = _copy(source, out, only)
        precisions = precisions or tuple(Bundle.load(source).graphs.get("precisions", ()))
    else:
        bundle, tensors = _from_checkpoint(source, out, weights, strict)
    return _with_precisions(bundle, tensors, precisions, frames)


def _with_precisions(
    bundle: Bundle, tensors: Mapping[str, Tensor], precisions: Sequence[str], frames: Path | None
) -> Bundle:
    """Add the graphs and GGUFs of the precisions to a bundle, as described at `convert`."""
    config, out = read_network(bundle), bundle.directory
    plan = _plan(config, bundle, precisions)
    with tempfile.TemporaryDirectory(prefix=MAKING, dir=out) as folder:
        bundle = _with_embeddings(bundle, tensors, Path(folder) / EMBEDDINGS)
        maker = Maker(bundle, config, tensors, Path(folder), partial(read_frames, frames))
        for precision, roles in shown(plan.items(), len(plan), "precision"):
            found = {role: maker.measure(role, precision) for role in roles}
            bundle = bundle.with_graphs(
                precision, {role: maker.hand_over(role, precision) for role in roles}, found
            )
    _clear(bundle)
    return Bundle.load(out)


@contextlib.contextmanager
def place_beside(out: Path) -> Iterator[Path]:
    """Make a bundle in a temporary folder beside `out`, and move its files to `out` on success, the
    manifest last.

    One process at a time can use it. It is always removed, including leftovers of a killed process;
    nothing else is deleted, and other files in `out` are left alone.
    """
    place = out.resolve().parent / f".{out.resolve().name}{MAKING}"
    with folder_lock(place):
        for path in place.iterdir():
            if path.name != LOCK_NAME:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            made = place / out.resolve().name  # a bundle has the name of its folder
            made.mkdir()
            yield made
            out.mkdir(parents=True, exist_ok=True)
            files = sorted(made.iterdir(), key=lambda path: (path.name == MANIFEST, path.name))
            for path in files:
                take_over(path, out / path.name)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _check_names(precisions: Iterable[str]) -> None:
    known = (*ONNX_PRECISIONS, *GGUF_PRECISIONS)
    for name in precisions:
        if name not in known:
            raise ValueError(
                f"Nothing is converted to the precision {name!r}; it must be one of {', '.join(known)}."
            )


def _plan(config: GromaConfig, bundle: Bundle, precisions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The roles to make for each precision. Raises ValueError if the network cannot have it."""
    size = 2 * config.language_parameters
    large = size > LARGEST
    chosen = dict.fromkeys(_settled(config, name) for name in precisions or (LARGE if large else ("fp32",)))
    graphs, ggufs = ({name for name in chosen if name in kind} for kind in (ONNX_PRECISIONS, GGUF_PRECISIONS))
    if not graphs and not bundle.vision_precisions:
        raise ValueError(
            "llama.cpp runs the language model alone; name a precision for the vision graphs too, as in "
            "--precision "
            f"{'fp16' if large else 'fp32'},{next(iter(ggufs))}."
        )
    if large and not ggufs and not bundle.gguf_precisions:
        raise ValueError(
            f"The language model of {bundle.name} takes {size / 1e9:.1f} GB and a graph at most "
            f"{LARGEST / 1e9:.1f}; name a precision of "
            f"llama.cpp for it too, as in --precision {next(iter(graphs))},q4_k_m."
        )
    roles = ROLES[:2] if large else ROLES
    return {name: ROLES[2:] if name in ggufs else roles for name in chosen}


def _settled(config: GromaConfig, precision: str) -> str:
    """The precision a network can have; see `gguf.settle_precision`."""
    if precision not in GGUF_PRECISIONS:
        return precision
    from groma_ros.export.gguf import settle_precision

    return settle_precision(config, precision)


def _with_embeddings(bundle: Bundle, tensors: Mapping[str, Tensor], path: Path) -> Bundle:
    """Add the table of input embeddings, new tokens last, as a float16 .npy file. path: a file on the
    target disk."""
    parts = [
        tensors[name].half().numpy() for name in ("llm.model.embed_tokens.weight", "new_input_embs.weight")
    ]
    with naming_file(path), path.open("wb") as stream:
        np.save(stream, np.concatenate(parts).view(AtomicFile))
    files = {**bundle.files, EMBEDDINGS: described(path)}
    write_together({bundle.directory / EMBEDDINGS: path})
    return dataclasses.replace(bundle, files=files)


def _copy(source: Path, out: Path, only: bool) -> tuple[Bundle, Mapping[str, Tensor]]:
    """Copy the bundle to `out` with its weights. A copy has no graphs; a bundle converted in place keeps
    them unless `only`."""
    bundle = Bundle.load(source)
    in_place = out.resolve() == source.resolve()
    weights = Weights(read_network(bundle), bundle.file(WEIGHTS))
    if in_place and not only:
        return bundle, weights
    files = {
        name: value
        for name, value in bundle.files.items()
        if not name.endswith((".onnx", ".gguf")) and name != EMBEDDINGS
    }
    if not in_place:
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            shutil.copyfile(source / name, out / name)
    return dataclasses.replace(bundle, directory=out, files=files, graphs={}), weights


def _from_checkpoint(
    source: Path, out: Path, keep: bool, strict: bool
) -> tuple[Bundle, Mapping[str, Tensor]]:
    """Make a bundle without graphs from a checkpoint in the published layout, with its tokenizer and fp16
    weights."""
    tokenizer = source / TOKENIZER
    if not tokenizer.is_file():
        raise ValueError(
            f"The checkpoint {source} holds no {TOKENIZER}; put the SentencePiece model of its vocabulary "
            "there."
        )
    config = GromaConfig.from_dict(read_config(source))
    _check_tokenizer(tokenizer, config)
    weights = Weights(config, source, strict)
    check_disk(out, disk_need(weights.shapes, keep), f"Converting {source}")
    out.mkdir(parents=True, exist_ok=True)
    sha256, size = write_halves(weights, weights.shapes, out / WEIGHTS if keep else None)
    image, prompt = ImageTransform(config.image_size), PUBLISHED_TEMPLATE.to_dict()
    # The original was not trained on absent goals, so an empty answer does not indicate absence.
    untaught = {"answers_none": False}
    bundle = Bundle(
        out, out.resolve().name, config.to_dict(), image, prompt, untaught, graphs={"weights": sha256}
    )
    files = bundle.write_files({TOKENIZER: tokenizer.read_bytes()})
    if keep:
        files[WEIGHTS] = {"sha256": sha256, "bytes": size}
    return dataclasses.replace(bundle, files=files), Weights(config, out / WEIGHTS) if keep else Halves(
        weights
    )


def _check_tokenizer(path: Path, config: GromaConfig) -> None:
    """Raise ValueError for an unusable SentencePiece model or a vocabulary that differs from the
    network's."""
    refuse_pointer(path)
    try:
        found = len(GromaTokenizer.load(path, config.num_new_token))
    except ValueError as error:
        raise ValueError(f"The tokenizer {path} cannot be used, so nothing was made: {error}") from error
    if found != config.vocab_size:
        raise ValueError(
            f"The tokenizer {path} has {found} tokens with Groma's own, and the network's config asks for "
            f"{config.vocab_size}; it belongs to another model."
        )


def disk_need(shapes: Mapping[str, tuple[int, ...]], keep: bool) -> int:
    """Upper bound of the disk space in bytes for converting a checkpoint; shapes: of its weights.

    Includes the fp16 weights, if kept, and the converted files; an f16 language model exists temporarily
    while it is quantised.
    """
    halves = 2 * sum(math.prod(shape) for shape in shapes.values())
    return int((2.5 if keep else 1.5) * halves)


def _clear(bundle: Bundle) -> None:
    """Delete graphs that the bundle no longer lists."""
    for role in ROLES:
        for path in bundle.directory.glob(f"{role}.*"):
            if path.suffix in (".onnx", ".gguf") and path.name not in bundle.files:
                path.unlink()
