"""The vision tokenizer in exportable form: one matrix for query, key and value, biases and layer scales
inside the products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from groma_ros.export.detector import DetectorGraph, Gemm, LevelGraph, as_gemms, gelu
from groma_ros.model.groma import Groma
from groma_ros.model.region_encoder import RegionPooling
from groma_ros.model.roi_align import pooling_matrix


class _Block(nn.Module):
    """One DINOv2 block over the rows of all pictures. Layer scales are merged into the weights, which changes
    only the last bits of results."""

    def __init__(self, block: Any, length: int) -> None:  # transformers has no type annotations here
        super().__init__()
        attention, mlp = block.attention, block.mlp
        self.length, self.heads, self.size = (
            length,
            int(attention.num_attention_heads),
            int(attention.head_dim),
        )
        # Three products instead of one: splitting the result of one costs more than it saves.
        self.query, self.key, self.value = (
            Gemm.of(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        self.output = Gemm.of(attention.o_proj, block.layer_scale1.lambda1)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.known = hasattr(mlp, "fc1") and isinstance(mlp.activation_fn, GELUActivation)
        if self.known:
            self.fc1, self.fc2 = Gemm.of(mlp.fc1), Gemm.of(mlp.fc2, block.layer_scale2.lambda1)
        else:
            self.mlp, self.scale = mlp, block.layer_scale2

    def forward(self, x: Tensor) -> Tensor:
        """(B * L, C) to the same shape."""
        inner = self.norm1(x)
        query, key, value = (
            layer(inner).reshape(-1, self.length, self.heads, self.size)
            for layer in (self.query, self.key, self.value)
        )
        weights = ((query.transpose(1, 2) * self.size**-0.5) @ key.permute(0, 2, 3, 1)).softmax(-1)
        x = x + self.output(
            (weights @ value.transpose(1, 2)).transpose(1, 2).reshape(-1, self.heads * self.size)
        )
        inner = self.norm2(x)
        return x + (self.fc2(gelu(self.fc1(inner))) if self.known else self.scale(self.mlp(inner)))


class _Patches(nn.Module):
    """Pixels to the backbone's first hidden state: the non-overlapping convolution is a product over patches
    as rows. The class token and all positions are constants."""

    def __init__(self, model: Groma) -> None:
        super().__init__()
        c, embeddings = model.config, model.perceiver.vis_encoder.embeddings
        projection: nn.Conv2d = embeddings.patch_embeddings.projection
        bias = torch.zeros(projection.out_channels) if projection.bias is None else projection.bias
        self.projection = Gemm(projection.weight.flatten(1), bias)
        cells = torch.zeros(1, 1 + c.grid**2, c.backbone.hidden_size)
        table = embeddings.interpolate_pos_encoding(cells, c.image_size, c.image_size).detach()
        self.first = nn.Parameter(embeddings.cls_token.detach() + table[:, :1], requires_grad=False)
        self.positions = nn.Parameter(table[:, 1:].clone(), requires_grad=False)
        self.grid, self.side = c.grid, c.backbone.patch_size

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, 1 + cells, C)."""
        squares = pixels.reshape(-1, pixels.shape[1], self.grid, self.side, self.grid, self.side).permute(
            0, 2, 4, 1, 3, 5
        )
        cells = self.projection(squares.reshape(-1, pixels.shape[1] * self.side**2)).reshape(
            -1, self.grid**2, self.first.shape[-1]
        )
        return torch.cat([self.first.expand(cells.shape[0], -1, -1), cells + self.positions], 1)


class PerceiveGraph(nn.Module):
    """The perceiving half of a network, its linear layers as Gemms. Takes over the network's detector, which
    must not be used afterwards.

    dtype: of the backbone, the bridge and the maps; the detector and the refiner, which compute boxes and
    scores, stay float32.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        c = self.config = model.config
        self.dtype, length = dtype, 1 + c.grid**2
        self.patches = _Patches(model).to(dtype)
        self.blocks = nn.ModuleList(
            [_Block(block, length).to(dtype) for block in model.perceiver.vis_encoder.encoder.layer]
        )
        self.bridge = nn.ModuleList(
            [Gemm.of(layer) for layer in model.img_txt_bridge if isinstance(layer, nn.Linear)]
        ).to(dtype)
        projections = [level for level in model.perceiver.input_proj if isinstance(level, nn.Sequential)]
        state = torch.zeros(1, c.backbone.hidden_size, c.grid, c.grid)
        shapes = [
            (int(level.shape[-2]), int(level.shape[-1]))
            for level in (projection(state) for projection in projections)
        ]
        self.input_proj = nn.ModuleList([LevelGraph(projection) for projection in projections])
        self.detector = DetectorGraph(model.perceiver.ddetr_transformer, shapes)
        self.refiner = model.perceiver.refiner
        self.fine = model.region_encoder.fine.to(dtype) if c.region.fine else None

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Normalised pixels (B, 3, S, S) to image tokens (B, T, D), boxes (B, Q, 4) cxcywh, objectness (B,
        Q), region maps."""
        c = self.config
        first = self.patches(pixels.to(self.dtype))
        rows = [first.reshape(-1, first.shape[-1])]
        for block in self.blocks:
            rows.append(block(rows[-1]))
        states = [first, *(row.reshape(-1, *first.shape[1:]) for row in rows[1:])]
        last = [state.float() for state in states[-c.proposer.backbone_layers :]]
        mean = sum(last[1:], last[0]) / len(last)
        levels = [projection(mean) for projection in self.input_proj]
        boxes, objectness = self.detector(torch.cat(levels, 1) if len(levels) > 1 else levels[0])
        if self.refiner is not None:
            boxes, objectness = self.refiner(pixels, boxes, objectness)
        maps = [self._map(states[i]) for i in c.region.layers]
        if self.fine is not None:
            maps.append(self.fine(pixels.to(self.dtype)))
        if c.region.crop:
            maps.append(pixels.to(self.dtype))
        return (self._image_tokens(states[c.vis_output_layer]), boxes, objectness, *maps)

    def _image_tokens(self, state: Tensor) -> Tensor:
        """`merge_tokens` and the bridge, moving whole cells: a hidden state (B, 1 + cells, C) to image tokens
        (B, T, D)."""
        c = self.config
        small = c.grid // c.token_merge
        cells = (
            state[:, 1:]
            .reshape(-1, small, c.token_merge, small, c.token_merge, state.shape[-1])
            .permute(0, 1, 3, 4, 2, 5)
        )
        merged = cells.reshape(-1, c.token_merge**2 * state.shape[-1])
        tokens = self.bridge[1](gelu(self.bridge[0](merged)))
        return tokens.reshape(-1, small**2, c.language.hidden_size).float()

    def _map(self, state: Tensor) -> Tensor:
        """A hidden state (B, 1 + cells, C) without its class token as a map (B, C, side, side)."""
        return (
            state[:, 1:].reshape(-1, self.config.grid, self.config.grid, state.shape[-1]).permute(0, 3, 1, 2)
        )


class RegionGraph(nn.Module):
    """The region encoder of a network, its convolutions of pooled levels combined into one. Takes over the
    encoder, which must not be used afterwards.

    dtype: of the convolutions and the linear layers after them; sampling positions, resizes, the embedding of
    the box and the last layer of the pooled maps stay float32.
    """

    def __init__(self, model: Groma, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        c, encoder = model.config, model.region_encoder
        self.dtype = dtype
        self.fuse, self.pooling = encoder.mlvl_fuse.to(dtype), encoder.roi_align
        self.conv = _one_convolution(self.pooling).to(dtype)
        self.flatten = Gemm.of(self.pooling.flatten_linear).to(dtype)
        as_gemms(self.pooling.pos_embedd)
        self.updims = Gemm.of(self.pooling.updims)
        self.crop = None if encoder.crop is None else encoder.crop.to(dtype)
        names = (
            model.new_input_embs.weight[c.first_region_id - c.language.vocab_size :]
            if c.index_in_feature_slot
            else None
        )
        self.names = None if names is None else nn.Parameter(names.detach().clone(), requires_grad=False)

    def forward(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Region maps (1, C, s, s) as of `GromaConfig.map_shapes` and boxes (R, 4) cxcywh to the content of
        the feature slots (R, D)."""
        coarse = len(self.fuse.upsample)
        fused = [*self.fuse([level.to(self.dtype) for level in maps[:coarse]]), *maps[coarse:]]
        levels = fused if self.crop is None else fused[:-1]
        pooled = torch.cat(
            [self._pooled(level, fused_map, boxes) for level, fused_map in enumerate(levels)], 2
        ).transpose(1, 2)
        total = self.conv(pooled.to(self.dtype))
        flat = self.flatten(F.relu(total).flatten(1)).float()
        tokens = self.updims(flat + self.pooling.pos_embedd(boxes))
        if self.crop is not None:
            tokens = tokens + self.crop(fused[-1], boxes[None])[0].float()
        return tokens if self.names is None else tokens + self.names[: tokens.shape[0]]

    def _pooled(self, level: int, fused: Tensor, boxes: Tensor) -> Tensor:
        """Bins (R, pooled rows, C, pooled columns) of boxes (R, 4) in a map (1, C, s, s)."""
        c = self.pooling.config
        return _aligned(
            fused, *self.pooling.corners(boxes, level, fused.shape[-1]), c.pooled, c.sampling_ratio
        )


def _aligned(x: Tensor, start: Tensor, end: Tensor, bins: int, samples: int) -> Tensor:
    """`roi_align` as two products without transposing anything: a map (1, C, s, s) and corners (R, 2) to
    (R, rows, C, columns)."""
    channels, side = x.shape[1], x.shape[-1]
    matrices = pooling_matrix(start, end, side, bins, samples)
    columns, rows = matrices[:, 0], matrices[:, 1]
    partial = rows.reshape(-1, side) @ x[0].float().transpose(0, 1).reshape(side, -1)
    pooled = partial.reshape(-1, bins * channels, side) @ columns.transpose(1, 2)
    return pooled.reshape(-1, bins, channels, bins)


def _one_convolution(pooling: RegionPooling) -> nn.Conv2d:
    """Combine the convolutions of all levels, whose results are added, into one over all their channels."""
    layers = [layer for layer in pooling.pconvs if isinstance(layer, nn.Conv2d)]
    weight = torch.cat([layer.weight.detach() for layer in layers], 1)
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(
        torch.stack([layer.bias.detach() for layer in layers if layer.bias is not None]).sum(0),
        requires_grad=False,
    )
    return conv
