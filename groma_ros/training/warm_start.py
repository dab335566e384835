"""Initialise a network from the weights of a smaller or coarser one.

Tensors of equal shape are copied, larger ones are derived as follows.

| larger part | initial values |
|---|---|
| patches, for an input larger by the same factor | the kernel first averages down: equal features |
| the region encoder's fine level | its convolution after pooling is zero: equal tokens |
| the region encoder's convolutions over the pixels of boxes | their last layer is zero: equal tokens |
| the region encoder without the fine level | tokens lack its part and must be learnt again |
| the refiner of proposals | its last layer is zero: equal boxes, objectness from 1e-4 to 1 - 1e-4 |
| the pixels of boxes, resized to another side | their maps are averaged to the former size |
| the proposer's layers | a new one and its heads are copies of the last |
| the proposer's queries | new ones are copies of the first |
| the vocabulary | a common piece keeps its embedding, a new one gets the mean of its former pieces |
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from groma_ros.model.checkpoint import load_weights
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig, ProposerConfig
from groma_ros.runtime.bundle import TOKENIZER, WEIGHTS, Bundle
from groma_ros.tokenization.sentencepiece_model import WORD_MARK, SentencePieceModel

_PATCHES = "perceiver.vis_encoder.embeddings.patch_embeddings.projection.weight"
_FLATTENED = ("region_encoder.crop.flatten.weight", "perceiver.refiner.flatten.weight")
_TABLES = ("llm.model.embed_tokens.weight", "llm.lm_head.weight")


def load_start(model: Groma, bundle: Bundle, tokenizer: Path) -> None:
    """Initialise a network from a bundle, see the table above. tokenizer: file of the new vocabulary.

    Raises ValueError naming the first weight that cannot be derived.
    """
    config = GromaConfig.from_dict(bundle.network)
    old = Groma(config)
    load_weights(old, bundle.file(WEIGHTS), torch.float32)
    known, state = old.state_dict(), model.state_dict()
    if config.proposer != model.config.proposer:
        _check_no_smaller(config.proposer, model.config.proposer, bundle.name)
        known |= deeper_proposer(known, config.proposer, model.config.proposer)
    _check_crops(config, model.config, bundle.name)
    for name, value in state.items():
        if name not in known:
            if not name.startswith(
                (
                    *("region_encoder.fine.", "region_encoder.roi_align.pconvs.", "region_encoder.crop."),
                    "perceiver.refiner.",
                )
            ):
                raise ValueError(
                    f"The bundle {bundle.name} has no weight {name}, and nothing says how it should start."
                )
            if ".pconvs." in name or ".crop.output." in name:
                value.zero_()
        elif value.shape == known[name].shape and name not in _TABLES:
            value.copy_(known[name])
        elif name in _FLATTENED:
            value.copy_(resized_flatten(known[name], value.shape, _crop_cells(config, name)))
        elif name == _PATCHES:
            value.copy_(finer_patches(known[name], value.shape[-1]))
        elif name in _TABLES:
            pieces = SentencePieceModel.load(bundle.file(TOKENIZER)), SentencePieceModel.load(tokenizer)
            value.copy_(grown_table(known[name], *pieces))
        else:
            raise ValueError(
                f"The weight {name} of {bundle.name} has the shape {tuple(known[name].shape)} and the "
                "config asks for "
                f"{tuple(value.shape)}; only patches, the fine level, crops, the vocabulary and the "
                "proposer's layers and queries may grow."
            )
    model.load_state_dict(state)


def _check_crops(before: GromaConfig, after: GromaConfig, name: str) -> None:
    fields = ("crop", "crop_margin")
    parts = (
        ("region encoder", before.region, after.region, fields),
        ("proposer", before.proposer, after.proposer, (*fields, "crop_hidden")),
    )
    for part, then, now, names in parts:
        for field in names if then.crop else ():
            if (old := getattr(then, field)) != (new := getattr(now, field)):
                raise ValueError(
                    f"The {part} of {name} has {field} {old} and the config asks for {new}; crops that are "
                    "trained stay as they are."
                )


def _check_no_smaller(before: ProposerConfig, after: ProposerConfig, name: str) -> None:
    for field in ("encoder_layers", "decoder_layers", "num_queries", "two_stage_num_proposals"):
        old, new = getattr(before, field), getattr(after, field)
        if new < old:
            raise ValueError(
                f"The proposer of {name} has {field} {old} and the config asks for {new}; it may only grow."
            )


def deeper_proposer(
    known: dict[str, Tensor], before: ProposerConfig, after: ProposerConfig
) -> dict[str, Tensor]:
    """Tensors of a proposer with more layers and queries than before, by name, from those before."""
    start = "perceiver.ddetr_transformer."
    sources: list[tuple[str, int, int]] = []  # prefix, number of the new module, number of its source
    for part, old, new in (
        ("encoder.layers.", before.encoder_layers, after.encoder_layers),
        ("decoder.layers.", before.decoder_layers, after.decoder_layers),
        ("class_embed_coco.", before.decoder_layers, after.decoder_layers),
        ("class_embed_sa1b.", before.decoder_layers, after.decoder_layers),
        ("bbox_embed.", before.decoder_layers, after.decoder_layers),
    ):
        sources += [(start + part, index, old - 1) for index in range(old, new)]
    # The last box head is stage one's.
    sources.append((start + "bbox_embed.", after.decoder_layers, before.decoder_layers))
    grown = {
        f"{prefix}{new}.{name.removeprefix(f'{prefix}{old}.')}": value
        for prefix, new, old in sources
        for name, value in known.items()
        if name.startswith(f"{prefix}{old}.")
    }
    queries = start + "query_position_embeddings.weight"
    rows = torch.arange(after.num_queries) % len(known[queries])
    return {**grown, queries: known[queries][rows]}


def _crop_cells(config: GromaConfig, name: str) -> int:
    """Side of the map that the convolutions over the pixels of boxes end in, for a weight of `_FLATTENED`."""
    part = config.region if name.startswith("region_encoder.") else config.proposer
    assert part.crop_shape is not None
    return part.crop_shape.side // part.crop_shape.scale


def resized_flatten(weight: Tensor, shape: torch.Size, side: int) -> Tensor:
    """Convert the weight (hidden, C * side * side) of a linear layer over maps to one (hidden, C * s * s)
    over maps of another size; its output for a map of one value is the same."""
    cells = weight.unflatten(1, (-1, side, side))
    average = averaging(math.isqrt(shape[1] // cells.shape[1]), side).to(weight.dtype)
    return torch.einsum("ocij,ix,jy->ocxy", cells, average, average).flatten(1)


def finer_patches(kernel: Tensor, side: int) -> Tensor:
    """Convert a patch kernel (C, 3, p, p) to patches of side x side pixels; its output is that of the given
    kernel on the patch averaged down to p x p."""
    average = averaging(side, kernel.shape[-1]).to(kernel.dtype)
    return torch.einsum("ocij,ix,jy->ocxy", kernel, average, average)


def averaging(cells: int, parts: int) -> Tensor:
    """The matrix (parts, cells) that averages an axis of so many cells into equal parts; its rows add up to
    1."""
    edges = np.linspace(0, cells, parts + 1)
    places = np.arange(cells)
    low, high = np.maximum(edges[:-1, None], places), np.minimum(edges[1:, None], places + 1)
    return torch.from_numpy(np.clip(high - low, 0, None) * parts / cells)


def grown_table(table: Tensor, before: SentencePieceModel, after: SentencePieceModel) -> Tensor:
    """Convert embeddings (V, D) from one vocabulary to another."""
    places = {piece.text: index for index, piece in enumerate(before.pieces)}
    rows = []
    for piece in after.pieces:
        if piece.text in places:
            rows.append(table[places[piece.text]])
        else:
            ids = before.encode(piece.text.replace(WORD_MARK, " "), dummy_prefix=False)
            rows.append(table[ids].mean(0))
    return torch.stack(rows)
