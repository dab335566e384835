"""Initialise a network from the weights of a smaller or coarser one.

Tensors of equal shape are copied, larger ones are derived as follows.

| larger part | initial values |
|---|---|
| patches, for an input larger by the same factor | the kernel first averages down: equal features |
| the region encoder's fine level | its convolution after pooling is zero: equal tokens |
| the vocabulary | a common piece keeps its embedding, a new one gets the mean of its former pieces |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from groma_ros.model.checkpoint import load_weights
from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import TOKENIZER, WEIGHTS, Bundle
from groma_ros.tokenization.sentencepiece_model import WORD_MARK, SentencePieceModel

_PATCHES = "perceiver.vis_encoder.embeddings.patch_embeddings.projection.weight"
_TABLES = ("llm.model.embed_tokens.weight", "llm.lm_head.weight")


def load_start(model: Groma, bundle: Bundle, tokenizer: Path) -> None:
    """Initialise a network from a bundle, see the table above. tokenizer: file of the new vocabulary.

    Raises ValueError naming the first weight that cannot be derived.
    """
    config = GromaConfig.from_dict(bundle.network)
    old = Groma(config)
    load_weights(old, bundle.file(WEIGHTS), torch.float32)
    known, state = old.state_dict(), model.state_dict()
    for name, value in state.items():
        if name not in known:
            if not name.startswith(("region_encoder.fine.", "region_encoder.roi_align.pconvs.")):
                raise ValueError(
                    f"The bundle {bundle.name} has no weight {name}, and nothing says how it should start."
                )
            if ".pconvs." in name:
                value.zero_()
        elif value.shape == known[name].shape and name not in _TABLES:
            value.copy_(known[name])
        elif name == _PATCHES:
            value.copy_(finer_patches(known[name], value.shape[-1]))
        elif name in _TABLES:
            pieces = SentencePieceModel.load(bundle.file(TOKENIZER)), SentencePieceModel.load(tokenizer)
            value.copy_(grown_table(known[name], *pieces))
        else:
            raise ValueError(
                f"The weight {name} of {bundle.name} has the shape {tuple(known[name].shape)} and the "
                "config asks for "
                f"{tuple(value.shape)}; only patches, the fine level and the vocabulary may grow."
            )
    model.load_state_dict(state)


def finer_patches(kernel: Tensor, side: int) -> Tensor:
    """Convert a patch kernel (C, 3, p, p) to patches of side x side pixels; its output is that of the given
    kernel on the patch averaged down to p x p."""
    old = kernel.shape[-1]
    edges = np.linspace(0, side, old + 1)
    pixels = np.arange(side)
    low, high = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    average = torch.from_numpy(np.clip(high - low, 0, None) * old / side).to(
        kernel.dtype
    )  # (p, side), rows add up to 1
    return torch.einsum("ocij,ix,jy->ocxy", kernel, average, average)


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
