"""Lower bound of a stage's duration: its operations and memory reads at the peak rates of the machine.

Matrix products, convolutions, attention and sampling are counted (a multiply-add is two operations), and
every weight is read once per run. Norms, activations and feature maps between layers are not counted, because
caches may hold them or kernels may fuse them. No program that computes the same numbers at this precision can
be faster.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from groma_ros.bench.machine import Ceilings
from groma_ros.crop_shape import CropShape
from groma_ros.network_config import GromaConfig

BYTES_PER_WEIGHT = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "f16": 2.0,
    "int8": 1.0,
    "q8_0": 34 / 32,
    "int4": 0.5 + 4 / 32,
    "q4_0": 18 / 32,
    "q4_k_m": 4.85 / 8,
}
_CAMERA_BYTES = 640 * 480 * 3


@dataclass(frozen=True)
class Work:
    """Operations, and numbers read from memory: weights and other values."""

    operations: float = 0.0
    weights: float = 0.0
    values: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.operations + other.operations, self.weights + other.weights, self.values + other.values
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.operations * times, self.weights * times, self.values * times)

    def seconds(self, ceilings: Ceilings, precision: str) -> float:
        """Minimum duration, with weights in a precision and other values in float32."""
        moved = self.weights * BYTES_PER_WEIGHT[precision] + self.values * 4
        return max(self.operations / ceilings.operations, moved / ceilings.bytes)


def linear(rows: float, *widths: int) -> Work:
    """Successive layers of these widths over `rows` rows."""
    weights = sum(before * behind for before, behind in itertools.pairwise(widths))
    return Work(2 * rows * weights, weights)


def _attention(queries: float, keys: float, width: int) -> Work:
    return Work(4 * queries * keys * width)


def perceive(config: GromaConfig) -> Work:
    """Backbone, bridge to image tokens, proposer and its refiner, for one image."""
    c, cells = config.backbone, config.grid**2
    hidden = c.hidden_size
    block = linear(cells + 1, hidden, hidden) * 4 + linear(
        cells + 1, hidden, int(hidden * c.mlp_ratio), hidden
    )
    block += _attention(cells + 1, cells + 1, hidden)
    width = config.language.hidden_size
    patches = linear(cells, c.num_channels * c.patch_size**2, hidden)
    bridge = linear(config.num_image_tokens, hidden * config.token_merge**2, width, width)
    corrected = min(_queries(config), config.proposer.crop_queries)
    refiner = _crops(config.proposer.crop_shape, config, corrected, 5)
    return patches + block * c.num_hidden_layers + bridge + _propose(config) + _fine(config) + refiner


def _queries(config: GromaConfig) -> int:
    return min(config.proposer.two_stage_num_proposals, config.grid**2)


def _fine(config: GromaConfig) -> Work:
    """Convolutions of the pixel level, if there is one."""
    widths = (config.backbone.num_channels, *config.region.fine)
    sides = [config.image_size // (2 if layer == 0 else 4) for layer in range(len(config.region.fine))]
    return sum(
        (linear(s * s, 9 * a, b) for s, (a, b) in zip(sides, itertools.pairwise(widths), strict=True)), Work()
    )


def _propose(config: GromaConfig) -> Work:
    """The proposer, for one feature level, as in the published and the shipped network."""
    c, cells, d = config.proposer, config.grid**2, config.proposer.d_model
    queries = _queries(config)
    box_head = (d, c.bbox_hidden, c.bbox_hidden, 4)
    encoder = _deformable(cells, cells, d, c.encoder_attention_heads, c.encoder_n_points) + linear(
        cells, d, c.encoder_ffn_dim, d
    )
    decoder = _deformable(queries, cells, d, c.decoder_attention_heads, c.decoder_n_points) + linear(
        queries, d, c.decoder_ffn_dim, d
    )
    decoder += linear(queries, d, d) * 4 + _attention(queries, queries, d)
    first = linear(cells, config.backbone.hidden_size, d) + linear(cells, d, d, 1) + linear(cells, *box_head)
    last = (
        linear(queries, 2 * d, 2 * d)
        + linear(queries, *box_head) * min(2, c.decoder_layers)
        + linear(queries, d, 1) * 2
    )
    return first + encoder * c.encoder_layers + decoder * c.decoder_layers + last


def _deformable(queries: float, values: float, d: int, heads: int, points: int) -> Work:
    """Offsets, weights, values, sampling of four neighbours, and output."""
    sampling = Work(queries * points * d * 10)
    return linear(queries, d, heads * points * 3) + linear(values, d, d) + sampling + linear(queries, d, d)


def encode_regions(config: GromaConfig, regions: float) -> Work:
    """Fusion of the maps, then `regions` regions."""
    c, channels, cells = config.region, config.region_channels, config.grid**2
    sides = [config.grid * up for up in c.upsample]
    bins = c.pooled**2
    fused = linear(cells, config.backbone.hidden_size + 2, channels) * len(sides)
    fused += linear(sum(side * side for side in sides), 9 * channels, channels) * c.fuse_rounds
    pooled = [*sides, config.image_size // 4] if c.fine else sides
    pooling = Work(sum(2 * regions * c.pooled * channels * side * (side + c.pooled) for side in pooled))
    heads = linear(regions * bins, 9 * channels, channels) * len(pooled) + linear(
        regions, bins * channels, c.hidden
    )
    position = linear(regions, 4, c.pos_hidden, c.hidden)
    tokens = linear(regions, c.hidden, config.region_output)
    return (
        fused
        + pooling
        + heads
        + position
        + tokens
        + _crops(c.crop_shape, config, regions, config.region_output)
    )


def _crops(shape: CropShape | None, config: GromaConfig, boxes: float, output: int) -> Work:
    """Sampling the pixels of `boxes` boxes and the convolutions over them, if there are any, to `output`
    values a box."""
    if shape is None:
        return Work()
    inputs, side = config.backbone.num_channels, shape.side
    total = Work(8 * boxes * side**2 * inputs)  # bilinear samples
    for layer, (a, b) in enumerate(itertools.pairwise((inputs, *shape.widths))):
        side = side if layer % 2 else side // 2
        total += linear(boxes * side * side, 9 * a, b)
    return total + linear(boxes, side * side * shape.widths[-1] + 2, shape.hidden, output)


def read(config: GromaConfig, tokens: float, behind: float, rows: float) -> Work:
    """A run of the language model over `tokens` tokens in total, each after `behind` others, with logits for
    `rows` rows."""
    c = config.language
    held = c.hidden_size // c.num_attention_heads * (c.num_key_value_heads or c.num_attention_heads)
    layer = linear(tokens, c.hidden_size, c.hidden_size) * 2 + linear(tokens, c.hidden_size, held) * 2
    layer += linear(tokens, c.hidden_size, c.intermediate_size) * 3 + _attention(
        tokens, behind, c.hidden_size
    )
    layer += Work(values=2 * held * behind)
    heads = linear(rows, c.hidden_size, config.vocab_size) if rows else Work()
    return layer * c.num_hidden_layers + heads


def floors(
    config: GromaConfig, counts: Mapping[str, float], ceilings: Ceilings, precision: str
) -> dict[str, float]:
    """Minimum duration in seconds of every stage that has one. counts: of one frame, see `stages.Sample`."""
    prefix, tail, rows, steps = (float(counts.get(name, 0)) for name in ("prefix", "tail", "rows", "steps"))
    tokens = float(counts.get("tokens", 0))
    vision = (
        precision if precision in ("fp32", "fp16", "bf16", "int8") else "fp32"
    )  # the other stages run the language model only
    square = 3 * config.image_size**2
    work = {
        "resize": (Work(values=_CAMERA_BYTES / 4 + square), "fp32"),
        "perceive": (perceive(config), vision),
        "encode regions": (encode_regions(config, float(counts.get("regions", 0))), vision),
        "prefill": (read(config, prefix, prefix / 2, 0), precision),
        "goals": (read(config, tail, prefix + tail / max(rows, 1) / 2, rows), precision),
    }
    if steps:
        work["decode"] = (read(config, tokens / steps, prefix, tokens / steps) * steps, precision)
    return {name: item.seconds(ceilings, kind) for name, (item, kind) in work.items()}
