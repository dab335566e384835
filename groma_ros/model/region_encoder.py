"""The region encoder: fuse backbone maps, pool every box, and compute one token for each box."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.crop_shape import CropShape
from groma_ros.model.box_crops import BoxCrops
from groma_ros.model.roi_align import roi_align
from groma_ros.network_config import GromaConfig, RegionEncoderConfig


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, in float32 whatever the model's precision, as the original."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=True).to(x.dtype)


def with_coordinates(x: Tensor) -> Tensor:
    """Append two channels: x then y, from -1 to 1 over the map."""
    height, width = x.shape[-2:]
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(
        x.shape[0], 1, height, width
    )
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(
        x.shape[0], 1, height, width
    )
    return torch.cat([x, columns, rows], 1)


class FuseConv(nn.Module):
    """Convolution without bias, GroupNorm, ReLU."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.gn(self.conv(x)))


class LevelFusion(nn.Module):
    """Rounds in which every level takes a quarter of its channels from the next coarser and a quarter from
    the next finer level."""

    def __init__(self, inputs: int, channels: int, c: RegionEncoderConfig) -> None:
        super().__init__()
        self.upsample = c.upsample
        self.input_conv = nn.ModuleList([nn.Conv2d(inputs + 2, channels, 1) for _ in c.upsample])
        self.fuse_convs = nn.ModuleList([FuseConv(channels, c.groups) for _ in range(c.fuse_rounds)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Backbone maps (B, C, s, s), one a level, to fused maps (B, channels, s * upsample, s *
        upsample)."""
        side = maps[0].shape[-1]
        # The original resizes first. A 1x1 convolution commutes with the resize, also on the coordinate
        # channels, which are linear and so resized exactly with aligned corners; this way round it works on
        # up to 16 times fewer cells.
        levels = [
            resize(conv(with_coordinates(m)), (side * up, side * up))
            for conv, m, up in zip(self.input_conv, maps, self.upsample, strict=True)
        ]
        for fuse in self.fuse_convs:
            levels = [fuse(_gather(levels, index)) for index in range(len(levels))]
        return levels


class FineLevel(nn.Module):
    """Convolutions over the pixels: two of stride 2, then of stride 1, each with GroupNorm and ReLU; a
    quarter of the input's side."""

    def __init__(self, inputs: int, widths: tuple[int, ...], groups: int) -> None:
        super().__init__()
        sizes = list(itertools.pairwise((inputs, *widths)))
        self.convs = nn.ModuleList(
            [nn.Conv2d(a, b, 3, 2 if i < 2 else 1, 1, bias=False) for i, (a, b) in enumerate(sizes)]
        )
        self.norms = nn.ModuleList([nn.GroupNorm(math.gcd(groups, b), b) for _, b in sizes])

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) to a map (B, channels, S / 4, S / 4)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pixels = F.relu(norm(conv(pixels)))
        return pixels


class CropEncoder(BoxCrops):
    """The pixels of each box, read by convolutions, as a part of its token."""

    def __init__(self, inputs: int, output: int, shape: CropShape) -> None:
        super().__init__(inputs, shape)
        self.output = nn.Linear(shape.hidden, output)

    def forward(self, pixels: Tensor, boxes: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) and boxes (B, R, 4) cxcywh fractions to their part (B, R, D) of
        region tokens."""
        return self.output(self.seen(pixels, boxes)).unflatten(0, boxes.shape[:2])


def _gather(levels: list[Tensor], index: int) -> Tensor:
    own = levels[index]
    channels = own.shape[1]
    quarter = channels // 4
    size = (own.shape[-2], own.shape[-1])
    above = levels[min(index + 1, len(levels) - 1)][:, channels - quarter :]
    below = levels[max(index - 1, 0)][:, channels - 2 * quarter : channels - quarter]
    return torch.cat([own[:, : channels - 2 * quarter], resize(above, size), resize(below, size)], 1)


class RegionPooling(nn.Module):
    """RoIAlign on every level, one convolution a level, their sum, a linear layer and the box's own
    embedding."""

    def __init__(self, channels: int, output: int, c: RegionEncoderConfig) -> None:
        super().__init__()
        self.config = c
        levels = len(c.upsample) + bool(c.fine)
        self.pconvs = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels)])
        self.pos_embedd = nn.Sequential(
            nn.Linear(4, c.pos_hidden),
            nn.ReLU(),
            nn.LayerNorm(c.pos_hidden),
            nn.Linear(c.pos_hidden, c.hidden),
            nn.ReLU(),
            nn.LayerNorm(c.hidden),
        )
        self.flatten_linear = nn.Linear(channels * c.pooled**2, c.hidden)
        self.updims = nn.Linear(c.hidden, output)

    def corners(self, boxes: Tensor, level: int, side: int) -> tuple[Tensor, Tensor]:
        """Start and end (..., 2) of boxes (..., 4) cxcywh in the feature pixels of a level of side x side
        cells."""
        if self.config.geometry == "published":
            scaled = boxes.float() * self.config.box_scale * (1.0 / self.config.strides[level]) - 0.5
            return scaled[..., :2], scaled[..., 2:]
        centre, half = boxes[..., :2].float(), boxes[..., 2:].float() / 2
        return (centre - half) * side - 0.5, (centre + half) * side - 0.5

    def pool(self, maps: list[Tensor], boxes: Tensor) -> list[Tensor]:
        """Pooled features (B, R, C, pooled, pooled) of each level."""
        return [
            roi_align(
                m,
                *self.corners(boxes, level, m.shape[-1]),
                self.config.pooled,
                self.config.sampling_ratio,
            )
            for level, m in enumerate(maps)
        ]

    def flatten(self, pooled: list[Tensor]) -> Tensor:
        """Flatten pooled levels to one vector (B, R, hidden) per box, before the position is added."""
        weight = self.flatten_linear.weight
        total: Tensor | None = None
        for conv, level in zip(self.pconvs, pooled, strict=True):
            part = conv(level.flatten(0, 1).to(weight.dtype))
            total = part if total is None else total + part
        assert total is not None
        return self.flatten_linear(F.relu(total).flatten(1)).unflatten(0, pooled[0].shape[:2])

    def forward(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Fused maps and boxes (B, R, 4) cxcywh fractions to region tokens (B, R, D)."""
        flat = self.flatten(self.pool(maps, boxes))
        # A box needs more digits than half precision has, so its embedding stays float32 if only the large
        # layers are half precision.
        position = self.pos_embedd(boxes.to(self.updims.weight.dtype))
        return self.updims(flat.to(position.dtype) + position)


class RegionEncoder(nn.Module):
    def __init__(self, config: GromaConfig) -> None:
        super().__init__()
        c = config.region
        self.mlvl_fuse = LevelFusion(config.backbone.hidden_size, config.region_channels, c)
        self.roi_align = RegionPooling(config.region_channels, config.region_output, c)
        if c.fine:
            self.fine = FineLevel(config.backbone.num_channels, c.fine, c.groups)
        shape = c.crop_shape
        inputs, output = config.backbone.num_channels, config.region_output
        self.crop = None if shape is None else CropEncoder(inputs, output, shape)

    def levels(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps that `tokens` takes: the fused backbone maps, the fine one and the pixels unchanged."""
        coarse = len(self.mlvl_fuse.upsample)
        return [*self.mlvl_fuse(maps[:coarse]), *maps[coarse:]]

    def tokens(self, levels: list[Tensor], boxes: Tensor) -> Tensor:
        """Levels and boxes (B, R, 4) cxcywh to region tokens (B, R, D)."""
        if self.crop is None:
            return self.roi_align(levels, boxes)
        pooled = self.roi_align(levels[:-1], boxes)
        return pooled + self.crop(levels[-1], boxes)

    def forward(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Maps (B, C, s, s) of `GromaConfig.map_shapes` and boxes (B, R, 4) cxcywh to region tokens (B, R,
        D)."""
        return self.tokens(self.levels(maps), boxes)
