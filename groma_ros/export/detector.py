"""The region proposer in exportable form: every layer works on rows, and values independent of the image are
constants."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.model.backbone import to_map
from groma_ros.model.deformable import DeformableAttention, Shapes, sine_frequencies, sine_positions
from groma_ros.model.proposer import (
    DecoderLayer,
    DeformableDetr,
    EncoderLayer,
    LayerNorm2d,
    QueryAttention,
    cell_centres,
)


class Gemm(nn.Module):
    """A linear layer over rows as one matrix product with bias, stored input x output.

    scale: for each output, applied as a separate product so that fp16 weights stay fp16 in the file.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None) -> None:
        """weight: output x input, as in `nn.Linear`."""
        super().__init__()
        bias = torch.zeros(len(weight)) if bias is None else bias
        self.weight = nn.Parameter(weight.detach().T.contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.scale = None if scale is None else nn.Parameter(scale.detach().clone(), requires_grad=False)

    @classmethod
    def of(cls, layer: nn.Linear, scale: Tensor | None = None) -> Gemm:
        """Convert a linear layer, its outputs multiplied by `scale`."""
        return cls(layer.weight, layer.bias, scale)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, input) to (rows, output)."""
        if self.scale is None:
            return torch.addmm(self.bias, x, self.weight)
        return torch.addmm(self.bias * self.scale, x, self.weight * self.scale)


def as_gemms(module: nn.Module) -> None:
    """Replace every linear layer inside a module by its Gemm. All of them must operate on rows."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Gemm.of(child))
        else:
            as_gemms(child)


def gelu(x: Tensor) -> Tensor:
    """GELU with the error function, in the operations that runtimes fuse."""
    return x * (torch.erf(x / 2**0.5) + 1.0) * 0.5


_CLAMP = math.log((1 - 1e-5) / 1e-5)
"""The inverse sigmoid of a sigmoid is its input, within the range that `inverse_sigmoid` passes."""


class LevelGraph(nn.Module):
    """Projection of the backbone's cells to one level of the detector. A 1x1 convolution is a matrix product
    over rows."""

    def __init__(self, projection: nn.Sequential) -> None:
        super().__init__()
        first, norm = projection[0], projection[-1]
        self.plain = len(projection) == 2 and isinstance(first, nn.Conv2d) and first.kernel_size == (1, 1)
        if self.plain and isinstance(first, nn.Conv2d) and isinstance(norm, LayerNorm2d):
            self.gemm = Gemm(first.weight.flatten(1), first.bias)
            self.norm = nn.LayerNorm(norm.weight.shape, norm.eps)
            self.norm.weight, self.norm.bias = norm.weight, norm.bias
        else:
            self.projection = projection

    def forward(self, state: Tensor) -> Tensor:
        """A hidden state (B, 1 + cells, C) to rows (B, cells of the level, d)."""
        if not self.plain:
            return self.projection(to_map(state)).flatten(2).transpose(1, 2)
        cells = state[:, 1:]
        return self.norm(self.gemm(cells.reshape(-1, cells.shape[-1]))).reshape(
            -1, cells.shape[1], self.gemm.weight.shape[1]
        )


class _Sampling(nn.Module):
    """Deformable attention over rows. Positions are in the units of GridSample, -1 to 1 over the image."""

    def __init__(self, attention: DeformableAttention, shapes: Shapes, queries: int, boxes: bool) -> None:
        """boxes: references are boxes rather than cell centres."""
        super().__init__()
        self.heads, self.levels, self.points = attention.heads, attention.levels, attention.points
        self.shapes, self.queries = shapes, queries
        steps = torch.tensor(
            [[1 / self.points] * 2 if boxes else [2 / width, 2 / height] for height, width in shapes]
        )
        self.steps = steps[None, :, None].expand(self.heads, -1, self.points, -1).reshape(-1, 2)
        self.sampling_offsets = Gemm.of(attention.sampling_offsets)
        self.attention_weights = Gemm.of(attention.attention_weights)
        self.value_proj, self.output_proj = Gemm.of(attention.value_proj), Gemm.of(attention.output_proj)

    def forward(self, query: Tensor, memory: Tensor, centre: Tensor, extent: Tensor | None = None) -> Tensor:
        """query (B * Q, d); memory (B * N, d); centre (B or 1, Q, 1, 2) in the units of GridSample; extent
        (B, Q, 1, 2) of boxes, as fractions of the image. To (B * Q, d)."""
        count = self.heads * self.levels * self.points
        offsets = self.sampling_offsets(query).reshape(-1, self.queries, count, 2)
        places = centre.expand(-1, -1, count, -1) + offsets * (
            self.steps if extent is None else self.steps * extent
        )
        grids = self._by_level(
            places.reshape(-1, self.queries, self.heads, self.levels, self.points, 2), (3, 0, 2, 4, 1, 5)
        )
        weights = (
            self.attention_weights(query)
            .reshape(-1, self.queries, self.heads, self.levels * self.points)
            .softmax(-1)
        )
        shares = self._by_level(
            weights.reshape(-1, self.queries, self.heads, self.levels, self.points), (3, 0, 2, 4, 1)
        )
        cells = sum(height * width for height, width in self.shapes)
        value = (
            self.value_proj(memory)
            .reshape(-1, cells, self.heads, memory.shape[-1] // self.heads)
            .permute(0, 2, 3, 1)
            .flatten(0, 1)
        )
        sampled: Tensor | None = None
        start = 0
        for (height, width), grid, share in zip(self.shapes, grids, shares, strict=True):
            level = value if self.levels == 1 else value[..., start : start + height * width]
            start += height * width
            taken = F.grid_sample(
                level.unflatten(-1, (height, width)), grid, padding_mode="zeros", align_corners=False
            )
            part = (taken * share[:, None]).sum(2)
            sampled = part if sampled is None else sampled + part
        assert sampled is not None
        merged = sampled.reshape(-1, memory.shape[-1], self.queries).transpose(1, 2)
        return self.output_proj(merged.reshape(-1, memory.shape[-1]))

    def _by_level(self, x: Tensor, order: Sequence[int]) -> list[Tensor]:
        """Split (B, Q, heads, L, points, ...) into one (B * heads, points, Q, ...) for each level."""
        ordered = x.permute(*order)
        return [part.flatten(0, 2) for part in ([ordered] if self.levels == 1 else ordered.split(1))]


class _Encoder(nn.Module):
    def __init__(self, layer: EncoderLayer, shapes: Shapes) -> None:
        super().__init__()
        cells = sum(height * width for height, width in shapes)
        self.self_attn = _Sampling(layer.self_attn, shapes, cells, boxes=False)
        self.self_attn_layer_norm, self.final_layer_norm = layer.self_attn_layer_norm, layer.final_layer_norm
        self.fc1, self.fc2 = Gemm.of(layer.fc1), Gemm.of(layer.fc2)

    def forward(self, x: Tensor, positions: Tensor, centres: Tensor) -> Tensor:
        """x (B * N, d), positions (1, N, d), centres (1, N, 1, 2) to (B * N, d)."""
        query = (x.reshape(-1, *positions.shape[1:]) + positions).reshape(-1, x.shape[-1])
        x = self.self_attn_layer_norm(x + self.self_attn(query, x, centres))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))


class _QueryAttention(nn.Module):
    def __init__(self, attention: QueryAttention, queries: int) -> None:
        super().__init__()
        self.heads, self.queries = attention.heads, queries
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (
            Gemm.of(layer)
            for layer in (attention.k_proj, attention.v_proj, attention.q_proj, attention.out_proj)
        )

    def forward(self, x: Tensor, placed: Tensor) -> Tensor:
        """x (B * Q, d), of all pictures or the same for each (Q, d), and with positions (B * Q, d), to (B *
        Q, d)."""
        size = x.shape[-1] // self.heads
        query, key, value = (
            layer(rows).reshape(-1, self.queries, self.heads, size)
            for layer, rows in ((self.q_proj, placed), (self.k_proj, placed), (self.v_proj, x))
        )
        weights = ((query.transpose(1, 2) * size**-0.5) @ key.permute(0, 2, 3, 1)).softmax(-1)
        return self.out_proj((weights @ value.transpose(1, 2)).transpose(1, 2).reshape(-1, x.shape[-1]))


class _Decoder(nn.Module):
    def __init__(self, layer: DecoderLayer, shapes: Shapes, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.self_attn = _QueryAttention(layer.self_attn, queries)
        self.encoder_attn = _Sampling(layer.encoder_attn, shapes, queries, boxes=True)
        self.self_attn_layer_norm, self.encoder_attn_layer_norm = (
            layer.self_attn_layer_norm,
            layer.encoder_attn_layer_norm,
        )
        self.final_layer_norm = layer.final_layer_norm
        self.fc1, self.fc2 = Gemm.of(layer.fc1), Gemm.of(layer.fc2)

    def forward(self, x: Tensor, positions: Tensor, memory: Tensor, centre: Tensor, extent: Tensor) -> Tensor:
        """x (B * Q, d), or (Q, d) for every picture; positions (B * Q, d); memory (B * N, d); centre and
        extent (B, Q, 1, 2)."""
        x = self.self_attn_layer_norm(self._plus(self.self_attn(x, self._plus(positions, x)), x))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x + positions, memory, centre, extent))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))

    def _plus(self, rows: Tensor, x: Tensor) -> Tensor:
        """rows (B * Q, d) + x, which may be (Q, d)."""
        per_picture = rows.reshape(-1, self.queries, rows.shape[-1]) + x.reshape(
            -1, self.queries, x.shape[-1]
        )
        return per_picture.reshape(-1, rows.shape[-1])


class DetectorGraph(nn.Module):
    """`DeformableDetr.infer` over rows. Modifies the given detector, which must not be used afterwards.

    Boxes are computed only for cells that become queries. The sigmoid and its inverse between two boxes are
    left out.
    """

    def __init__(self, model: DeformableDetr, shapes: Shapes) -> None:
        super().__init__()
        c = self.config = model.config
        self.shapes, self.cells = shapes, sum(height * width for height, width in shapes)
        self.queries = min(c.two_stage_num_proposals, self.cells)
        self.centres, self.known, self.outside = _cells(shapes, c.proposal_scale)
        self.layers = nn.ModuleList(
            [_Encoder(layer, shapes) for layer in model.encoder.layers if isinstance(layer, EncoderLayer)]
        )
        self.decoder = nn.ModuleList(
            [
                _Decoder(layer, shapes, self.queries)
                for layer in model.decoder.layers
                if isinstance(layer, DecoderLayer)
            ]
        )
        self.level_embed, self.query_positions = model.level_embed, model.query_position_embeddings
        self.enc_output, self.enc_output_norm = Gemm.of(model.enc_output), model.enc_output_norm
        self.class_embed_enc = Gemm.of(model.class_embed_enc)
        self.pos_trans, self.pos_trans_norm = (
            Gemm(_halves_apart(model.pos_trans.weight), model.pos_trans.bias),
            model.pos_trans_norm,
        )
        first = max(0, len(self.decoder) - 2)
        self.boxes = nn.ModuleList([*model.bbox_embed[first : len(self.decoder)], model.bbox_embed[-1]])
        as_gemms(self.boxes)
        heads = [
            head
            for head in (model.class_embed_coco[-1], model.class_embed_sa1b[-1])
            if isinstance(head, nn.Linear)
        ]
        self.classes = Gemm(
            torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        )

    def forward(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Projected cells of all levels (B, N, d) to boxes (B, Q, 4) cxcywh fractions and objectness (B,
        Q)."""
        device, width = memory.device, memory.shape[-1]
        positions = [
            sine_positions(h, w, width, self.config.position_temperature, device) for h, w in self.shapes
        ]
        placed = torch.cat([part + self.level_embed[level] for level, part in enumerate(positions)], 1)
        x = memory.reshape(-1, width)
        for layer in self.layers:
            x = layer(x, placed, (self.centres * 2 - 1)[None, :, None])
        logits = self._queries(x)
        initial = logits.sigmoid()
        rows = self.pos_trans_norm(self.pos_trans(self._box_positions(initial)))[:, :width]
        state = self.query_positions.weight[: self.queries]
        centre, extent = (initial[..., :2] * 2 - 1)[:, :, None], initial[:, :, None, 2:]
        states = []
        for layer in self.decoder:
            state = layer(state, rows, x, centre, extent)
            states.append(state)
        for head, state in zip(list(self.boxes)[:-1], states[-2:], strict=True):
            logits = head(state).reshape(-1, self.queries, 4) + logits.clamp(-_CLAMP, _CLAMP)
        return logits.sigmoid(), self._objectness(states[-1])

    def _queries(self, memory: Tensor) -> Tensor:
        """Box logits (B, Q, 4) of the cells with the highest objectness; memory (B * N, d)."""
        if self.outside is not None:
            memory = (
                memory.reshape(-1, self.cells, memory.shape[-1])
                .masked_fill(self.outside, 0.0)
                .reshape(-1, memory.shape[-1])
            )
        features = self.enc_output_norm(self.enc_output(memory))
        best = self.class_embed_enc(features).reshape(-1, self.cells).topk(self.queries, 1).indices
        cells = features.reshape(-1, self.cells, features.shape[-1])
        chosen = cells.gather(1, best[..., None].expand(-1, -1, cells.shape[-1])).reshape(-1, cells.shape[-1])
        return self.boxes[-1](chosen).reshape(-1, self.queries, 4) + F.embedding(best, self.known)

    def _box_positions(self, boxes: Tensor) -> Tensor:
        """Sine embedding (B * Q, 2 d) of boxes (B, Q, 4), of every coordinate first all sines and then all
        cosines."""
        frequencies = sine_frequencies(
            self.config.d_model // 2, self.config.position_temperature, boxes.device
        )[::2]
        angles = boxes[..., None] * (2 * math.pi / frequencies)
        return torch.cat([angles.sin(), angles.cos()], -1).reshape(-1, 2 * self.config.d_model)

    def _objectness(self, state: Tensor) -> Tensor:
        """See `DeformableDetr.objectness`."""
        powers = torch.tensor([self.config.coco_power, self.config.sa1b_power], device=state.device)
        coco, sa1b = (self.classes(state).sigmoid() ** powers).reshape(-1, self.queries, 2).unbind(-1)
        return coco * sa1b


def _halves_apart(weight: Tensor) -> Tensor:
    """Reorder a layer's weights over the sine embedding of boxes, from alternating sines and cosines to all
    sines, then all cosines."""
    return weight.unflatten(1, (4, -1, 2)).transpose(2, 3).flatten(1)


def _cells(shapes: Shapes, scale: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """For the cells of all levels: centres (N, 2), logits (N, 4) of their initial boxes, and a mask (N, 1) of
    cells without one, if any."""
    centres = cell_centres(shapes, torch.device("cpu"))[0]
    sizes = torch.cat([torch.full((h * w, 2), scale * 2.0**level) for level, (h, w) in enumerate(shapes)])
    boxes = torch.cat([centres, sizes], -1)
    outside = ((boxes <= 0.01) | (boxes >= 0.99)).any(-1, keepdim=True)
    logits = torch.log(boxes / (1 - boxes)).masked_fill(outside, float("inf"))
    return centres, logits, outside if outside.any() else None
