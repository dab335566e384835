"""Attention for training on a CPU: all in half precision, which is three times faster there than the library's two ways."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "groma_training"


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, **_: Any
) -> tuple[Tensor, Tensor]:
    """Softmax attention in bfloat16 with its weights. query (B, H, L, d); key and value (B, H / groups, L, d); mask additive."""
    with torch.autocast(query.device.type, enabled=False):
        groups = query.shape[1] // key.shape[1]
        query, key, value = ((query * scaling).bfloat16(), *(x.bfloat16().repeat_interleave(groups, 1) for x in (key, value)))
        scores = query @ key.transpose(-1, -2)
        weights = (scores if mask is None else scores + mask.bfloat16()).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
