"""Groma on ONNX Runtime: the three graphs of a bundle, on the CPU or, where the installed runtime can, on a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from groma_ros.model.config import GromaConfig
from groma_ros.runtime.bundle import EMBEDDINGS, Bundle, BundleError
from groma_ros.runtime.graph_vision import GraphVision
from groma_ros.runtime.network import read_network
from groma_ros.runtime.onnx_graph import Graph
from groma_ros.runtime.packing import Packing, causal_mask, check_append, owners
from groma_ros.runtime.signature import language_shapes, perceive_shapes, region_shapes
from groma_ros.types import FloatArray, IntArray


def load_onnx(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> tuple[OnnxVision, OnnxLanguage]:
    """Both halves of a bundle's network on ONNX Runtime.

    device: cpu, cuda, or None for cuda where the installed runtime has it; threads: of each graph, None for one a core; precision:
    of the graphs, None for the bundle's default. Raises BundleError for graphs that are missing, damaged or do not fit, and
    ValueError for a device that is not there.
    """
    return load_onnx_vision(bundle, device, threads, precision), load_onnx_language(bundle, device, threads, precision)


def load_onnx_vision(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> OnnxVision:
    """The vision tokenizer of `load_onnx`, which a bundle may hold beside a GGUF alone."""
    config, kind, count, chosen = _settle(bundle, device, threads, precision, bundle.vision_precisions)
    perceive = Graph(bundle, bundle.graph_name("perceive", chosen), perceive_shapes(config), kind, count)
    regions = Graph(bundle, bundle.graph_name("encode_regions", chosen), region_shapes(config), kind, count)
    return OnnxVision(perceive, regions, config, bundle.image)


def load_onnx_language(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> OnnxLanguage:
    """The language model of `load_onnx`."""
    config, kind, count, chosen = _settle(bundle, device, threads, precision, bundle.precisions)
    language = Graph(bundle, bundle.graph_name("language", chosen), language_shapes(config), kind, count)
    return OnnxLanguage(language, config, read_embeddings(bundle, config))


def _settle(
    bundle: Bundle, device: str | None, threads: int | None, precision: str | None, made: Sequence[str]
) -> tuple[GromaConfig, str, int, str]:
    """Network config, device, number of threads and precision, the first that was made unless one is named."""
    if not made:
        raise BundleError(f"The model {bundle.name} in {bundle.directory} has no ONNX graphs; groma convert makes them.")
    return read_network(bundle), choose_device(device), threads or len(os.sched_getaffinity(0)), precision or made[0]


def choose_device(device: str | None) -> str:
    """cpu or cuda. ValueError for a device that the installed ONNX Runtime cannot use."""
    usable = ["cuda"] if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else []
    usable.append("cpu")
    if device is None:
        return usable[0]
    if device not in usable:
        raise ValueError(
            f"The installed ONNX Runtime cannot use the device {device!r}, only {' and '.join(usable)}; "
            "the package onnxruntime-gpu can use cuda."
        )
    return device


def read_embeddings(bundle: Bundle, config: GromaConfig) -> np.ndarray:
    """The table of input embeddings, float16 vocabulary x width, mapped rather than read."""
    path = bundle.file(EMBEDDINGS)
    wanted = (config.vocab_size, config.language.hidden_size)
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{path} is not a table of embeddings: {error}.") from error
    if not isinstance(table, np.ndarray) or table.shape != wanted or table.dtype != np.float16:
        found = f"{table.dtype} of shape {table.shape}" if isinstance(table, np.ndarray) else "an archive"
        raise BundleError(f"{path} holds {found}, but the network config asks for float16 of shape {wanted}.")
    return np.asarray(table)  # a plain array over the mapping is quicker to read of


class OnnxVision(GraphVision):
    """VisionTokenizer over perceive.onnx and encode_regions.onnx on ONNX Runtime."""


@dataclass(eq=False)
class _Prefix:
    """Keys and values of a prefix on the device, by the name under which the next pass takes them, and its length."""

    past: dict[str, Any]
    length: int


@dataclass(eq=False)
class _Branches:
    """All goals of a scene in one packed sequence behind the prefix, with the keys and values of both."""

    past: dict[str, Any]
    packing: Packing


class OnnxLanguage:
    """LanguageModel over language.onnx, float32. A pass makes new keys and values and leaves those it was given as they were."""

    def __init__(self, graph: Graph, config: GromaConfig, embeddings: np.ndarray) -> None:
        self._graph = graph
        self._embeddings = embeddings
        c = config.language
        self._present = [f"present_{kind}.{layer}" for layer in range(c.num_hidden_layers) for kind in ("key", "value")]
        groups, size = c.num_key_value_heads or c.num_attention_heads, c.hidden_size // c.num_attention_heads
        self._empty = {_next(name): np.zeros((groups, 0, size), np.float32) for name in self._present}
        self.width: int = c.hidden_size
        self.context: int = c.max_position_embeddings
        self.base_vocabulary: int = c.vocab_size
        self.vocabulary: int = config.vocab_size

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids: (N,) to (N, D)."""
        return self._embeddings[np.asarray(ids, np.int64)].astype(np.float32)

    def prefill(self, embeddings: FloatArray) -> _Prefix:
        """Keys and values of a prefix (P, D)."""
        length = len(embeddings)
        nowhere = np.zeros(0, np.int64)
        _, past = self._pass(embeddings, np.arange(length), causal_mask(length), nowhere, self._empty)
        return _Prefix(past, length)

    def branch(self, prefix: _Prefix, tails: Sequence[FloatArray]) -> tuple[_Branches, FloatArray]:
        """All tails (L_i, D) in one pass behind the shared prefix; logits (B, V) at the end of each."""
        owner, ends = owners(tails)
        branches = _Branches(prefix.past, Packing.behind(prefix.length, len(tails)))
        return branches, self._extend(branches, np.concatenate(tails), owner, ends)

    def append(self, branches: _Branches, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """One more token for each of the named rows (each at most once); logits (len(rows), V)."""
        check_append(rows, tokens)
        owner = np.asarray(rows, np.int64)
        return self._extend(branches, self.embed(np.asarray(tokens)), owner, np.arange(len(rows)))

    def release(self, prefix: _Prefix) -> None:
        """Drop the prefix's keys and values."""
        prefix.past = {}

    def _extend(self, branches: _Branches, embeddings: FloatArray, owner: IntArray, rows: IntArray) -> FloatArray:
        """Run new slots (n, D), slot i behind what row `owner[i]` holds so far; logits (len(rows), V) at some of them."""
        packing, positions, mask = branches.packing.extended(owner)
        logits, branches.past = self._pass(embeddings, positions, mask, rows, branches.past)
        branches.packing = packing
        return logits

    def _pass(
        self, embeddings: FloatArray, positions: IntArray, mask: FloatArray, rows: IntArray, past: Mapping[str, Any]
    ) -> tuple[FloatArray, dict[str, Any]]:
        embeddings = np.asarray(embeddings, np.float32)
        given = {"embeddings": embeddings, "positions": positions, "mask": mask, "rows": rows, **past}
        found, present = self._graph.run(given, kept=self._present)
        return found["logits"], {_next(name): value for name, value in present.items()}


def _next(name: str) -> str:
    """The input of the next pass that an output of this one becomes."""
    return name.replace("present", "past", 1)
