"""RoIAlign as two matrix products: a small matrix an axis averages a map into the bins of each box."""

from __future__ import annotations

import torch
from torch import Tensor


def pooling_matrix(start: Tensor, end: Tensor, size: int, bins: int, samples: int) -> Tensor:
    """Weights (B, R, bins, size) with which one axis of a map is averaged into the bins of a box from start
    to end, each the mean of `samples` bilinear samples.

    Bilinear sampling is a product of two hat functions, so RoIAlign is one small matrix an axis. The extent
    may be negative: bins are then walked backwards (groma_spec 0.3). A sample outside [-1, size] counts as
    zero.
    """
    step = (end - start) / bins
    place = torch.arange(bins * samples, dtype=torch.float32, device=start.device)
    bin_index, sample = torch.div(place, samples, rounding_mode="floor"), place % samples
    position = start[..., None] + bin_index * step[..., None] + (sample + 0.5) * (step / samples)[..., None]
    inside = (position >= -1) & (position <= size)
    clamped = position.clamp(0, size - 1)
    cells = torch.arange(size, dtype=torch.float32, device=start.device)
    hats = (1 - (clamped[..., None] - cells).abs()).clamp(min=0) * inside[..., None]
    return hats.unflatten(-2, (bins, samples)).mean(-2)


def roi_align(x: Tensor, start: Tensor, end: Tensor, bins: int, samples: int) -> Tensor:
    """x (B, C, H, W); start and end (B, R, 2) as (x, y) in feature pixels; to (B, R, C, bins, bins),
    float32 except under autocast."""
    x = x.float()
    columns = pooling_matrix(start[..., 0], end[..., 0], x.shape[-1], bins, samples)
    rows = pooling_matrix(start[..., 1], end[..., 1], x.shape[-2], bins, samples)
    partial = torch.einsum("brph,bchw->brcpw", rows, x)
    return torch.einsum("brcpw,brqw->brcpq", partial, columns)
