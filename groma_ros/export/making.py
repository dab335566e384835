"""Make the files of each precision once and measure them against the network in PyTorch."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from groma_ros.atomic_write import asking_disk
from groma_ros.export.calibration_frames import Pictures
from groma_ros.export.graphs import export_graph, written
from groma_ros.export.measure import (
    SLOTS,
    Compared,
    drawn_picture,
    language_difference,
    noise,
    noise_regions,
    perceive_difference,
    pictures_of,
    regions_difference,
)
from groma_ros.export.quantize import quantize_language, quantize_vision
from groma_ros.model.groma import Groma
from groma_ros.model.weights import load_part, stream
from groma_ros.network_config import GromaConfig
from groma_ros.proposal_selection import SelectionRule, select_regions
from groma_ros.runtime.bundle import GGUF_PRECISIONS, Bundle, described
from groma_ros.runtime.graph_vision import language_shapes, perceive_shapes, region_shapes
from groma_ros.runtime.interfaces import LanguageModel
from groma_ros.runtime.onnx import OnnxGraph, OnnxLanguage, read_embeddings
from groma_ros.runtime.torch import TorchLanguage
from groma_ros.types import FloatArray

LIMITS = {
    "fp32": 1e-3,
    "fp16": 2e-2,
    "int8": 0.5,
    "int4": 0.5,
    "f16": 2e-2,
    "q8_0": 0.1,
    "q4_k_m": 0.5,
    "q4_0": 0.5,
}
"""Limits of the worst difference over the largest magnitude; a file beyond them is not listed in a bundle."""
PARTS = {
    "perceive": ("perceiver.", "img_txt_bridge.", "region_encoder.fine."),
    "encode_regions": ("region_encoder.", "new_input_embs."),
    "language": ("llm.", "new_input_embs.", "extra_lm_head."),
}
"""Parts of the network in each graph, by name prefixes."""
FLOAT_PARTS = (
    *("detector", "refiner", "input_proj", "patches", "fine"),
    *("query", "key", "value", "output", "fc1", "fc2"),
)
"""Nodes that stay in float32 in 8-bit graphs, by name: those that compute boxes, the first layer, and the
products without which groma-tiny's boxes would differ (IoU below 0.98; docs/precision.md has the cost of
each)."""
FLOAT_REGIONS = ("crop.", "pos_embedd")
"""The same for the region encoder: narrow convolutions whose first layer reads pixels, and the box itself."""
WIDE = 128
"""Minimum number of channels for 8-bit convolutions in the region encoder; for fewer the casts around them
cost more than they save."""
BITS = {"int8": 8, "int4": 4}
HELD_OUT = 4
THREADS = 1
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
COMPARED: dict[str, Compared] = {"fp32": "ordered"}
"""Which proposals of a graph are compared, see `measure.perceive_difference`; for other precisions those that
pass the threshold."""
_SHAPES = {"perceive": perceive_shapes, "encode_regions": region_shapes, "language": language_shapes}


@dataclass(eq=False)
class Maker:
    """Makes the files of a bundle's network in a folder of its own."""

    bundle: Bundle
    config: GromaConfig
    weights: Mapping[str, Tensor]
    """By the original's names, read one at a time. Only the part of the network needed for a file is ever in
    memory, for a GGUF only one layer."""
    folder: Path
    frames: Callable[[], Pictures]
    """Returns the images on which 8-bit graphs are calibrated; called at most once."""
    _made: dict[tuple[str, str], Path] = field(default_factory=dict)

    def make(self, role: str, precision: str) -> Path:
        """Make a file of one role and precision, at most once. Raises ValueError if the network cannot have
        it."""
        key = role, precision
        if key not in self._made:
            if precision in GGUF_PRECISIONS:
                self._made[key] = self._gguf(precision)
            else:
                with asking_disk(self.folder / f"{role}.{precision}.onnx"):
                    self._made[key] = self._graph(role, precision)
                gc.collect()  # exported programs contain reference cycles
        return self._made[key]

    def hand_over(self, role: str, precision: str) -> Path:
        """Link the file under a second name, which is then moved into the bundle; other precisions may still
        need the first."""
        path = self.make(role, precision)
        twin = path.with_name(f"{path.name}.of.{precision}")
        try:
            os.link(path, twin)
        except OSError:  # the file system does not support hard links
            shutil.copyfile(path, twin)
        return twin

    def measure(self, role: str, precision: str) -> float:
        """Measure the difference of a file to the network. Raises RuntimeError if it exceeds `LIMITS`."""
        if role == "language":
            found = language_difference(
                TorchLanguage(stream(self.config, self.weights)), self._language(precision)
            )
        elif role == "perceive":
            found = perceive_difference(
                self._part(role),
                self._session(role, precision),
                self._pictures(precision),
                COMPARED.get(precision, "passed"),
            )
        else:
            inputs = noise_regions(self.config) if precision in DTYPES else self._regions[:HELD_OUT]
            found = regions_difference(self._part(role), self._session(role, precision), inputs)
        if not found <= LIMITS[precision]:
            what = (
                f"The {role} graph in {precision}"
                if precision not in GGUF_PRECISIONS
                else f"The GGUF in {precision}"
            )
            raise RuntimeError(
                f"{what} differs by {found:.1e} from the network, more than {LIMITS[precision]:g}; it is "
                "not listed."
            )
        return found

    def _pictures(self, precision: str) -> list[FloatArray]:
        """Pictures (1, 3, S, S) on which the perceive graph of a precision is measured."""
        if precision == "fp32":
            return noise(self.config)
        if precision == "fp16":
            # On noise all proposals are about equally good, so that rounding decides which are selected.
            seeds = range(pictures_of(self.config))
            return [self.bundle.image(drawn_picture(seed))[None] for seed in seeds]
        return self._pixels[:HELD_OUT]

    def _part(self, role: str) -> Groma:
        names = (
            ("llm.model.embed_tokens.",)
            if role == "encode_regions" and self.config.index_in_feature_slot
            else ()
        )
        return load_part(self.config, self.weights, (*PARTS[role], *names))

    def _graph(self, role: str, precision: str) -> Path:
        path = self.folder / f"{role}.{precision}.onnx"
        if precision in DTYPES:
            path.write_bytes(written(export_graph(role, self._part(role), DTYPES[precision])))
        elif role == "language":
            quantize_language(self.make(role, "fp32"), path, BITS[precision])
        elif precision == "int4":
            return self.make(role, "int8")
        elif role == "perceive":
            calibration = self._pixels[HELD_OUT:] or self._pixels
            quantize_vision(
                self.make(role, "fp32"), path, [{"pixels": pixels} for pixels in calibration], FLOAT_PARTS
            )
        elif self.config.region_channels < WIDE:
            return self.make(role, "fp32")
        else:
            quantize_vision(
                self.make(role, "fp32"), path, self._regions[HELD_OUT:] or self._regions, FLOAT_REGIONS
            )
        return path

    @cached_property
    def _pixels(self) -> list[FloatArray]:
        """The calibration frames as network input, (1, 3, S, S) each; the first few are kept for
        measuring."""
        return [self.bundle.image(frame)[None] for frame in self.frames()]

    @cached_property
    def _regions(self) -> list[dict[str, FloatArray]]:
        """Inputs of the region encoder for each of these frames."""
        c = self.config
        rule = SelectionRule(c.box_score_thres, c.nms_thres, c.max_region_num)
        graph, found = self._session("perceive", "fp32"), []
        for pixels in self._pixels:
            seen, _ = graph.run({"pixels": pixels})
            boxes = select_regions(seen["boxes"][0], seen["objectness"][0], rule).boxes
            found.append(
                {**{name: value for name, value in seen.items() if name.startswith("map.")}, "boxes": boxes}
            )
        return found

    def _gguf(self, precision: str) -> Path:
        from groma_ros.export.gguf import write_gguf

        path = self.folder / f"language.{precision}.gguf"
        write_gguf(self.weights, path, self.config, precision)
        return path

    def _session(self, role: str, precision: str) -> OnnxGraph:
        path = self.make(role, precision)
        alone = dataclasses.replace(
            self.bundle, directory=self.folder, files={path.name: described(path)}, graphs={}
        )
        return OnnxGraph(alone, path.name, _SHAPES[role](self.config), "cpu", THREADS)

    def _language(self, precision: str) -> LanguageModel:
        table = read_embeddings(self.bundle, self.config)
        if precision not in GGUF_PRECISIONS:
            return OnnxLanguage(self._session("language", precision), self.config, table)
        from groma_ros.runtime.llama_cpp import LlamaLanguage

        # A cache for a whole context would take more memory than the rest of a large network's measurement.
        language = dataclasses.replace(self.config.language, max_position_embeddings=SLOTS)
        short = dataclasses.replace(self.config, language=language)
        return LlamaLanguage(self.make("language", precision), short, table, "cpu", THREADS)
