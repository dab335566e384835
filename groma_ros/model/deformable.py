"""Multi-scale deformable attention and the position embeddings of Deformable DETR (Zhu et al. 2020, sections
4.1 and A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = list[tuple[int, int]]  # (height, width) of each feature level


class DeformableAttention(nn.Module):
    """Attention to a few sampled points per head and level, at learned offsets from a reference."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as in the paper: head h looks in direction 2 pi h / heads, point k at distance k + 1,
        all with equal weight."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        start = direction[:, None, None, :] * distance[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.weight.zero_()
            self.sampling_offsets.bias.copy_(start.expand(-1, self.levels, -1, -1).flatten())
            self.attention_weights.weight.zero_()
            self.attention_weights.bias.zero_()
            for layer in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(layer.weight)
                layer.bias.zero_()

    def forward(self, query: Tensor, value: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        """query (B, Q, d); value (B, sum of level cells, d); references (B, Q, L, 2) points or (B, Q, L, 4)
        cxcywh boxes, as fractions of the image."""
        batch, count, _ = query.shape
        grid = (batch, count, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(query).view(*grid, 2)
        weights = self.attention_weights(query).view(batch, count, self.heads, -1).softmax(-1).view(grid)
        points = self._locations(references, offsets, shapes)
        # Sampling positions need more digits than half precision has.
        heads = self.value_proj(value).float().unflatten(-1, (self.heads, -1))
        sampled: Tensor | None = None
        start = 0
        for level, (height, width) in enumerate(shapes):
            cells = (
                heads[:, start : start + height * width]
                .permute(0, 2, 3, 1)
                .reshape(-1, heads.shape[-1], height, width)
            )
            start += height * width
            where = points[:, :, :, level].transpose(1, 2).flatten(0, 1) * 2 - 1
            taken = F.grid_sample(cells, where.float(), padding_mode="zeros", align_corners=False)
            part = (taken * weights[:, :, :, level].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
            sampled = part if sampled is None else sampled + part
        assert sampled is not None
        merged = sampled.view(batch, self.heads * sampled.shape[1], count).transpose(1, 2)
        return self.output_proj(merged.to(query.dtype))

    def _locations(self, references: Tensor, offsets: Tensor, shapes: Shapes) -> Tensor:
        """Sampling locations (B, Q, heads, L, points, 2) as fractions of the image."""
        if references.shape[-1] == 2:
            size = torch.tensor([(w, h) for h, w in shapes], dtype=offsets.dtype, device=offsets.device)
            return references[:, :, None, :, None, :] + offsets / size[None, None, None, :, None, :]
        centre, extent = references[:, :, None, :, None, :2], references[:, :, None, :, None, 2:]
        return centre + offsets / self.points * extent * 0.5


def _interleaved(angles: Tensor) -> Tensor:
    """sin of even and cos of odd features, interleaved."""
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-2)


def sine_frequencies(features: int, temperature: float, device: torch.device) -> Tensor:
    """Frequencies of the sine embedding, float32 (features,)."""
    index = torch.arange(features, dtype=torch.float32, device=device)
    return temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / features)


def sine_positions(height: int, width: int, dim: int, temperature: float, device: torch.device) -> Tensor:
    """Sine embedding (1, height * width, dim) of the cells of a map, y half first."""
    frequencies = sine_frequencies(dim // 2, temperature, device)

    def axis(count: int) -> Tensor:
        centre = (
            (torch.arange(1, count + 1, dtype=torch.float32, device=device) - 0.5)
            / (count + 1e-6)
            * (2 * math.pi)
        )
        return _interleaved(centre[:, None] / frequencies)

    rows = axis(height)[:, None].expand(-1, width, -1)
    columns = axis(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], -1).reshape(1, height * width, dim)


def box_positions(boxes: Tensor, dim: int, temperature: float) -> Tensor:
    """Sine embedding (..., 2 dim) of boxes (..., 4) cxcywh fractions, dim / 2 features a coordinate."""
    frequencies = sine_frequencies(dim // 2, temperature, boxes.device)
    return _interleaved(boxes.float()[..., None] * (2 * math.pi) / frequencies).flatten(-2)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(x / (1 - x)) with both x and 1 - x at least eps."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
