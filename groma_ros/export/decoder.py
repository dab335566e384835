"""The language model in exportable form: keys and values in and out, an explicit mask, logits only at
requested positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from groma_ros.model.groma import Groma

# Rotary embeddings whose frequencies do not depend on the sequence length.
_STATIC_ROTARY = ("default", "linear", "llama3")


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in the order of operations that runtimes fuse, in float32, because squares overflow fp16."""
    x = x.float()
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x (L, heads, d); cos and sin (L, 1, d), with the first half of sin negated."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([second, first], -1) * sin


class _Layer(nn.Module):
    """One Llama layer over a packed sequence. Queries and keys, both rotated, come from one matrix, stored
    input x output.

    last: only the rows where logits are wanted pass through it; of the others only keys and values are
    needed.
    """

    def __init__(
        self, layer: LlamaDecoderLayer, heads: int, groups: int, eps: float, dtype: torch.dtype, last: bool
    ) -> None:
        super().__init__()
        self.heads, self.groups, self.eps = heads, groups, eps
        attention, mlp = layer.self_attn, layer.mlp
        self.turned = _joined([attention.k_proj] if last else [attention.q_proj, attention.k_proj], dtype)
        self.query = _joined([attention.q_proj], dtype) if last else None
        self.value, self.output = _joined([attention.v_proj], dtype), _joined([attention.o_proj], dtype)
        self.gate, self.up, self.down = (
            _joined([part], dtype) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        self.attention_norm, self.mlp_norm = (
            layer.input_layernorm.weight,
            layer.post_attention_layernorm.weight,
        )

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        rows: Tensor,
        past_key: Tensor,
        past_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (L, D), cos and sin as of `_rotate`, mask (L, P + L), rows (M,), past (groups, P, d); x after the
        layer, of the last one (M, D), with past and new keys and values."""
        size = past_key.shape[-1]
        inner = _rms_norm(x, self.attention_norm, self.eps).to(x.dtype)
        turned = _rotate((inner @ self.turned).unflatten(-1, (-1, size)), cos, sin).transpose(0, 1)
        value = torch.cat([past_value, (inner @ self.value).unflatten(-1, (-1, size)).transpose(0, 1)], 1)
        if self.query is None:
            query, key = turned.split([self.heads, self.groups])
        else:
            x, cos, sin, mask, inner = (part.index_select(0, rows) for part in (x, cos, sin, mask, inner))
            query, key = (
                _rotate((inner @ self.query).unflatten(-1, (-1, size)), cos, sin).transpose(0, 1),
                turned,
            )
        key = torch.cat([past_key, key], 1)
        # Query heads that share a key head are stacked, and so are their masks: keys are
        # not repeated.
        scores = (query.reshape(self.groups, -1, size) * size**-0.5) @ key.transpose(1, 2)
        weights = (scores.float() + torch.cat([mask] * (self.heads // self.groups))).softmax(-1).to(x.dtype)
        mixed = (weights @ value).reshape(self.heads, -1, size).transpose(0, 1).flatten(1)
        x = x + mixed @ self.output
        inner = _rms_norm(x, self.mlp_norm, self.eps).to(x.dtype)
        return x + (F.silu(inner @ self.gate) * (inner @ self.up)) @ self.down, key, value


class LanguageGraph(nn.Module):
    """Llama with Groma's two heads. Does not modify the network it is made from.

    dtype: of the layers, keys and values; the norms and both heads stay float32. Raises ValueError if its
    rotary embedding or layers are not supported.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        llama, c = model.llm.model, model.config.language
        kind = str((c.rope_scaling or {}).get("rope_type", (c.rope_scaling or {}).get("type", "default")))
        if kind not in _STATIC_ROTARY or c.hidden_act != "silu":
            raise ValueError(
                f"A language model with rotary scaling {kind!r} and activation {c.hidden_act!r} cannot be "
                "exported; "
                f"scaling must be one of {', '.join(_STATIC_ROTARY)}, the activation silu."
            )
        groups = c.num_key_value_heads or c.num_attention_heads
        made = [
            _Layer(layer, c.num_attention_heads, groups, c.rms_norm_eps, dtype, layer is llama.layers[-1])
            for layer in llama.layers
        ]
        self.layers, self.dtype = nn.ModuleList(made), dtype
        self.norm, self.eps = llama.norm.weight, c.rms_norm_eps
        self.head = nn.Parameter(
            torch.cat([model.llm.lm_head.weight, model.extra_lm_head.weight]).T.contiguous(), False
        )
        self.frequencies = nn.Parameter(llama.rotary_emb.inv_freq.float(), requires_grad=False)
        self.scaling = float(llama.rotary_emb.attention_scaling)

    def forward(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor, rows: Tensor, past: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Run a packed sequence.

        embeddings (L, D); positions (L,) int64, for the rotary embedding; mask (L, P + L), added to the
        scores; rows (M,) int64, where logits are wanted; past: keys and values (groups, P, d) of every layer
        in turn. Returns logits (M, V), then keys and values of every layer, (groups, P + L, d).
        """
        angles = positions[:, None].float() * self.frequencies
        one, other = angles.cos(), angles.sin()
        cos, sin = (
            (torch.cat(halves, -1) * self.scaling).to(self.dtype)[:, None]
            for halves in ([one, one], [-other, other])
        )
        x, present = embeddings.to(self.dtype), []
        for index, layer in enumerate(self.layers):
            x, key, value = layer(x, cos, sin, mask, rows, past[2 * index], past[2 * index + 1])
            present += [key, value]
        return (_rms_norm(x, self.norm, self.eps) @ self.head, *present)


def _joined(layers: Sequence[nn.Linear], dtype: torch.dtype) -> nn.Parameter:
    """Linear layers of one input as a single matrix, input x output."""
    assert all(layer.bias is None for layer in layers)
    return nn.Parameter(torch.cat([layer.weight for layer in layers]).T.to(dtype).contiguous(), False)
