"""Groma's language model on llama.cpp: a GGUF of the bundle, on the CPU or a CUDA device. Goals share the
cells of the prefix."""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groma_ros.network_config import GromaConfig
from groma_ros.runtime.bundle import Bundle, BundleError, read_network
from groma_ros.runtime.goal_packing import check_append, owners
from groma_ros.runtime.memory_check import LLAMA_ROOM
from groma_ros.runtime.onnx import read_embeddings
from groma_ros.runtime.options import CUDA_LLAMA
from groma_ros.types import FloatArray, IntArray

try:
    import llama_cpp
except ImportError as error:
    raise ValueError(
        "The backend llama_cpp needs the Python package llama_cpp; install it with python -m pip install "
        "llama-cpp-python."
    ) from error

SEQUENCES = 256
"""Maximum number of simultaneous sequences in llama.cpp: one for each prefix and each goal."""
_LOG = logging.getLogger(__name__)
# llama.cpp warns about what is intended here (no tokenizer, more cells than the context); its errors are
# reported as sentences.
_LEVELS = {3: logging.INFO, 4: logging.WARNING}


def load_llama_language(
    bundle: Bundle, precision: str, device: str | None = None, threads: int | None = None
) -> LlamaLanguage:
    """Load the language model of a bundle's GGUF.

    precision: one of `Bundle.gguf_precisions`; device: cpu, cuda, or None for cuda if llama.cpp was built for
    it; threads: None for one per core. Raises BundleError for a GGUF that is missing, damaged or does not
    match the manifest, ValueError for an unavailable device.
    """
    config, where = read_network(bundle), choose_device(device)
    path = bundle.graph("language", precision)
    return LlamaLanguage(
        path, config, read_embeddings(bundle, config), where, threads or len(os.sched_getaffinity(0))
    )


def can_offload() -> bool:
    """Whether the installed llama.cpp can compute on a GPU."""
    start_llama()
    return bool(llama_cpp.llama_supports_gpu_offload())


def choose_device(device: str | None) -> str:
    """Choose cpu or cuda. Raises ValueError for a device that the installed llama.cpp cannot use."""
    if device is None:
        return "cuda" if can_offload() else "cpu"
    if device == "cpu" or (device == "cuda" and can_offload()):
        return device
    raise ValueError(
        f"The installed llama.cpp cannot use the device {device!r}; for cuda build it with {CUDA_LLAMA}."
    )


@cache
def has_amx(flags: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has AMX."""
    try:
        return "amx_tile" in flags.read_text().split()
    except OSError:
        return False


@cache
def start_llama() -> None:
    """Initialise llama.cpp, once for each process, and send its messages to `logging`."""
    llama_cpp.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def _log(level: int, text: bytes, _: object) -> None:
    _LOG.log(_LEVELS.get(level, logging.DEBUG), text.decode(errors="replace").rstrip())


_LOG_CALLBACK = llama_cpp.llama_log_callback(_log)
"""Referenced here, because llama.cpp keeps no reference to it."""


@dataclass(eq=False)
class _Prefix:
    """Sequence number and length of a prefix; its cells are freed when the object is garbage collected."""

    sequence: int
    length: int
    free: weakref.finalize[..., Any] = field(init=False)


@dataclass(eq=False)
class _Branches:
    """Sequence numbers of the goals, and their lengths including the prefix."""

    sequences: list[int]
    lengths: list[int]


class LlamaLanguage:
    """LanguageModel over a GGUF. Each prefix and goal is a sequence; a goal's sequence shares the cells of
    its prefix without a copy."""

    def __init__(
        self, path: Path, config: GromaConfig, embeddings: NDArray[Any], device: str, threads: int
    ) -> None:
        c = config.language
        self.width: int = c.hidden_size
        self.context: int = c.max_position_embeddings
        self.base_vocabulary: int = c.vocab_size
        self.vocabulary: int = config.vocab_size
        self._embeddings = embeddings
        self._dead: list[int] = []
        self._unused = list(range(SEQUENCES - 1, -1, -1))
        start_llama()
        self._model = _open(path, config, device)
        self._cells = self.context + LLAMA_ROOM
        self._llama = self._make_context(threads, device, path)
        weakref.finalize(self, _close, self._llama, self._model)
        self._memory = llama_cpp.llama_get_memory(self._llama)

    def embed(self, ids: IntArray) -> FloatArray:
        """Input embeddings of token ids: (N,) to (N, D)."""
        return self._embeddings[np.asarray(ids, np.int64)].astype(np.float32)

    def prefill(self, embeddings: FloatArray) -> _Prefix:
        """Compute keys and values of a prefix (P, D)."""
        self._purge()
        length = len(embeddings)
        prefix = _Prefix(self._take(1)[0], length)
        prefix.free = weakref.finalize(prefix, self._dead.append, prefix.sequence)
        self._decode(embeddings, np.arange(length), np.full(length, prefix.sequence), np.zeros(0, np.int64))
        return prefix

    def branch(self, prefix: _Prefix, tails: Sequence[FloatArray]) -> tuple[_Branches, FloatArray]:
        """Run all tails (L_i, D) in one pass after the shared prefix. Returns logits (B, V) at the end of
        each."""
        self._purge()
        if not prefix.free.alive:
            raise ValueError("The prefix was released; prefill it again.")
        owner, ends = owners(tails)
        branches = _Branches(self._take(len(tails)), [prefix.length + len(tail) for tail in tails])
        weakref.finalize(branches, self._dead.extend, list(branches.sequences))
        for sequence in branches.sequences:
            llama_cpp.llama_memory_seq_cp(self._memory, prefix.sequence, sequence, -1, -1)
        positions = prefix.length + np.concatenate([np.arange(len(tail)) for tail in tails])
        return branches, self._decode(
            np.concatenate(tails), positions, np.asarray(branches.sequences)[owner], ends
        )

    def append(self, branches: _Branches, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """Append one token to each of the given rows, each at most once. Returns logits (len(rows), V)."""
        check_append(rows, tokens)
        self._purge()
        positions = np.array([branches.lengths[row] for row in rows], np.int64)
        sequences = np.array([branches.sequences[row] for row in rows], np.int64)
        logits = self._decode(self.embed(np.asarray(tokens)), positions, sequences, np.arange(len(rows)))
        for row in rows:
            branches.lengths[row] += 1
        return logits

    def release(self, prefix: _Prefix) -> None:
        """Free the prefix's cells; those a goal still uses stay until the goal is freed."""
        prefix.free()
        self._purge()

    def _take(self, count: int) -> list[int]:
        if count > len(self._unused):
            raise ValueError(
                f"llama.cpp holds {SEQUENCES} prefixes and goals at a time; {count} more do not fit, ask "
                "fewer at once."
            )
        return [self._unused.pop() for _ in range(count)]

    def _purge(self) -> None:
        """Free the sequences whose owners no longer exist. The lowest numbers are reused first, so that a
        repeated run has the same cells and bits."""
        if not self._dead:
            return
        while self._dead:
            sequence = self._dead.pop()
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            self._unused.append(sequence)
        self._unused.sort(reverse=True)

    def _decode(
        self, embeddings: FloatArray, positions: IntArray, sequences: IntArray, rows: IntArray
    ) -> FloatArray:
        """Run slots (n, D) at their positions in their sequences. Returns the logits (len(rows), V) of the
        given rows."""
        count = len(embeddings)
        if count > self._cells:
            raise ValueError(
                f"{count} tokens at once do not fit the {self._cells} cells of the language model; ask "
                "fewer goals at once."
            )
        embeddings = np.ascontiguousarray(embeddings, np.float32)
        if embeddings.shape[1:] != (self.width,):
            raise ValueError(
                f"Embeddings have shape {embeddings.shape}; the language model reads rows of {self.width}."
            )
        batch = llama_cpp.llama_batch_init(count, self.width, 1)
        try:
            ctypes.memmove(batch.embd, embeddings.ctypes.data, embeddings.nbytes)
            wanted = set(rows.tolist())
            for slot in range(count):
                batch.pos[slot] = int(positions[slot])
                batch.n_seq_id[slot] = 1
                batch.seq_id[slot][0] = int(sequences[slot])
                batch.logits[slot] = slot in wanted
            batch.n_tokens = count
            status = llama_cpp.llama_decode(self._llama, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        if status:
            raise ValueError(
                f"llama.cpp could not take {count} more tokens (status {status}); ask fewer goals at once."
            )
        shape = (self.vocabulary,)
        found = [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._llama, int(row)), shape)
            for row in rows
        ]
        return np.stack(found) if found else np.zeros((0, self.vocabulary), np.float32)

    def _make_context(self, threads: int, device: str, path: Path) -> llama_cpp.llama_context_p:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = self._cells
        params.n_seq_max = SEQUENCES
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        params.offload_kqv = params.op_offload = device == "cuda"
        context: llama_cpp.llama_context_p = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            llama_cpp.llama_model_free(self._model)
            raise BundleError(f"llama.cpp has no memory for {self._cells} cells of {path}; free some memory.")
        return context


def _open(path: Path, config: GromaConfig, device: str) -> llama_cpp.llama_model_p:
    """Open a GGUF. Raises BundleError if it is invalid or not of this network."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = config.language.num_hidden_layers + 1 if device == "cuda" else 0
    if device == "cpu":
        # llama.cpp repacks most weights for the CPU; with a mapped file they would be in memory twice.
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
        # Its kernels for AMX set up a thread's tiles once. PyTorch's release them, and the next product of
        # llama.cpp in that thread is an illegal instruction.
        params.use_extra_bufts = not has_amx()
    model: llama_cpp.llama_model_p = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise BundleError(
            f"{path} is not a GGUF that llama.cpp reads; it is damaged, run groma convert again."
        )
    c = config.language
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    checks = (
        ("embeddings of", llama_cpp.llama_model_n_embd(model), c.hidden_size),
        ("layers:", llama_cpp.llama_model_n_layer(model), c.num_hidden_layers),
        ("attention heads:", llama_cpp.llama_model_n_head(model), c.num_attention_heads),
        (
            "key heads:",
            llama_cpp.llama_model_n_head_kv(model),
            c.num_key_value_heads or c.num_attention_heads,
        ),
        ("a vocabulary of", vocabulary, config.vocab_size),
    )
    for name, found, wanted in checks:
        if found != wanted:
            llama_cpp.llama_model_free(model)
            raise BundleError(
                f"{path} has {name} {found}, but the manifest asks for {wanted}; run groma convert again."
            )
    return model


def _close(context: llama_cpp.llama_context_p, model: llama_cpp.llama_model_p) -> None:
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
