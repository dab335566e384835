"""Load and save weights: the original's sharded `.bin` or safetensors files, whole or detector only, in
any float precision.

Files use the original's names. Where the installed transformers names a layer differently, names are
translated here, so that a file does not depend on the version that wrote it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from groma_ros.json_files import load_object
from groma_ros.model.groma import Groma, Perceiver
from groma_ros.model.weight_files import TensorFile, read_config, weight_files
from groma_ros.network_config import GromaConfig

Network = TypeVar("Network", Groma, Perceiver)

# Newer transformers releases renamed DINOv2's attention layers.
_RENAMED = {
    ".attention.attention.query.": ".attention.q_proj.",
    ".attention.attention.key.": ".attention.k_proj.",
    ".attention.attention.value.": ".attention.v_proj.",
    ".attention.output.dense.": ".attention.o_proj.",
}
_BACKBONE = "vis_encoder.encoder.layer."
_EMBEDDINGS, _HEAD = "llm.model.embed_tokens.weight", "llm.lm_head.weight"
_HEADS = ("bbox_embed", "class_embed_enc", "class_embed_coco", "class_embed_sa1b")
_ALIASED = tuple(f"ddetr_transformer.decoder.{head}." for head in _HEADS)
_DETECTOR = ("vis_encoder.", "input_proj.", "ddetr_transformer.", "refiner.")
NAMED = 5
"""Unknown keys listed in a report, the largest first."""
_LOG = logging.getLogger(__name__)


def load_groma(directory: str | Path, dtype: torch.dtype | None = None) -> Groma:
    """Load a published checkpoint folder (`config.json` and weights) as a network in evaluation mode.

    dtype: precision of the weights in memory; None keeps that of the files, which are then memory-mapped.
    Raises ValueError for a folder, config or weight file that is missing, damaged or does not match.
    """
    model = empty_groma(GromaConfig.from_dict(read_config(directory)))
    load_weights(model, directory, dtype)
    return model.eval()


def load_perceiver(directory: str | Path, dtype: torch.dtype | None = None) -> Perceiver:
    """Load the detector of the first training stage, from its own checkpoint folder or from a whole one.
    Raises ValueError as `load_groma`."""
    data = load_object(Path(directory) / "config.json")
    # The detector's own config lacks the other fields; use a group count that divides any width.
    alone = {"perceiver_cfg": data, "llm_cfg": {}, "region_cfg": {"groups": 1}}
    config = GromaConfig.from_dict(data if "perceiver_cfg" in data else alone)
    perceiver = _build(Perceiver, config)
    load_weights(perceiver, directory, dtype)
    return perceiver.eval()


def empty_groma(config: GromaConfig) -> Groma:
    """Build the network without weights (on the meta device), to be filled by `load_weights`.

    Raises ValueError if no network can be built from the config.
    """
    model = _build(Groma, config)
    # Rotary frequencies are computed, not stored, so they cannot be on the meta device.
    model.llm.model.rotary_emb = type(model.llm.model.rotary_emb)(config=model.llm.config)
    return model


def _build(kind: type[Network], config: GromaConfig) -> Network:
    try:
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # transformers' config validation raises exceptions of other packages
        raise ValueError(f"The network config cannot be built: {error}") from error


def load_weights(
    model: Groma | Perceiver, source: str | Path, dtype: torch.dtype | None = None, strict: bool = False
) -> None:
    """Fill a network from a weight file, an index of shards, or a folder that contains either.

    Accepts either or both names of the duplicated detector heads, ignores rotary frequencies, and accepts
    a detector checkpoint without the `perceiver.` prefix. Unknown keys are ignored and logged; strict
    rejects them. Raises ValueError naming the first key that is missing, given twice with different
    values, of the wrong shape or not floating point.
    """
    tensors = (pair for file in weight_files(source) for pair in TensorFile(file).items())
    fill(model, tensors, str(source), dtype, strict)


def fill(
    model: Groma | Perceiver,
    tensors: Iterable[tuple[str, Tensor]],
    name: str,
    dtype: torch.dtype | None = None,
    strict: bool = False,
) -> None:
    """Fill a network from (key, tensor) pairs by the rules of `load_weights`; name identifies the source
    in errors."""
    wanted = model.state_dict()
    given: dict[str, Tensor] = {}
    first_names: dict[str, str] = {}
    unknown: dict[str, int] = {}
    for key, tensor in tensors:
        if key.endswith("rotary_emb.inv_freq"):
            continue
        place = where_in(key, model, wanted)
        if place is None:
            if isinstance(model, Perceiver) and not _is_detector(key):
                continue  # the rest of a whole checkpoint
            unknown[key] = tensor.nbytes
            continue
        if tensor.shape != wanted[place].shape:
            shapes = f"{tuple(tensor.shape)}, but the config asks for {tuple(wanted[place].shape)}"
            raise ValueError(f"The weights in {name} have {key} of shape {shapes}.")
        if not tensor.is_floating_point():
            raise ValueError(
                f"The weights in {name} have {key} of type {tensor.dtype}; a floating-point type is needed."
            )
        if place in given and not torch.equal(given[place], tensor if dtype is None else tensor.to(dtype)):
            raise ValueError(differing(name, first_names[place], key))
        first_names.setdefault(place, key)
        given[place] = tensor if dtype is None else tensor.to(dtype)
    report_unknown(name, unknown, strict)
    if _is_tied(model) and _EMBEDDINGS in given:
        given.setdefault(_HEAD, given[_EMBEDDINGS])
    missing = [key for key in wanted if key not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"The weights in {name} lack the key {original_name(missing[0])}{more}.")
    model.load_state_dict(given, assign=next(iter(wanted.values())).is_meta)


def differing(source: str | Path, first: str, second: str) -> str:
    """Error message for a weight given twice with different values."""
    twice = "twice" if first == second else f"twice, as {first} and as {second}"
    return (
        f"The weights in {source} give one weight {twice}, with different values; the checkpoint is "
        "damaged or "
        "mixed from two."
    )


def report_unknown(source: str | Path, unknown: Mapping[str, int], strict: bool) -> None:
    """Log keys of a checkpoint that the network does not have, with their sizes in bytes; strict: raise
    ValueError."""
    if not unknown:
        return
    largest = sorted(unknown, key=lambda key: -unknown[key])
    named = ", ".join(f"{key} ({megabytes(unknown[key])})" for key in largest[:NAMED])
    more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
    what = (
        f"The weights in {source} have keys that the network of their config does not have (number: "
        f"{len(unknown)}, {megabytes(sum(unknown.values()))} in all): {named}{more}"
    )
    if strict:
        raise ValueError(f"{what}; without strict loading they are left out.")
    _LOG.warning("%s; they are left out.", what)


def megabytes(size: int) -> str:
    """Format a number of bytes in MB."""
    return f"{size / 1e6:,.1f} MB".replace(",", " ")


def original_state_dict(model: Groma | Perceiver) -> dict[str, Tensor]:
    """State dict under the original's names, heads and tied tables once, ready to be saved."""
    left_out = {_HEAD} if _is_tied(model) else set()
    return {original_name(key): value for key, value in model.state_dict().items() if key not in left_out}


def _is_tied(model: nn.Module) -> bool:
    return isinstance(model, Groma) and model.config.language.tie_word_embeddings


def _is_detector(key: str) -> bool:
    return key.removeprefix("perceiver.").startswith(_DETECTOR)


def where_in(key: str, model: nn.Module, wanted: Mapping[str, Tensor]) -> str | None:
    """Name in the installed network for a key of a file; None if it has no place."""
    bare = key.removeprefix("perceiver.")
    if bare.startswith(_ALIASED):
        bare = bare.replace("ddetr_transformer.decoder.", "ddetr_transformer.", 1)
    if _is_detector(key):
        key = bare if isinstance(model, Perceiver) else "perceiver." + bare
    if key not in wanted and _BACKBONE in key:
        for old, new in _RENAMED.items():
            key = key.replace(old, new)
    return key if key in wanted else None


def original_name(key: str) -> str:
    """The original's name for a key of the installed network."""
    if _BACKBONE in key:
        for old, new in _RENAMED.items():
            key = key.replace(new, old)
    return key
