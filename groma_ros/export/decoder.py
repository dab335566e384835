"""The language model as a graph wants it: keys and values in and out, the mask given, logits only where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from groma_ros.model.groma import Groma

# Kinds of rotary embedding whose frequencies do not depend on the length of the sequence.
_STATIC_ROTARY = ("default", "linear", "llama3")


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in the order of operations that runtimes know as one, in float32: squares soon pass what halves hold."""
    x = x.float()
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (H, L, d); cos and sin (L, d), their two halves alike."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


class _Layer(nn.Module):
    """One Llama layer over a packed sequence. Projections that read the same input are one matrix, stored input x output.

    last: only the rows where logits are wanted go through it; of the others only keys and values are wanted.
    """

    def __init__(self, layer: LlamaDecoderLayer, heads: int, groups: int, eps: float, dtype: torch.dtype, last: bool) -> None:
        super().__init__()
        self.heads, self.groups, self.eps, self.last = heads, groups, eps, last
        attention, mlp = layer.self_attn, layer.mlp
        keys = [attention.k_proj, attention.v_proj]
        self.qkv = _joined(keys if last else [attention.q_proj, *keys], dtype)
        self.query = _joined([attention.q_proj], dtype) if last else None
        self.output = _joined([attention.o_proj], dtype)
        self.gate_up = _joined([mlp.gate_proj, mlp.up_proj], dtype)
        self.down = _joined([mlp.down_proj], dtype)
        self.attention_norm, self.mlp_norm = layer.input_layernorm.weight, layer.post_attention_layernorm.weight

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, rows: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (L, D), mask (L, P + L), rows (M,), past (groups, P, d); the same after the layer, of the last one x (M, D), with past
        and new keys and values."""
        size = past_key.shape[-1]
        inner = _rms_norm(x, self.attention_norm, self.eps).to(x.dtype)
        parts = (inner @ self.qkv).split(([] if self.last else [self.heads * size]) + [self.groups * size] * 2, -1)
        *given, key, value = (part.unflatten(-1, (-1, size)).transpose(0, 1) for part in parts)
        key = torch.cat([past_key, _rotate(key, cos, sin)], 1)
        value = torch.cat([past_value, value], 1)
        if self.query is None:
            (query,) = given
        else:
            x, cos, sin, mask = (part.index_select(0, rows) for part in (x, cos, sin, mask))
            query = (inner.index_select(0, rows) @ self.query).unflatten(-1, (-1, size)).transpose(0, 1)
        # Query heads that share a key head stand under each other, so keys are not repeated.
        shared = self.heads // self.groups
        query = (_rotate(query, cos, sin) * size**-0.5).unflatten(0, (self.groups, shared))
        scores = query @ key.transpose(1, 2)[:, None] if shared > 1 else (query[:, 0] @ key.transpose(1, 2))[:, None]
        weights = (scores.float() + mask).softmax(-1).to(x.dtype)
        mixed = (weights @ value[:, None]).flatten(0, 1).transpose(0, 1).flatten(1)
        x = x + mixed @ self.output
        gate, up = (_rms_norm(x, self.mlp_norm, self.eps).to(x.dtype) @ self.gate_up).chunk(2, -1)
        return x + (F.silu(gate) * up) @ self.down, key, value


class LanguageGraph(nn.Module):
    """Llama with Groma's two heads. The network it is made of keeps its weights.

    dtype: of the layers, keys and values; the norms and both heads stay float32. ValueError if its rotary embedding or its layers
    are of a kind that no graph is written for.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        llama, c = model.llm.model, model.config.language
        kind = str((c.rope_scaling or {}).get("rope_type", (c.rope_scaling or {}).get("type", "default")))
        if kind not in _STATIC_ROTARY or c.hidden_act != "silu":
            raise ValueError(
                f"A language model with rotary scaling {kind!r} and activation {c.hidden_act!r} cannot be exported; "
                f"scaling must be one of {', '.join(_STATIC_ROTARY)}, the activation silu."
            )
        groups = c.num_key_value_heads or c.num_attention_heads
        made = [
            _Layer(layer, c.num_attention_heads, groups, c.rms_norm_eps, dtype, layer is llama.layers[-1]) for layer in llama.layers
        ]
        self.layers, self.dtype = nn.ModuleList(made), dtype
        self.norm, self.eps = llama.norm.weight, c.rms_norm_eps
        self.head = nn.Parameter(torch.cat([model.llm.lm_head.weight, model.extra_lm_head.weight]).T.contiguous(), False)
        self.frequencies = nn.Parameter(llama.rotary_emb.inv_freq.float(), requires_grad=False)
        self.scaling = float(llama.rotary_emb.attention_scaling)

    def forward(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor, rows: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """One pass over a packed sequence.

        embeddings (L, D); positions (L,) int64, of the rotary embedding; mask (L, P + L), added to the scores; rows (M,) int64,
        where logits are wanted; past: keys and values (groups, P, d) of every layer in turn. Returns logits (M, V), then keys and
        values of every layer, (groups, P + L, d).
        """
        angles = positions[:, None].float() * self.frequencies
        angles = torch.cat([angles, angles], -1)
        cos, sin = ((part * self.scaling).to(self.dtype) for part in (angles.cos(), angles.sin()))
        x, present = embeddings.to(self.dtype), []
        for index, layer in enumerate(self.layers):
            x, key, value = layer(x, cos, sin, mask, rows, past[2 * index], past[2 * index + 1])
            present += [key, value]
        return (_rms_norm(x, self.norm, self.eps) @ self.head, *present)


def _joined(layers: Sequence[nn.Linear], dtype: torch.dtype) -> nn.Parameter:
    """Linear layers of one input as one matrix, input x output."""
    assert all(layer.bias is None for layer in layers)
    return nn.Parameter(torch.cat([layer.weight for layer in layers]).T.to(dtype).contiguous(), False)
