"""The class-agnostic region proposer: a two-stage Deformable DETR with two objectness heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groma_ros.model.deformable import (
    DeformableAttention,
    Shapes,
    box_positions,
    inverse_sigmoid,
    sine_positions,
)
from groma_ros.network_config import ProposerConfig


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of every pixel of a (B, C, H, W) map."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        ).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class EncoderOutput:
    """Output of stage one."""

    memory: Tensor
    """(B, N, d)."""
    objectness: Tensor
    """Logits (B, N, 1)."""
    box_logits: Tensor
    """(B, N, 4); +inf for invalid cells."""
    shapes: Shapes


@dataclass(frozen=True, eq=False)
class Proposals:
    """All queries of every decoder layer, in layer order."""

    boxes: Tensor
    """(layers, B, Q, 4) cxcywh fractions."""
    coco: Tensor
    """Logits (layers, B, Q, 1); likewise sa1b."""
    sa1b: Tensor
    initial: Tensor  # (B, Q, 4) references of the decoder
    states: Tensor  # (layers, B, Q, d) decoder states
    refined: Tensor  # (layers, B, Q, 4) sigmoid(head_k(h_k) + inverse_sigmoid(initial))
    encoder: EncoderOutput


class BoxHead(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        last = nn.Linear(hidden, 4)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.ModuleList([nn.Linear(dim, hidden), nn.Linear(hidden, hidden), last])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


class EncoderLayer(nn.Module):
    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(
            c.d_model, c.encoder_attention_heads, c.num_feature_levels, c.encoder_n_points
        )
        self.self_attn_layer_norm = nn.LayerNorm(c.d_model)
        self.fc1 = nn.Linear(c.d_model, c.encoder_ffn_dim)
        self.fc2 = nn.Linear(c.encoder_ffn_dim, c.d_model)
        self.final_layer_norm = nn.LayerNorm(c.d_model)

    def forward(self, x: Tensor, positions: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x + positions, x, references, shapes))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))


class QueryAttention(nn.Module):
    """Self-attention between queries: q and k see the positions, v does not."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k, v = (
            layer(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, value in ((self.q_proj, x + positions), (self.k_proj, x + positions), (self.v_proj, x))
        )
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1)
        return self.out_proj((weights.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class DecoderLayer(nn.Module):
    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        self.self_attn = QueryAttention(c.d_model, c.decoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(c.d_model)
        self.encoder_attn = DeformableAttention(
            c.d_model, c.decoder_attention_heads, c.num_feature_levels, c.decoder_n_points
        )
        self.encoder_attn_layer_norm = nn.LayerNorm(c.d_model)
        self.fc1 = nn.Linear(c.d_model, c.decoder_ffn_dim)
        self.fc2 = nn.Linear(c.decoder_ffn_dim, c.d_model)
        self.final_layer_norm = nn.LayerNorm(c.d_model)

    def forward(
        self, x: Tensor, positions: Tensor, references: Tensor, memory: Tensor, shapes: Shapes
    ) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x, positions))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x + positions, memory, references, shapes))
        return self.final_layer_norm(x + self.fc2(F.relu(self.fc1(x))))


class Encoder(nn.Module):
    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(c) for _ in range(c.encoder_layers)])


class Decoder(nn.Module):
    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(c) for _ in range(c.decoder_layers)])


def cell_centres(shapes: Shapes, device: torch.device) -> Tensor:
    """Centres (1, N, 2) of all cells of all levels as fractions, row-major."""
    parts = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        parts.append(
            torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)
        )
    return torch.cat(parts)[None]


class DeformableDetr(nn.Module):
    """The proposer. State-dict names are the original's (`perceiver.ddetr_transformer.*`), without the
    decoder's aliases."""

    def __init__(self, c: ProposerConfig) -> None:
        super().__init__()
        self.config = c
        d = c.d_model
        self.level_embed = nn.Parameter(torch.randn(c.num_feature_levels, d))
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.query_position_embeddings = nn.Embedding(c.num_queries, d)
        self.enc_output, self.enc_output_norm = nn.Linear(d, d), nn.LayerNorm(d)
        self.pos_trans, self.pos_trans_norm = nn.Linear(2 * d, 2 * d), nn.LayerNorm(2 * d)
        self.class_embed_enc = nn.Linear(d, 1)
        self.class_embed_coco = nn.ModuleList([nn.Linear(d, 1) for _ in range(c.decoder_layers)])
        self.class_embed_sa1b = nn.ModuleList([nn.Linear(d, 1) for _ in range(c.decoder_layers)])
        self.bbox_embed = nn.ModuleList([BoxHead(d, c.bbox_hidden) for _ in range(c.decoder_layers + 1)])
        for head in (self.class_embed_enc, *self.class_embed_coco, *self.class_embed_sa1b):
            nn.init.constant_(head.bias, -4.6)  # focal loss starts from a 1 % prior (Lin et al. 2017, 4.1)

    def forward(self, maps: list[Tensor]) -> Proposals:
        """maps: one (B, d, h, w) for each level, the finest first."""
        encoder = self.encode(maps)
        initial = self.select_queries(encoder)
        states = self.decode(encoder, initial)
        return self.read_heads(encoder, initial, states)

    def encode(self, maps: list[Tensor]) -> EncoderOutput:
        """Run stage one: the encoder, then objectness and a box for every cell."""
        c = self.config
        shapes = [(m.shape[-2], m.shape[-1]) for m in maps]
        device = maps[0].device
        positions = torch.cat(
            [
                sine_positions(h, w, c.d_model, c.position_temperature, device) + self.level_embed[level]
                for level, (h, w) in enumerate(shapes)
            ],
            1,
        )
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        centres = cell_centres(shapes, device)
        references = centres[:, :, None].expand(memory.shape[0], -1, len(shapes), -1)
        for layer in self.encoder.layers:
            memory = layer(memory, positions, references, shapes)
        return self._first_boxes(memory, centres, shapes)

    def _first_boxes(self, memory: Tensor, centres: Tensor, shapes: Shapes) -> EncoderOutput:
        sizes = torch.cat(
            [
                torch.full((1, h * w, 2), self.config.proposal_scale * 2.0**level, device=memory.device)
                for level, (h, w) in enumerate(shapes)
            ],
            1,
        )
        proposals = torch.cat([centres, sizes], -1)
        valid = ((proposals > 0.01) & (proposals < 0.99)).all(-1, keepdim=True)
        logits = torch.log(proposals / (1 - proposals)).masked_fill(~valid, float("inf"))
        features = self.enc_output_norm(self.enc_output(memory.masked_fill(~valid, 0.0)))
        return EncoderOutput(
            memory, self.class_embed_enc(features), self.bbox_embed[-1](features).float() + logits, shapes
        )

    def select_queries(self, encoder: EncoderOutput) -> Tensor:
        """Initial references (B, Q, 4): boxes of the cells with the highest objectness."""
        count = min(self.config.two_stage_num_proposals, encoder.objectness.shape[1])
        best = encoder.objectness[..., 0].float().topk(count, 1).indices
        logits = encoder.box_logits.gather(1, best[..., None].expand(-1, -1, 4))
        return logits.detach().sigmoid()

    def decode(self, encoder: EncoderOutput, initial: Tensor) -> list[Tensor]:
        """Decoder states, one (B, Q, d) for each layer. Every layer samples around the initial references."""
        c = self.config
        sincos = box_positions(initial, c.d_model, c.position_temperature).to(self.pos_trans.weight.dtype)
        positions = self.pos_trans_norm(self.pos_trans(sincos))[..., : c.d_model]
        state = self.query_position_embeddings.weight[None, : initial.shape[1]].expand(
            initial.shape[0], -1, -1
        )
        references = initial[:, :, None].expand(-1, -1, c.num_feature_levels, -1)
        states = []
        for layer in self.decoder.layers:
            state = layer(state, positions, references, encoder.memory, encoder.shapes)
            states.append(state)
        return states

    def read_heads(self, encoder: EncoderOutput, initial: Tensor, states: list[Tensor]) -> Proposals:
        """Boxes and objectness logits of every layer; layer k refines the output of head k - 1 on the initial
        references."""
        deltas = [self.bbox_embed[k](state).float() for k, state in enumerate(states)]
        refined = [(delta + inverse_sigmoid(initial)).sigmoid() for delta in deltas]
        bases = [initial, *(box.detach() for box in refined[:-1])]
        boxes = [(delta + inverse_sigmoid(base)).sigmoid() for delta, base in zip(deltas, bases, strict=True)]
        return Proposals(
            boxes=torch.stack(boxes),
            coco=torch.stack(
                [head(h).float() for head, h in zip(self.class_embed_coco, states, strict=True)]
            ),
            sa1b=torch.stack(
                [head(h).float() for head, h in zip(self.class_embed_sa1b, states, strict=True)]
            ),
            initial=initial,
            states=torch.stack(states),
            refined=torch.stack(refined),
            encoder=encoder,
        )

    def infer(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) cxcywh and objectness (B, Q) of the last layer only; unused heads are not
        computed."""
        encoder = self.encode(maps)
        initial = self.select_queries(encoder)
        states = self.decode(encoder, initial)
        base = initial
        for k in range(max(0, len(states) - 2), len(states)):
            box = (
                self.bbox_embed[k](states[k]).float()
                + inverse_sigmoid(base if k == len(states) - 1 else initial)
            ).sigmoid()
            base = box
        return base, self.objectness(
            self.class_embed_coco[-1](states[-1]), self.class_embed_sa1b[-1](states[-1])
        )

    def objectness(self, coco: Tensor, sa1b: Tensor) -> Tensor:
        """Fuse the two heads: sigmoid(coco)^0.4 * sigmoid(sa1b)^0.6, (..., 1) logits to (...)."""
        c = self.config
        return (coco.float().sigmoid() ** c.coco_power * sa1b.float().sigmoid() ** c.sa1b_power)[..., 0]


def build_input_proj(channels: int, d: int, levels: int) -> nn.ModuleList:
    """Projections of the backbone map to the detector's levels, the finest first."""
    if levels == 1:
        return nn.ModuleList([nn.Sequential(nn.Conv2d(channels, d, 1), LayerNorm2d(d))])
    builders: list[Callable[[], nn.Module]] = [
        lambda: nn.Sequential(nn.Conv2d(channels, d, 3, stride=2, padding=1), LayerNorm2d(d)),
        lambda: nn.Sequential(nn.Conv2d(channels, d, 1), LayerNorm2d(d)),
        lambda: nn.Sequential(
            nn.ConvTranspose2d(channels, d // 2, 2, stride=2),
            nn.Conv2d(d // 2, d, 1),
            LayerNorm2d(d),
            nn.Conv2d(d, d, 3, padding=1),
        ),
        lambda: nn.Sequential(
            nn.ConvTranspose2d(channels, d // 2, 2, stride=2),
            LayerNorm2d(d // 2),
            nn.GELU(),
            nn.ConvTranspose2d(d // 2, d // 4, 2, stride=2),
            nn.Conv2d(d // 4, d, 1),
            LayerNorm2d(d),
            nn.Conv2d(d, d, 3, padding=1),
        ),
    ]
    if levels > len(builders):
        raise ValueError(
            f"The proposer has projections for 1 to {len(builders)} feature levels, not {levels}."
        )
    return nn.ModuleList([build() for build in builders[:levels]][::-1])
