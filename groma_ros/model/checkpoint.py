"""Weights in and out: the original's sharded `.bin` or safetensors files, whole or detector only, in any
float precision.

Files speak the original's names. Where the installed transformers names a layer otherwise, the names are
translated here, so that a file never depends on the version that wrote it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from groma_ros.model.groma import Groma, Perceiver
from groma_ros.network_config import GromaConfig

Network = TypeVar("Network", Groma, Perceiver)

# Newer transformers releases name DINOv2's attention layers like everybody else's.
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
_DETECTOR = ("vis_encoder.", "input_proj.", "ddetr_transformer.")
_NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)


def load_groma(directory: str | Path, dtype: torch.dtype | None = None) -> Groma:
    """A published checkpoint folder (`config.json` and weights) as a network in evaluation mode.

    dtype: precision to hold the weights in; None keeps that of the files, which are then mapped, not copied,
    into memory. ValueError with a sentence for a folder, config or weight file that is missing, damaged or
    does not fit.
    """
    model = empty_groma(GromaConfig.from_dict(read_json(Path(directory) / "config.json")))
    load_weights(model, directory, dtype)
    return model.eval()


def load_perceiver(directory: str | Path, dtype: torch.dtype | None = None) -> Perceiver:
    """The detector of the first training stage, from its own checkpoint folder or out of a whole one.
    ValueError as above."""
    data = read_json(Path(directory) / "config.json")
    # The detector's own config says nothing of the rest; a group count that divides any width stands in for
    # it.
    alone = {"perceiver_cfg": data, "llm_cfg": {}, "region_cfg": {"groups": 1}}
    config = GromaConfig.from_dict(data if "perceiver_cfg" in data else alone)
    perceiver = _build(Perceiver, config)
    load_weights(perceiver, directory, dtype)
    return perceiver.eval()


def empty_groma(config: GromaConfig) -> Groma:
    """The network without weights (on the meta device), to be filled by `load_weights`. Takes no memory.

    ValueError if no network can be built from the config.
    """
    model = _build(Groma, config)
    # The rotary frequencies are computed, not stored, so they must be real from the start.
    model.llm.model.rotary_emb = type(model.llm.model.rotary_emb)(config=model.llm.config)
    return model


def _build(kind: type[Network], config: GromaConfig) -> Network:
    try:
        with torch.device("meta"):
            return kind(config)
    except Exception as error:  # transformers' checks of its own configs raise types of yet other packages
        raise ValueError(f"The network config cannot be built: {error}") from error


def load_weights(model: Groma | Perceiver, source: str | Path, dtype: torch.dtype | None = None) -> None:
    """Fill a network from a weight file, an index of shards, or a folder that holds either.

    Either or both names of the duplicated detector heads are taken, rotary frequencies are ignored, and the
    detector's own checkpoint may leave out the `perceiver.` prefix. ValueError naming the first key that is
    missing, unexpected, given twice with different values, of the wrong shape or not floating point.
    """
    tensors = (pair for file in weight_files(source) for pair in read_tensors(file).items())
    fill(model, tensors, str(source), dtype)


def fill(
    model: Groma | Perceiver,
    tensors: Iterable[tuple[str, Tensor]],
    name: str,
    dtype: torch.dtype | None = None,
) -> None:
    """Fill a network from (key, tensor) pairs by the rules of `load_weights`; name stands for their source in
    errors."""
    wanted = model.state_dict()
    given: dict[str, Tensor] = {}
    for key, tensor in tensors:
        if key.endswith("rotary_emb.inv_freq"):
            continue
        place = where_in(key, model, wanted)
        if place is None:
            if isinstance(model, Perceiver) and not _is_detector(key):
                continue  # the rest of a whole checkpoint
            raise ValueError(
                f"The weights in {name} have the key {key}, which the network of their config does not have."
            )
        if tensor.shape != wanted[place].shape:
            shapes = f"{tuple(tensor.shape)}, but the config asks for {tuple(wanted[place].shape)}"
            raise ValueError(f"The weights in {name} have {key} of shape {shapes}.")
        if not tensor.is_floating_point():
            raise ValueError(
                f"The weights in {name} have {key} of type {tensor.dtype}; a floating-point type is needed."
            )
        if place in given and not torch.equal(given[place], tensor if dtype is None else tensor.to(dtype)):
            raise ValueError(
                f"The weights in {name} give {key} twice, under two names, with different values."
            )
        given[place] = tensor if dtype is None else tensor.to(dtype)
    if _is_tied(model) and _EMBEDDINGS in given:
        given.setdefault(_HEAD, given[_EMBEDDINGS])
    missing = [key for key in wanted if key not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"The weights in {name} lack the key {original_name(missing[0])}{more}.")
    model.load_state_dict(given, assign=next(iter(wanted.values())).is_meta)


def original_state_dict(model: Groma | Perceiver) -> dict[str, Tensor]:
    """The weights under the original's names, heads and tied tables stored once, ready to be saved."""
    left_out = {_HEAD} if _is_tied(model) else set()
    return {original_name(key): value for key, value in model.state_dict().items() if key not in left_out}


def weight_files(source: str | Path) -> list[Path]:
    """The files a checkpoint is made of. ValueError if there is none, or a shard is missing."""
    source = Path(source)
    if source.is_dir():
        found = next((source / name for name in _NAMES if (source / name).is_file()), None)
        if found is None:
            raise ValueError(f"The folder {source} holds no weights; expected one of {', '.join(_NAMES)}.")
        source = found
    if not source.is_file():
        raise ValueError(f"The weight file {source} does not exist.")
    return list(_shards(source)) if source.suffix == ".json" else [source]


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors or `.bin` file. A `.bin` is read as tensors only: nothing in it can run.

    ValueError if the file is damaged or holds anything else.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"The weight file {file} is damaged: {error}.") from error
    content = _read_pickle(file)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"The weight file {file} is not a plain dictionary of tensors.")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. ValueError if there is none."""
    if not path.is_file():
        raise ValueError(f"The file {path} does not exist.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"The file {path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"The file {path} must hold a JSON object.")
    return content


def _read_pickle(file: Path) -> object:
    try:
        try:
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of before 2020 are no archives and cannot be mapped
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"The weight file {file} holds more than tensors, so it was not read.") from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise ValueError(f"The weight file {file} is damaged: {reason}.") from error


def _shards(index: Path) -> Iterator[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"The index {index} has no weight_map.")
    for name in sorted(set(map(str, names.values()))):
        if Path(name).name != name:
            raise ValueError(f"The index {index} names {name}, which is not a file beside it.")
        if not (index.parent / name).is_file():
            raise ValueError(f"The shard {name} is missing from {index.parent}, though its index names it.")
        yield index.parent / name


def _is_tied(model: nn.Module) -> bool:
    return isinstance(model, Groma) and model.config.language.tie_word_embeddings


def _is_detector(key: str) -> bool:
    return key.removeprefix("perceiver.").startswith(_DETECTOR)


def where_in(key: str, model: nn.Module, wanted: Mapping[str, Tensor]) -> str | None:
    """Where a key of a file goes in the installed network, None if nowhere."""
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
    """The original's name of a key of the installed network."""
    if _BACKBONE in key:
        for old, new in _RENAMED.items():
            key = key.replace(new, old)
    return key
