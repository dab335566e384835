"""Check a bundle against itself: every graph against PyTorch on one picture, and one goal in every
precision."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groma_ros.boxes import box_iou
from groma_ros.export.making import COMPARED, LIMITS, PARTS, THREADS
from groma_ros.export.measure import SLOTS, language_difference, perceive_difference, regions_difference
from groma_ros.grounding.grounder import Grounder
from groma_ros.model.weights import Weights, load_part, stream
from groma_ros.network_config import GromaConfig
from groma_ros.proposal_selection import SelectionRule, select_regions
from groma_ros.runtime.bundle import GGUF_PRECISIONS, WEIGHTS, Bundle, read_network
from groma_ros.runtime.graph_vision import perceive_shapes, region_shapes
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.runtime.onnx import OnnxGraph, load_onnx_language, read_embeddings
from groma_ros.runtime.torch import TorchLanguage
from groma_ros.types import Frame, Goal

SAME = 0.9
"""IoU from which two boxes count as the same."""


@dataclass(frozen=True)
class StageCheck:
    """Comparison of a graph in one precision with the network in PyTorch."""

    precision: str
    role: str
    difference: float
    """Worst |graph - network| over the largest magnitude."""
    limit: float
    """The largest difference with which a conversion lists the graph."""

    @property
    def ok(self) -> bool:
        """Whether the graph computes the same as the network."""
        return self.difference <= self.limit


@dataclass(frozen=True)
class AnswerCheck:
    """The answer to the goal in one precision."""

    precision: str
    backend: str
    boxes: list[tuple[float, float, float, float]]
    """xyxy, pixels of the picture."""
    presence: float
    as_first: bool
    """IoU of the best box with that of the first precision; a low one on random weights says little."""


@dataclass(frozen=True)
class SelfCheck:
    """All checks of a bundle."""

    stages: tuple[StageCheck, ...]
    answers: tuple[AnswerCheck, ...]
    not_compared: str
    """Why no stage was compared; empty if they were."""

    @property
    def ok(self) -> bool:
        """Whether every stage is within its limit, and at least one check was made."""
        return all(check.ok for check in self.stages) and bool(self.stages or self.answers)

    def to_dict(self) -> dict[str, Any]:
        """The output of `groma verify --json`."""
        return {
            "stages": {
                f"{item.role} {item.precision}": {**dataclasses.asdict(item), "ok": item.ok}
                for item in self.stages
            },
            "answers": [dataclasses.asdict(item) for item in self.answers],
            "worst": max((item.difference for item in self.stages), default=None),
            "limit": max((item.limit for item in self.stages), default=None),
            "not_compared": self.not_compared,
            "ok": self.ok,
        }


def self_check(bundle: Bundle, picture: NDArray[Any], goal: str) -> SelfCheck:
    """Check a bundle on a picture (RGB, uint8 HxWx3). Raises ValueError for a bundle that cannot be read.

    Stages are compared if the bundle includes its weights; the goal is answered in every precision of the
    bundle.
    """
    stages: tuple[StageCheck, ...] = ()
    why = f"the bundle holds no {WEIGHTS}, so its graphs are compared with each other alone"
    if WEIGHTS in bundle.files:
        why = ""
        stages = tuple(_stages(bundle, read_network(bundle), picture))
    return SelfCheck(stages, tuple(_answers(bundle, picture, goal)), why)


def _stages(bundle: Bundle, config: GromaConfig, picture: NDArray[Any]) -> Iterator[StageCheck]:
    weights = Weights(config, bundle.file(WEIGHTS))
    pixels = bundle.image(picture)[None]
    regions = None
    table = ("llm.model.embed_tokens.",) if config.index_in_feature_slot else ()
    for precision in bundle.vision_precisions:
        graph = OnnxGraph(
            bundle, bundle.graph_name("perceive", precision), perceive_shapes(config), "cpu", THREADS
        )
        network = load_part(config, weights, PARTS["perceive"])
        found = perceive_difference(network, graph, [pixels], COMPARED.get(precision, "passed"))
        yield StageCheck(precision, "perceive", found, LIMITS[precision])
        if regions is None:  # identical for every precision, so that only the graph differs
            regions = _regions(config, graph, pixels)
        del network, graph
        gc.collect()
        graph = OnnxGraph(
            bundle, bundle.graph_name("encode_regions", precision), region_shapes(config), "cpu", THREADS
        )
        network = load_part(config, weights, (*PARTS["encode_regions"], *table))
        found = regions_difference(network, graph, [regions])
        yield StageCheck(precision, "encode_regions", found, LIMITS[precision])
        del network, graph
        gc.collect()
    for precision in (*bundle.precisions, *bundle.gguf_precisions):
        oracle = TorchLanguage(stream(config, weights))
        found = language_difference(oracle, _language(bundle, config, precision))
        yield StageCheck(precision, "language", found, LIMITS[precision])
        gc.collect()


def _regions(config: GromaConfig, perceive: OnnxGraph, pixels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Inputs of the region encoder for a picture."""
    seen, _ = perceive.run({"pixels": pixels})
    rule = SelectionRule(config.box_score_thres, config.nms_thres, config.max_region_num)
    boxes = select_regions(seen["boxes"][0], seen["objectness"][0], rule).boxes
    return {**{name: value for name, value in seen.items() if name.startswith("map.")}, "boxes": boxes}


def _language(bundle: Bundle, config: GromaConfig, precision: str) -> LanguageModel:
    if precision not in GGUF_PRECISIONS:
        return load_onnx_language(bundle, "cpu", THREADS, precision)
    from groma_ros.runtime.llama_cpp import LlamaLanguage

    language = dataclasses.replace(config.language, max_position_embeddings=SLOTS)
    short = dataclasses.replace(config, language=language)
    return LlamaLanguage(
        bundle.graph("language", precision), short, read_embeddings(bundle, config), "cpu", THREADS
    )


def _answers(bundle: Bundle, picture: NDArray[Any], goal: str) -> Iterator[AnswerCheck]:
    first: NDArray[Any] | None = None
    made = (*bundle.precisions, *bundle.gguf_precisions)
    for precision in dict.fromkeys(made) or ("fp32",):
        with torch.inference_mode():
            grounder = Grounder.load(bundle, precision=precision, min_presence=0.0)
            (answer,) = grounder.ground(Frame(picture), [Goal(goal)])
        boxes = [tuple(round(float(value), 1) for value in item.box) for item in answer.detections]
        best = np.array(boxes[:1], np.float32).reshape(-1, 4)
        if first is None:
            first = best
        same = len(best) == len(first) and (len(best) == 0 or float(box_iou(best, first)[0, 0]) >= SAME)
        backend = grounder.runtime.backend if grounder.runtime else ""
        yield AnswerCheck(precision, backend, boxes, round(answer.present, 4), same)  # type: ignore[arg-type]
        del grounder
        gc.collect()
