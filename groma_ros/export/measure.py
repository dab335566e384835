"""How far the graphs of a bundle are from the network they were made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from groma_ros.model.groma import Groma
from groma_ros.runtime.graph_vision import VisionGraph
from groma_ros.runtime.language import LanguageModel
from groma_ros.types import FloatArray

PICTURES = 4
REGIONS = 12
PREFIX, TAILS = 60, (1, 9, 4, 17)


def _picture(rng: np.random.Generator, size: int) -> FloatArray:
    """Normalised pixels (1, 3, size, size) of squares of one random side."""
    cells = int(rng.integers(4, 33))
    coarse = rng.normal(0, 1.2, (3, cells, cells)).astype(np.float32)
    index = np.arange(size) * cells // size
    return np.ascontiguousarray(coarse[:, index[:, None], index])[None]


def perceive_difference(model: Groma, graph: VisionGraph, seed: int = 0) -> float:
    """The worst |graph - network| / max |network| over all outputs, on pictures that are noise of several grains."""
    rng = np.random.default_rng(seed)
    return max(_perceive(model, graph, _picture(rng, model.config.image_size)) for _ in range(PICTURES))


@torch.inference_mode()
def _perceive(model: Groma, graph: VisionGraph, pixels: FloatArray) -> float:
    seen = model.perceive(torch.from_numpy(pixels))
    wanted = {"image_tokens": seen.image_tokens, "boxes": seen.boxes, "objectness": seen.objectness}
    wanted |= {f"map.{level}": value for level, value in enumerate(seen.maps)}
    found, _ = graph.run({"pixels": pixels})
    return max(difference(found[name], value.numpy()) for name, value in wanted.items())


@torch.inference_mode()
def regions_difference(model: Groma, graph: VisionGraph, seed: int = 0) -> float:
    """The same over region tokens, on noise; boxes lie in, across and outside the image and have extents of either sign."""
    rng, c = np.random.default_rng(seed), model.config
    worst = 0.0
    for _ in range(PICTURES):
        maps = [rng.normal(0, 1, (1, c.backbone.hidden_size, c.grid, c.grid)).astype(np.float32) for _ in c.region.layers]
        count = int(rng.integers(1, min(REGIONS, c.max_region_num) + 1))
        boxes = np.concatenate([rng.uniform(-0.3, 1.3, (count, 2)), rng.uniform(-0.2, 1.2, (count, 2))], 1).astype(np.float32)
        tokens = model.encode_regions([torch.from_numpy(m) for m in maps], torch.from_numpy(boxes)[None])[0]
        found, _ = graph.run({**{f"map.{level}": m for level, m in enumerate(maps)}, "boxes": boxes})
        worst = max(worst, difference(found["region_tokens"], model.region_slot_embeddings(tokens).numpy()))
    return worst


def language_difference(oracle: LanguageModel, graph: LanguageModel, seed: int = 0) -> float:
    """The worst |graph - network| / max |network| over logits after a prefix, goals behind it, and a token for some of them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, oracle.vocabulary, PREFIX + sum(TAILS))
    prefix, *tails = np.split(graph.embed(ids), np.cumsum([PREFIX, *TAILS[:-1]]))
    rows, tokens = [2, 0, 3], [int(token) for token in ids[:3]]
    logits: list[Sequence[FloatArray]] = []
    runs: tuple[LanguageModel, LanguageModel] = (graph, oracle)
    for language in runs:
        branches, first = language.branch(language.prefill(prefix), tails)
        logits.append((first, language.append(branches, rows, tokens)))
    return max([difference(*pair) for pair in zip(*logits, strict=True)] + [difference(graph.embed(ids), oracle.embed(ids))])


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Worst |found - wanted| / max |wanted|; infinite for other shapes or a value that is not a number."""
    if found.shape != wanted.shape:
        return float("inf")
    error = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))
    return error if np.isfinite(error) else float("inf")
