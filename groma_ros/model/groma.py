"""The Groma network: perceive an image, encode its regions, read a prompt that refers to them. Module names
are state-dict names."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from groma_ros.model.backbone import build_backbone, hidden_states, merge_tokens, to_map
from groma_ros.model.box_refiner import BoxRefiner
from groma_ros.model.language import IGNORE, Sequence, build_language
from groma_ros.model.proposer import DeformableDetr, Proposals, build_input_proj
from groma_ros.model.region_encoder import RegionEncoder
from groma_ros.network_config import GromaConfig


@dataclass(frozen=True, eq=False)
class Perception:
    """Output of one vision pass."""

    image_tokens: Tensor
    """(B, T, D)."""
    boxes: Tensor
    """(B, Q, 4) cxcywh fractions."""
    objectness: Tensor
    """(B, Q)."""
    maps: list[Tensor]
    """Inputs of the region encoder, see `Groma.region_maps`."""


class Perceiver(nn.Module):
    """Backbone and region proposer."""

    def __init__(self, config: GromaConfig) -> None:
        super().__init__()
        self.config = config
        c = config.proposer
        self.vis_encoder = build_backbone(config.backbone)
        self.input_proj = build_input_proj(config.backbone.hidden_size, c.d_model, c.num_feature_levels)
        self.ddetr_transformer = DeformableDetr(c)
        shape = c.crop_shape
        inputs = config.backbone.num_channels
        self.refiner = None if shape is None else BoxRefiner(inputs, shape, c.crop_queries)

    def hidden(self, pixels: Tensor) -> list[Tensor]:
        """All hidden states of the backbone, (B, 1 + cells, C) each."""
        return hidden_states(self.vis_encoder, pixels)

    def levels(self, states: list[Tensor]) -> list[Tensor]:
        """The proposer's input maps: the mean of the last hidden states through every projection, finest
        first."""
        mean = torch.stack(states[-self.config.proposer.backbone_layers :]).mean(0)
        return [projection(to_map(mean)) for projection in self.input_proj]

    def propose(self, states: list[Tensor]) -> Proposals:
        """Proposals of all decoder layers, for training and parity."""
        return self.ddetr_transformer(self.levels(states))

    def infer(self, states: list[Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) cxcywh and objectness (B, Q) of the last decoder layer, `refined`."""
        return self.refined(pixels, *self.ddetr_transformer.infer(self.levels(states)))

    def refined(self, pixels: Tensor, boxes: Tensor, objectness: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) and objectness (B, Q) corrected from the pixels (B, 3, S, S), where the network
        does that."""
        return (boxes, objectness) if self.refiner is None else self.refiner(pixels, boxes, objectness)


class Groma(nn.Module):
    """The whole network. Geometry is cxcywh fractions; pixels are normalised (B, 3, S, S)."""

    def __init__(self, config: GromaConfig) -> None:
        super().__init__()
        self.config = config
        width, merged = config.language.hidden_size, config.backbone.hidden_size * config.token_merge**2
        self.perceiver = Perceiver(config)
        self.llm = build_language(config.language)
        self.img_txt_bridge = nn.Sequential(nn.Linear(merged, width), nn.GELU(), nn.Linear(width, width))
        self.region_encoder = RegionEncoder(config)
        self.new_input_embs = nn.Embedding(config.num_new_token, width)
        self.extra_lm_head = nn.Linear(width, config.num_new_token, bias=False)
        nn.init.normal_(self.new_input_embs.weight, std=config.language.initializer_range)
        nn.init.normal_(self.extra_lm_head.weight, std=config.language.initializer_range)

    # --- vision ---

    def perceive(self, pixels: Tensor) -> Perception:
        """Run the vision part: image tokens, proposals and the maps from which regions are encoded."""
        states = self.perceiver.hidden(pixels)
        boxes, objectness = self.perceiver.infer(states, pixels)
        return Perception(self.image_tokens(states), boxes, objectness, self.region_maps(states, pixels))

    def image_tokens(self, states: list[Tensor]) -> Tensor:
        """Convert hidden states to image tokens (B, T, D)."""
        return self.img_txt_bridge(
            merge_tokens(states[self.config.vis_output_layer], self.config.token_merge)
        )

    def region_maps(self, states: list[Tensor], pixels: Tensor) -> list[Tensor]:
        """Maps from which regions are encoded, with shapes of `GromaConfig.map_shapes`: the hidden states to
        fuse, the fine level, and the pixels."""
        c = self.config.region
        fine = [self.region_encoder.fine(pixels)] if c.fine else []
        return [*(to_map(states[layer]) for layer in c.layers), *fine, *([pixels] if c.crop else [])]

    def encode_regions(self, maps: list[Tensor], boxes: Tensor) -> Tensor:
        """Encode boxes (B, R, 4) as region tokens (B, R, D)."""
        return self.region_encoder(maps, boxes)

    # --- language ---

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids (...), including new tokens, as (..., D)."""
        base = self.config.language.vocab_size
        old = self.llm.model.embed_tokens(ids.clamp(max=base - 1))
        new = self.new_input_embs((ids - base).clamp(min=0))
        return torch.where((ids >= base)[..., None], new, old)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocab_size) of final hidden states: the base vocabulary, then the new tokens."""
        return torch.cat([self.llm.lm_head(hidden), self.extra_lm_head(hidden)], -1)

    def region_slot_embeddings(self, region_tokens: Tensor) -> Tensor:
        """Embeddings for the feature slots: region tokens (R, D), plus the embedding of <rK> if the config
        enables it."""
        if not self.config.index_in_feature_slot:
            return region_tokens
        names = torch.arange(len(region_tokens), device=region_tokens.device) + self.config.first_region_id
        return region_tokens + self.embed(names)

    def assemble(self, sequence: Sequence, image_tokens: Tensor, region_tokens: Tensor) -> Tensor:
        """Input embeddings (N, D) of one expanded prompt; image_tokens (T, D), region_tokens (R, D)."""
        embeddings = self.embed(sequence.ids).clone()
        regions = self.region_slot_embeddings(region_tokens).to(embeddings.dtype)
        embeddings[sequence.image_slots] = image_tokens.to(embeddings.dtype)
        embeddings[sequence.region_slots] = regions
        embeddings[sequence.feature_slots] = regions[sequence.feature_regions]
        return embeddings

    def hidden(
        self, embeddings: Tensor, mask: Tensor | None = None, cache: DynamicCache | None = None
    ) -> Tensor:
        """Final hidden states (B, N, D) after the last RMSNorm; with a cache, the embeddings continue it."""
        out = self.llm.model(
            inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache, use_cache=cache is not None
        )
        return out.last_hidden_state

    def loss(self, sequences: Items[Sequence], embeddings: Items[Tensor]) -> Tensor:
        """Next-token cross-entropy over the labelled positions of a batch of assembled prompts."""
        length = max(len(e) for e in embeddings)
        padded = torch.stack([F.pad(e, (0, 0, 0, length - len(e))) for e in embeddings])
        mask = torch.stack(
            [F.pad(torch.ones(len(e), dtype=torch.long), (0, length - len(e))) for e in embeddings]
        )
        labels = torch.stack([F.pad(s.labels, (0, length - len(s.labels)), value=IGNORE) for s in sequences])
        logits = self.logits(self.hidden(padded, mask.to(padded.device)))
        return F.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE
        )

    @torch.no_grad()
    def generate(self, embeddings: Tensor, max_new_tokens: int) -> tuple[list[int], Tensor]:
        """Continue one assembled prompt (N, D) greedily. Returns the ids up to and including `</s>`, and each
        step's logits (steps, V)."""
        cache = DynamicCache()
        ids: list[int] = []
        steps = []
        inputs = embeddings[None]
        while len(ids) < max_new_tokens:
            steps.append(self.logits(self.hidden(inputs, cache=cache)[:, -1])[0])
            ids.append(int(steps[-1].argmax()))
            if ids[-1] == self.config.language.eos_token_id:
                break
            inputs = self.embed(torch.tensor([[ids[-1]]], device=embeddings.device))
        return ids, torch.stack(steps)
