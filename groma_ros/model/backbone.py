"""DINOv2 as Groma uses it: all hidden states, no final norm, and the original's resize of the position
table."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from groma_ros.network_config import BackboneConfig


class ResizedEmbeddings(Dinov2Embeddings):
    """DINOv2's embeddings with the position table resized by a scale factor instead of to a size.

    The original passes the factor (cells + 0.1) / table side, and bicubic sampling at that factor gives other
    values than sampling to the rounded size.
    """

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Position embeddings (1, 1 + cells, C) for an input of height x width pixels."""
        table = self.position_embeddings
        cells, rows = embeddings.shape[1] - 1, table.shape[1] - 1
        if cells == rows and height == width:
            return table
        side = math.isqrt(rows)
        patch = self.patch_embeddings.projection.kernel_size[0]
        grid = table[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factor = ((height // patch + 0.1) / side, (width // patch + 0.1) / side)
        resized = F.interpolate(grid, scale_factor=factor, mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], resized.flatten(2).transpose(1, 2).to(table.dtype)], 1)


def build_backbone(config: BackboneConfig) -> Dinov2Model:
    """transformers' Dinov2Model with the original position resize. Only its embeddings and blocks are
    called."""
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    settings = Dinov2Config(**fields, attn_implementation="eager")  # type: ignore[call-arg]
    model = Dinov2Model(settings)
    model.embeddings = ResizedEmbeddings(settings)
    nn.init.normal_(model.embeddings.position_embeddings, std=config.initializer_range)
    return model


def hidden_states(model: Dinov2Model, pixels: Tensor) -> list[Tensor]:
    """All hidden states, each (B, 1 + cells, C) with CLS first: the embedding output, then every block's
    output.

    pixels: (B, 3, S, S) normalised. The final LayerNorm is not applied, as in the original.
    """
    states = [model.embeddings(pixels)]
    for block in model.encoder.layer:
        out = block(states[-1])
        states.append(out[0] if isinstance(out, tuple) else out)
    return states


def to_map(state: Tensor) -> Tensor:
    """Reshape a hidden state (B, 1 + cells, C), without CLS, to a map (B, C, side, side)."""
    side = math.isqrt(state.shape[1] - 1)
    return state[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def merge_tokens(state: Tensor, merge: int) -> Tensor:
    """Space-to-depth of a hidden state: (B, 1 + cells, C) to (B, cells / merge^2, C * merge^2).

    Channel blocks are ordered column-major over the merged square: (0,0), (1,0), (0,1), (1,1) as (row,
    column) for 2x2; tokens are row-major.
    """
    grid = to_map(state)
    batch, channels, side, _ = grid.shape
    small = side // merge
    cells = grid.reshape(batch, channels, small, merge, small, merge)
    return cells.permute(0, 2, 4, 5, 3, 1).reshape(batch, small * small, merge * merge * channels)
