"""Write the language model as a GGUF for llama.cpp, tensor by tensor."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from groma_ros.atomic_write import AtomicFile, asking_disk, naming_file
from groma_ros.network_config import GromaConfig, LanguageConfig
from groma_ros.runtime.bundle import GGUF_PRECISIONS

K_ROW = 256
"""Block size of llama.cpp's K formats; rows must be a multiple of it."""
_TYPES = {
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q4_k_m": gguf.GGMLQuantizationType.Q4_K,
}
_FILE_TYPES = {
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def settle_precision(config: GromaConfig, precision: str) -> str:
    """The precision a network can have: q4_0 instead of q4_k_m if rows are not a multiple of 256. Raises
    ValueError for an unknown one."""
    if precision not in GGUF_PRECISIONS:
        raise ValueError(
            f"A GGUF has no precision {precision!r}; it must be one of {', '.join(GGUF_PRECISIONS)}."
        )
    rows = (config.language.hidden_size, config.language.intermediate_size)
    return "q4_0" if precision == "q4_k_m" and any(row % K_ROW for row in rows) else precision


def write_gguf(weights: Mapping[str, Tensor], path: Path, config: GromaConfig, precision: str) -> None:
    """Write the language model of a checkpoint as a GGUF, with one tensor in memory at a time.

    weights: by the original's names, e.g. `model.weights.Weights`. q4_k_m is made by llama.cpp's quantizer
    from an f16 file, which is then deleted.
    """

    def read(name: str) -> NDArray[Any]:
        return _tensor(lambda key: weights[key].float().numpy(), name, config)

    if precision != "q4_k_m":
        _write(path, config, precision, lambda name: _packed(read(name), precision))
        return
    half = path.with_name(path.name + ".f16")
    try:
        _write(half, config, "f16", lambda name: _packed(read(name), "f16"))
        _quantize(half, path)
    finally:
        half.unlink(missing_ok=True)


def write_random_gguf(path: Path, config: GromaConfig, precision: str, seed: int = 0) -> None:
    """Write a GGUF of random weights to measure speed: blocks of random bits with small scales, one tensor in
    memory at a time."""
    rng = np.random.default_rng(seed)
    shapes = _shapes(config)
    made: dict[tuple[int, ...], NDArray[Any]] = {}

    def random(name: str) -> NDArray[Any]:
        shape = shapes[name]
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        if shape not in made:
            made[shape] = _random_blocks(rng, shape, precision)
        return made[shape]

    _write(path, config, precision, random)


def _random_blocks(rng: np.random.Generator, shape: tuple[int, ...], precision: str) -> NDArray[Any]:
    """Packed random values with a standard deviation near 0.02."""
    if precision != "q4_k_m":
        row = rng.normal(0, 0.02, (64, shape[1])).astype(np.float32)
        return np.resize(_packed(row, precision), (shape[0], _packed(row[:1], precision).shape[1]))
    blocks = rng.integers(0, 256, (shape[0], shape[1] // K_ROW, 144), np.uint8)
    # Two fp16 numbers, scale and minimum: values are scale x 6 bits x 4 bits - minimum x 6 bits.
    blocks[..., :4] = np.array([1.4e-4, 1e-3], np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _shapes(config: GromaConfig) -> dict[str, tuple[int, ...]]:
    """The GGUF's tensors and their shapes, output x input."""
    c = config.language
    width, inner = c.hidden_size, c.intermediate_size
    keys = width // c.num_attention_heads * (c.num_key_value_heads or c.num_attention_heads)
    layer = {
        "attn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab_size, width)}
    for index in range(c.num_hidden_layers):
        shapes |= {f"blk.{index}.{name}.weight": shape for name, shape in layer.items()}
    return {**shapes, "output_norm.weight": (width,), "output.weight": (config.vocab_size, width)}


def _tensor(get: Callable[[str], NDArray[Any]], name: str, config: GromaConfig) -> NDArray[Any]:
    """A tensor of the GGUF, float32, from the checkpoint's."""
    c = config.language
    if name == "token_embd.weight":
        return _rows(get("llm.model.embed_tokens.weight"), get("new_input_embs.weight"))
    if name == "output.weight":
        return _rows(
            get("llm.model.embed_tokens.weight" if c.tie_word_embeddings else "llm.lm_head.weight"),
            get("extra_lm_head.weight"),
        )
    if name == "output_norm.weight":
        return get("llm.model.norm.weight").astype(np.float32)
    _, layer, part, _ = name.split(".")
    found = get(f"llm.model.layers.{layer}.{_LAYER[part]}.weight").astype(np.float32)
    heads = {"attn_q": c.num_attention_heads, "attn_k": c.num_key_value_heads or c.num_attention_heads}.get(
        part
    )
    return found if heads is None else rotary_rows(found, heads)


def rotary_rows(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """Reorder rows (heads x d, D) to llama.cpp's order, in which the two rows of a head that rotate together
    are adjacent."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _rows(*parts: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([part.astype(np.float32) for part in parts])


def _packed(tensor: NDArray[Any], precision: str) -> NDArray[Any]:
    """Pack a matrix in the precision's format; vectors stay float32."""
    return tensor if tensor.ndim == 1 else gguf.quants.quantize(tensor, _TYPES[precision])


def _write(path: Path, config: GromaConfig, precision: str, get: Callable[[str], NDArray[Any]]) -> None:
    """Write a GGUF. get: returns a packed tensor by name."""
    with naming_file(path), contextlib.closing(gguf.GGUFWriter(path, "llama")) as writer:
        _describe(writer, config, precision)
        for name, shape in _shapes(config).items():
            kind = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else _TYPES[precision]
            block, size = gguf.GGML_QUANT_SIZES[kind]
            packed = (*shape[:-1], shape[-1] // block * size)
            quantized = kind not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
            dtype = np.dtype(np.uint8 if quantized else np.float16 if size == 2 else np.float32)
            writer.add_tensor_info(name, packed if quantized else shape, dtype, int(np.prod(packed)), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in _shapes(config):
            writer.write_tensor_data(get(name).view(AtomicFile))


def _describe(writer: gguf.GGUFWriter, config: GromaConfig, precision: str) -> None:
    c: LanguageConfig = config.language
    scaling = c.rope_scaling or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear") or c.hidden_act != "silu":
        raise ValueError(
            f"A language model with rotary scaling {kind!r} and activation {c.hidden_act!r} has no GGUF; "
            "scaling must be default or linear, the activation silu."
        )
    writer.add_file_type(_FILE_TYPES[precision])
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads or c.num_attention_heads)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(scaling["factor"]))
    writer.add_tokenizer_model("none")


def _quantize(source: Path, path: Path) -> None:
    import llama_cpp

    from groma_ros.runtime.llama_cpp import start_llama

    start_llama()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    with asking_disk(path):
        status = llama_cpp.llama_model_quantize(
            str(source).encode(), str(path).encode(), ctypes.byref(params)
        )
        if status:
            raise RuntimeError(f"llama.cpp could not quantize {source} (status {status}).")
