"""Groma on ONNX Runtime: the three graphs of a bundle, on the CPU or a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import EMBEDDINGS, Bundle, BundleError, read_network, require_graphs
from groma_ros.runtime.goal_packing import Packing, causal_mask, check_append, owners
from groma_ros.runtime.graph_safety import check_graph
from groma_ros.runtime.graph_vision import (
    GraphVision,
    Shapes,
    check_shapes,
    language_shapes,
    perceive_shapes,
    region_shapes,
)
from groma_ros.types import FloatArray, IntArray

_PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_ERRORS_ONLY = 3

# groma_ros/__init__.py sets ORT_DISABLE_TELEMETRY. If ONNX Runtime was imported before this package, that
# came too late, and this call disables telemetry.
onnxruntime.disable_telemetry_events()


class OnnxGraph:
    """A graph whose inputs and outputs were checked against the network. Equal inputs give bit-identical
    outputs on the CPU.

    device: cpu or cuda, the one actually used.
    """

    def __init__(
        self, bundle: Bundle, name: str, shapes: tuple[Shapes, Shapes], device: str, threads: int
    ) -> None:
        """Load a graph of the bundle.

        shapes: required inputs and outputs. Raises BundleError if the graph is damaged or differs from them.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        # Three graphs run in turn: otherwise the threads of the last one keep spinning on the cores that the
        # next one needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = _ERRORS_ONLY
        path = bundle.file(name)
        check_graph(bundle, path)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS[device])
        except Exception as error:  # ONNX Runtime raises different types at each stage of loading
            raise BundleError(
                f"{path} is not a graph that ONNX Runtime {onnxruntime.__version__} can load: {_first(error)}"
            ) from error
        self.device = "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
        self._outputs = list(shapes[1])
        parts = {"input": self._session.get_inputs(), "output": self._session.get_outputs()}
        for (kind, found), wanted in zip(parts.items(), shapes, strict=True):
            check_shapes(bundle, name, kind, wanted, {item.name: item.shape for item in found})
        self._types = {item.name: _TYPES.get(item.type) for item in parts["input"]}

    def run(
        self, feeds: Mapping[str, Any], kept: Sequence[str] = ()
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Run the graph once.

        feeds: for every input an array (cast if the graph takes fp16) or a value kept on the device by an
        earlier run; kept: names of outputs to keep there. Returns the other outputs as arrays and the kept
        ones as values for later feeds.
        """
        arrays = {
            name: np.ascontiguousarray(value, self._types[name])
            for name, value in feeds.items()
            if isinstance(value, np.ndarray)
        }
        values = (
            self._run_bound({**feeds, **arrays}, kept) if self.device == "cuda" else self._run_plain(arrays)
        )
        return {name: value for name, value in values.items() if name not in kept}, {
            name: values[name] for name in kept
        }

    def _run_plain(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Run with all outputs as arrays. On the CPU there is nowhere else to keep them, and binding by name
        costs more than it saves."""
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))

    def _run_bound(self, feeds: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
        """Run with the kept outputs left on the device."""
        binding = self._session.io_binding()
        # The binding does not own its input arrays; `feeds` keeps them alive until the run ends.
        for name, value in feeds.items():
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, value)
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device if name in kept else "cpu")
        self._session.run_with_iobinding(binding)
        values = dict(zip(self._outputs, binding.get_outputs(), strict=True))
        return {name: value if name in kept else value.numpy() for name, value in values.items()}


def _first(error: Exception) -> str:
    """The first line of an error; the rest is of no use to a user."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def load_onnx(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> tuple[OnnxVision, OnnxLanguage]:
    """Load both halves of a bundle's network on ONNX Runtime.

    device: cpu, cuda, or None for cuda if the installed runtime has it; threads: for each graph, None for one
    per core; precision: of the graphs, None for the bundle's default. Raises BundleError for graphs that are
    missing, damaged or of another network, and ValueError for an unavailable device.
    """
    return load_onnx_vision(bundle, device, threads, precision), load_onnx_language(
        bundle, device, threads, precision
    )


def load_onnx_vision(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> OnnxVision:
    """Load the vision tokenizer alone, as `load_onnx`; a bundle may have it beside a GGUF."""
    config, kind, count, chosen = _settle(bundle, device, threads, precision, bundle.vision_precisions)
    perceive = OnnxGraph(bundle, bundle.graph_name("perceive", chosen), perceive_shapes(config), kind, count)
    regions = OnnxGraph(
        bundle, bundle.graph_name("encode_regions", chosen), region_shapes(config), kind, count
    )
    return OnnxVision(perceive, regions, config, bundle.image)


def load_onnx_language(
    bundle: Bundle, device: str | None = None, threads: int | None = None, precision: str | None = None
) -> OnnxLanguage:
    """Load the language model alone, as `load_onnx`."""
    config, kind, count, chosen = _settle(bundle, device, threads, precision, bundle.precisions)
    language = OnnxGraph(bundle, bundle.graph_name("language", chosen), language_shapes(config), kind, count)
    return OnnxLanguage(language, config, read_embeddings(bundle, config))


def _settle(
    bundle: Bundle, device: str | None, threads: int | None, precision: str | None, made: Sequence[str]
) -> tuple[GromaConfig, str, int, str]:
    """Resolve network config, device, number of threads and precision (default: the bundle's first)."""
    require_graphs(bundle, made)
    return (
        read_network(bundle),
        choose_device(device),
        threads or len(os.sched_getaffinity(0)),
        precision or made[0],
    )


def choose_device(device: str | None) -> str:
    """Choose cpu or cuda. Raises ValueError for a device that the installed ONNX Runtime cannot use."""
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


def read_embeddings(bundle: Bundle, config: GromaConfig) -> NDArray[Any]:
    """Map the table of input embeddings, float16 vocabulary x width."""
    path = bundle.file(EMBEDDINGS)
    wanted = (config.vocab_size, config.language.hidden_size)
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BundleError(f"{path} is not a table of embeddings: {error}.") from error
    if not isinstance(table, np.ndarray) or table.shape != wanted or table.dtype != np.float16:
        found = f"{table.dtype} of shape {table.shape}" if isinstance(table, np.ndarray) else "an archive"
        raise BundleError(f"{path} holds {found}, but the network config asks for float16 of shape {wanted}.")
    return np.asarray(table)  # a plain array over the mapping is faster to index


class OnnxVision(GraphVision):
    """VisionTokenizer over perceive.onnx and encode_regions.onnx on ONNX Runtime."""


@dataclass(eq=False)
class _Prefix:
    """Keys and values of a prefix on the device."""

    past: dict[str, Any]
    """By the input name that the next run takes them under."""
    length: int


@dataclass(eq=False)
class _Chunk:
    """Some goals of a scene as one packed sequence after the prefix, with keys and values of both."""

    past: dict[str, Any]
    packing: Packing


@dataclass(eq=False)
class _Branches:
    """Where the keys and values of each row are."""

    chunks: list[_Chunk]
    place: IntArray
    """int64 B x 2: of each row the chunk, and its number in that."""


CHUNK = 16
"""Goals packed into one sequence. Attention scores of a slot are computed against all slots of its sequence,
masked for other goals, so the cost grows with the square of the length; each run also has a fixed cost."""


class OnnxLanguage:
    """LanguageModel over language.onnx, float32. A run creates new keys and values and leaves its inputs
    unchanged."""

    def __init__(self, graph: OnnxGraph, config: GromaConfig, embeddings: NDArray[Any]) -> None:
        self._graph = graph
        self._embeddings = embeddings
        c = config.language
        self._present = [
            f"present_{kind}.{layer}" for layer in range(c.num_hidden_layers) for kind in ("key", "value")
        ]
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
        """Compute keys and values of a prefix (P, D)."""
        length = len(embeddings)
        nowhere = np.zeros(0, np.int64)
        _, past = self._pass(embeddings, np.arange(length), causal_mask(length), nowhere, self._empty)
        return _Prefix(past, length)

    def branch(self, prefix: _Prefix, tails: Sequence[FloatArray]) -> tuple[_Branches, FloatArray]:
        """Run all tails (L_i, D) after the shared prefix, one run per `CHUNK` of them. Returns the branches
        and the logits (B, V) at the end of each tail."""
        owners(tails)  # raises if there are no tails, or for an empty one
        chunks, logits = [], []
        for start in range(0, len(tails), CHUNK):
            part = tails[start : start + CHUNK]
            owner, ends = owners(part)
            chunks.append(_Chunk(prefix.past, Packing.behind(prefix.length, len(part))))
            logits.append(self._extend(chunks[-1], np.concatenate(part), owner, ends))
        place = np.stack(np.divmod(np.arange(len(tails)), CHUNK), 1)
        return _Branches(chunks, place), np.concatenate(logits)

    def append(self, branches: _Branches, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Append one token to each of the given rows, each at most once. Returns logits (len(rows), V)."""
        check_append(rows, tokens)
        numbers, embeddings = np.asarray(rows, np.int64), self.embed(np.asarray(tokens))
        self._merge(branches, numbers)
        logits = np.zeros((len(rows), self.vocabulary), np.float32)
        chunk, owner = branches.place[numbers].T
        for index in np.unique(chunk):
            here = np.flatnonzero(chunk == index)
            logits[here] = self._extend(
                branches.chunks[index], embeddings[here], owner[here], np.arange(len(here))
            )
        return logits

    def _merge(self, branches: _Branches, rows: IntArray) -> None:
        """Move rows into new chunks if they fill half as many. Answers end at different lengths, so after a
        few tokens every chunk has few rows left, and each costs a run."""
        used = np.unique(branches.place[rows, 0])
        # Keys and values that are kept on another device stay as they are.
        if len(rows) > len(used) // 2 * CHUNK or self._graph.device != "cpu":
            return
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            branches.chunks.append(_merged([(branches.chunks[c], o) for c, o in branches.place[part]]))
            branches.place[part] = [(len(branches.chunks) - 1, number) for number in range(len(part))]

    def release(self, prefix: _Prefix) -> None:
        """Drop the prefix's keys and values."""
        prefix.past = {}

    def _extend(self, chunk: _Chunk, embeddings: FloatArray, owner: IntArray, rows: IntArray) -> FloatArray:
        """Run new slots (n, D), slot i after the current end of row `owner[i]` of the chunk. Returns the
        logits (len(rows), V) of the given slots."""
        packing, positions, mask = chunk.packing.extended(owner)
        logits, chunk.past = self._pass(embeddings, positions, mask, rows, chunk.past)
        chunk.packing = packing
        return logits

    def _pass(
        self,
        embeddings: FloatArray,
        positions: IntArray,
        mask: FloatArray,
        rows: IntArray,
        past: Mapping[str, Any],
    ) -> tuple[FloatArray, dict[str, Any]]:
        embeddings = np.asarray(embeddings, np.float32)
        given = {"embeddings": embeddings, "positions": positions, "mask": mask, "rows": rows, **past}
        found, present = self._graph.run(given, kept=self._present)
        return found["logits"], {_next(name): value for name, value in present.items()}


def _merged(rows: Sequence[tuple[_Chunk, int]]) -> _Chunk:
    """A chunk of rows that are given by their chunks, which share a prefix, and their numbers in them."""
    prefix = rows[0][0].packing.prefix
    slots = [prefix + np.flatnonzero(chunk.packing.owner == owner) for chunk, owner in rows]
    past = {
        name: np.concatenate(
            [
                value[:, :prefix],
                *(chunk.past[name][:, own] for (chunk, _), own in zip(rows, slots, strict=True)),
            ],
            1,
        )
        for name, value in rows[0][0].past.items()
    }
    lengths = np.array([len(own) for own in slots], np.int64)
    return _Chunk(past, Packing(prefix, np.arange(len(rows)).repeat(lengths), lengths))


def _next(name: str) -> str:
    """Name of the next run's input that receives an output of this one."""
    return name.replace("present", "past", 1)
