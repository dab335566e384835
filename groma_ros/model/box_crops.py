"""Convolutions over the pixels of each box, resized to one size: what a box shows is seen alike however small
or large it is."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.crop_shape import CropShape


class BoxCrops(nn.Module):
    """Convolutions with GroupNorm and ReLU after each, then a linear layer, to which the size of the box is
    added."""

    def __init__(self, inputs: int, shape: CropShape) -> None:
        super().__init__()
        self.shape = shape
        sizes = list(itertools.pairwise((inputs, *shape.widths)))
        self.convs = nn.ModuleList(
            [nn.Conv2d(a, b, 3, 1 if i % 2 else 2, 1, bias=False) for i, (a, b) in enumerate(sizes)]
        )
        self.norms = nn.ModuleList([nn.GroupNorm(math.gcd(shape.groups, b), b) for _, b in sizes])
        self.flatten = nn.Linear(shape.widths[-1] * (shape.side // shape.scale) ** 2, shape.hidden)
        self.size = nn.Linear(2, shape.hidden, bias=False)

    def crops(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Resized pixels (B, R, 3, side, side) of boxes (B, R, 4) cxcywh fractions in normalised pixels (B,
        3, S, S): one bilinear sample at the centre of each cell. Outside the picture is zero, the mean
        colour."""
        side = self.shape.side
        places = (torch.arange(side, dtype=torch.float32, device=boxes.device) + 0.5) / side - 0.5
        # In the units of grid_sample, -1 to 1 over the picture.
        centre, extent = boxes[..., :2].float() * 2 - 1, boxes[..., 2:].float() * (2 * self.shape.margin)
        x, y = (centre[..., i, None] + extent[..., i, None] * places for i in (0, 1))
        grid = torch.stack(
            [x[..., None, :].expand(-1, -1, side, -1), y[..., None].expand(-1, -1, -1, side)], -1
        )
        taken = F.grid_sample(pixels.float(), grid.flatten(1, 2), align_corners=False)
        return taken.unflatten(2, (-1, side)).transpose(1, 2)

    def features(self, crops: Tensor, boxes: Tensor) -> Tensor:
        """Resized pixels (N, 3, side, side) and their boxes (N, 4) to what they show (N, hidden)."""
        crops = crops.to(self.flatten.weight.dtype)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            crops = F.relu(norm(conv(crops)))
        return F.relu(self.flatten(crops.flatten(1)) + self.size(boxes[:, 2:].to(crops.dtype)))

    def seen(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) and boxes (B, R, 4) to what the boxes show (B * R, hidden)."""
        return self.features(self.crops(pixels, boxes).flatten(0, 1), boxes.flatten(0, 1))
