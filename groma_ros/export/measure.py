"""Measure how much a bundle's graphs differ from the network they were exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from groma_ros.model.groma import Groma
from groma_ros.network_config import GromaConfig
from groma_ros.runtime.graph_vision import VisionGraph
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.types import FloatArray

Compared = Literal["ordered", "passed"]

PICTURES = 4
LARGE = 10**8
"""Backbones with more weights are measured on only one image, since one takes a minute or more in PyTorch and
in the graph."""
REGIONS = 12
PREFIX, TAILS = 60, (1, 9, 4, 17)
SLOTS = 256
"""Context length required by `language_difference`, tokens."""


def _picture(rng: np.random.Generator, size: int) -> FloatArray:
    """Normalised pixels (1, 3, size, size): random squares of one random side length."""
    cells = int(rng.integers(4, 33))
    coarse = rng.normal(0, 1.2, (3, cells, cells)).astype(np.float32)
    index = np.arange(size) * cells // size
    return np.ascontiguousarray(coarse[:, index[:, None], index])[None]


def pictures_of(config: GromaConfig) -> int:
    """Number of images on which a network is measured."""
    backbone = config.backbone
    return 1 if 12 * backbone.num_hidden_layers * backbone.hidden_size**2 > LARGE else PICTURES


def noise(config: GromaConfig, seed: int = 0) -> list[FloatArray]:
    """Normalised noise images (1, 3, S, S) of several grain sizes."""
    rng = np.random.default_rng(seed)
    return [_picture(rng, config.image_size) for _ in range(pictures_of(config))]


def drawn_picture(seed: int = 0) -> NDArray[Any]:
    """A picture of coloured boxes on grey, uint8 480x640x3, identical for the same seed."""
    rng = np.random.default_rng(seed)
    picture = np.full((480, 640, 3), 128, np.uint8)
    for _ in range(12):
        x, y = rng.integers(0, 560), rng.integers(0, 400)
        width, height = rng.integers(30, 160, 2)
        picture[y : y + height, x : x + width] = rng.integers(0, 256, 3)
    return picture


def noise_regions(config: GromaConfig, seed: int = 0) -> list[dict[str, FloatArray]]:
    """Inputs of the region encoder: noise maps, and boxes inside, across and outside the image with extents
    of either sign."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(pictures_of(config)):
        maps = {
            f"map.{level}": rng.normal(0, 1, (1, *shape)).astype(np.float32)
            for level, shape in enumerate(config.map_shapes)
        }
        count = int(rng.integers(1, min(REGIONS, config.max_region_num) + 1))
        boxes = np.concatenate(
            [rng.uniform(-0.3, 1.3, (count, 2)), rng.uniform(-0.2, 1.2, (count, 2))], 1
        ).astype(np.float32)
        found.append({**maps, "boxes": boxes})
    return found


@torch.inference_mode()
def perceive_difference(
    model: Groma, graph: VisionGraph, pictures: Sequence[FloatArray], proposals: Compared
) -> float:
    """Worst |graph - network| / max |network| over all outputs, for normalised pixels (1, 3, S, S).

    proposals: which are compared. `ordered`: all, by rank. Rounding changes the ranking, which nothing
    depends on, and the selection of the last ones; so `passed` compares those above the threshold, and the
    best one in any case, each with the most similar one of the graph.
    """
    worst = 0.0
    for pixels in pictures:
        seen = model.perceive(torch.from_numpy(pixels))
        wanted = {"image_tokens": seen.image_tokens, "boxes": seen.boxes[0], "objectness": seen.objectness[0]}
        wanted |= {f"map.{level}": value for level, value in enumerate(seen.maps)}
        known = {name: value.numpy() for name, value in wanted.items()}
        found, _ = graph.run({"pixels": pixels})
        found |= {name: found[name][0] for name in ("boxes", "objectness")}
        if proposals != "ordered":
            scores = known["objectness"]
            kept = scores >= min(model.config.box_score_thres, scores.max())
            boxes = np.abs(found["boxes"][None] - known["boxes"][kept][:, None]).max(-1)
            alike = np.maximum(boxes, np.abs(found["objectness"][None] - scores[kept][:, None])).argmin(1)
            for name in ("boxes", "objectness"):
                known[name], found[name] = known[name][kept], found[name][alike]
        worst = max([worst, *(difference(found[name], value) for name, value in known.items() if value.size)])
    return worst


@torch.inference_mode()
def regions_difference(model: Groma, graph: VisionGraph, inputs: Sequence[Mapping[str, FloatArray]]) -> float:
    """Likewise for region tokens; inputs: of the region encoder."""
    worst = 0.0
    for feeds in inputs:
        maps = [torch.from_numpy(feeds[f"map.{level}"]) for level in range(len(model.config.map_shapes))]
        tokens = model.encode_regions(maps, torch.from_numpy(feeds["boxes"])[None])[0]
        found, _ = graph.run(feeds)
        worst = max(worst, difference(found["region_tokens"], model.region_slot_embeddings(tokens).numpy()))
    return worst


def language_difference(oracle: LanguageModel, graph: LanguageModel, seed: int = 0) -> float:
    """Worst |graph - network| / max |network| over logits after a prefix, goals after it, and a further token
    for some of them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, oracle.vocabulary, PREFIX + sum(TAILS))
    prefix, *tails = np.split(graph.embed(ids), np.cumsum([PREFIX, *TAILS[:-1]]))
    rows, tokens = [2, 0, 3], [int(token) for token in ids[:3]]
    logits: list[Sequence[FloatArray]] = []
    runs: tuple[LanguageModel, LanguageModel] = (graph, oracle)
    for language in runs:
        branches, first = language.branch(language.prefill(prefix), tails)
        logits.append((first, language.append(branches, rows, tokens)))
    return max(
        [difference(*pair) for pair in zip(*logits, strict=True)]
        + [difference(graph.embed(ids), oracle.embed(ids))]
    )


def difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Worst |found - wanted| / max |wanted|; infinite if shapes differ or a value is NaN."""
    if found.shape != wanted.shape:
        return float("inf")
    error = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
    return error if np.isfinite(error) else float("inf")
