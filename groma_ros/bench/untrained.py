"""Large networks with random weights, created in memory. Their answers are meaningless; their speed equals
that of trained networks.

No checkpoint is written. The only file is llama.cpp's GGUF, which is deleted as soon as it is open.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import tempfile
from pathlib import Path
from typing import TypeAlias

import numpy as np

from groma_ros.bench.workload import MIXED, SINGLE, BenchVariant
from groma_ros.network_config import BackboneConfig, GromaConfig, LanguageConfig
from groma_ros.preprocessing import ImageTransform
from groma_ros.runtime.bundle import GGUF_PRECISIONS
from groma_ros.runtime.interfaces import LanguageModel, VisionTokenizer
from groma_ros.runtime.load import TORCH_PRECISIONS, Runtime
from groma_ros.tokenization.prompts import PUBLISHED_TEMPLATE
from groma_ros.tokenization.sentencepiece_model import UNUSED, Piece, SentencePieceModel
from groma_ros.tokenization.tokenizer import GromaTokenizer

NETWORKS = {
    # A base-sized backbone and a Llama of 1.1 billion weights, connected as in the published network.
    "base": GromaConfig(
        backbone=BackboneConfig(hidden_size=768, num_hidden_layers=12, num_attention_heads=12),
        language=LanguageConfig(
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_key_value_heads=4,
            max_position_embeddings=2048,
        ),
    ),
    # Groma-7B as published, which was trained with 2048 positions.
    "7b": GromaConfig(language=LanguageConfig(max_position_embeddings=2048)),
}
TEMPLATE = PUBLISHED_TEMPLATE
Parts: TypeAlias = tuple[VisionTokenizer, LanguageModel, str, str]
"""Vision tokenizer, language model, precision and device."""
_NOISE = 1_000_003  # random numbers that all embeddings are made of; a prime, so that no two rows are equal
_ON_DISK = (
    "/var/tmp"  # the folder for temporary files may be in memory, which a large network needs for itself
)
_NEEDED = {"torch": ("torch", "transformers"), "llama_cpp": ("torch", "transformers", "llama_cpp", "gguf")}


def random_runtime(variant: BenchVariant) -> Runtime:
    """Create a network of the variant's size on its backend: torch, or llama_cpp for the language model with
    PyTorch for vision.

    Precision auto is fp32 on the CPU and fp16 on a GPU for PyTorch, q4_k_m for llama.cpp. Raises ValueError
    for an unavailable combination.
    """
    backend = (
        ("llama_cpp" if _lacking("llama_cpp") is None else "torch")
        if variant.options.backend == "auto"
        else variant.options.backend
    )
    if backend not in _NEEDED:
        raise ValueError(
            f"--size {variant.size} has no ONNX graphs; measure it with --backend {' or '.join(_NEEDED)}."
        )
    lacking = _lacking(backend)
    if lacking is not None:
        raise ValueError(
            f"--size {variant.size} on {backend} needs the Python package {lacking}; install it with `make "
            "setup-full`."
        )
    config, transform = NETWORKS[variant.size], ImageTransform(NETWORKS[variant.size].image_size)
    make = _on_llama if backend == "llama_cpp" else _on_torch
    vision, language, precision, device = make(variant, config, transform)
    return Runtime(
        vision,
        language,
        backend,
        precision,
        device,
        f"random weights of size {variant.size} run on {backend}",
    )


def random_tokenizer(config: GromaConfig) -> GromaTokenizer:
    """A vocabulary of the network's size in which every word of the prompts and goals is one token, as common
    words are in Llama's."""
    from groma_ros.training.vocabulary import learn_pieces

    texts = [TEMPLATE.prefix, TEMPLATE.goal, *itertools.chain.from_iterable(TEMPLATE.queries.values())]
    texts += [f"<p>{goal.text}</p> {goal.text}" for goal in (*MIXED, *SINGLE)]
    size = config.language.vocab_size
    learned = learn_pieces(texts, size, min_count=1)
    spare = (Piece(f"<spare {index}>", 0.0, UNUSED) for index in range(size - len(learned)))
    return GromaTokenizer(SentencePieceModel.from_pieces([*learned, *spare]), config.num_new_token)


def _on_torch(variant: BenchVariant, config: GromaConfig, transform: ImageTransform) -> Parts:
    from groma_ros.runtime.torch import TorchLanguage, TorchVision, random_model

    device = variant.options.device or "cpu"
    precision = _precision(variant, "torch", TORCH_PRECISIONS, "fp32" if device == "cpu" else "fp16")
    model = random_model(config, device, variant.options.threads, precision, variant.seed)
    return TorchVision(model, transform), TorchLanguage(model), precision, device


def _on_llama(variant: BenchVariant, config: GromaConfig, transform: ImageTransform) -> Parts:
    from groma_ros.export.gguf import write_random_gguf
    from groma_ros.runtime.llama_cpp import LlamaLanguage, choose_device
    from groma_ros.runtime.torch import TorchVision, random_model

    device = choose_device(variant.options.device)
    precision = _precision(variant, "llama_cpp", GGUF_PRECISIONS, "q4_k_m")
    noise = np.random.default_rng(variant.seed).normal(0, 0.02, _NOISE).astype(np.float16)
    table = np.resize(noise, (config.vocab_size, config.language.hidden_size))
    with tempfile.TemporaryDirectory(prefix="groma_bench_", dir=os.environ.get("TMPDIR", _ON_DISK)) as folder:
        path = Path(folder) / "language.gguf"
        write_random_gguf(path, config, precision, variant.seed)
        language = LlamaLanguage(path, config, table, device, variant.options.threads or 1)
    model = random_model(
        config,
        device,
        variant.options.threads,
        "fp32" if device == "cpu" else "fp16",
        variant.seed,
        language=False,
    )
    return TorchVision(model, transform), language, precision, device


def _precision(variant: BenchVariant, backend: str, known: tuple[str, ...], default: str) -> str:
    if variant.options.precision not in ("auto", *known):
        raise ValueError(
            f"The backend {backend} has no precision {variant.options.precision!r}, only {', '.join(known)}."
        )
    return default if variant.options.precision == "auto" else variant.options.precision


def _lacking(backend: str) -> str | None:
    """The first package that is not installed."""
    return next((name for name in _NEEDED[backend] if importlib.util.find_spec(name) is None), None)
