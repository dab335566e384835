"""Writes a checkpoint of random weights in the published layout, of any size, to try `groma convert` on.

    # The published shapes, 29.5 GB in float32
    .venv/bin/python tools/make_checkpoint.py /tmp/groma-7b
    .venv/bin/python tools/make_checkpoint.py /tmp/groma-1b --layers 4   # the same with fewer Llama layers

Shards of `.bin` files, both names of the duplicated heads, `config.json` and a vocabulary of the right size.
Answers mean nothing. It takes little memory: a shard is laid out on disk first and filled tensor by tensor.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import mmap
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from groma_ros.model.checkpoint import empty_groma, original_state_dict
from groma_ros.network_config import GromaConfig, LanguageConfig
from groma_ros.tokenization.sentencepiece_model import (
    BYTE,
    CONTROL,
    UNKNOWN,
    WORD_MARK,
    Piece,
    SentencePieceModel,
)

SHARD_BYTES = 9_900_000_000
HEADS = ("bbox_embed.", "class_embed_enc.", "class_embed_coco.", "class_embed_sa1b.")
PUBLISHED_KEYS = (
    "model_type",
    "num_new_token",
    "max_region_num",
    "box_score_thres",
    "nms_thres",
    "llm_cfg",
    "perceiver_cfg",
)
Shapes = dict[str, tuple[int, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--layers", type=int, default=32, help="Llama layers (default: 32, as published)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = dataclasses.replace(GromaConfig(), language=LanguageConfig(num_hidden_layers=args.layers))
    size = make_checkpoint(config, args.out, getattr(torch, args.dtype), args.seed)
    print(f"{args.out}: {size / 1e9:.1f} GB")


def make_checkpoint(
    config: GromaConfig,
    out: Path,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write the checkpoint into a new folder; the bytes of its weights. The same seed gives the same
    weights."""
    out.mkdir(parents=True)
    data = config.to_dict()
    (out / "config.json").write_text(json.dumps({key: data[key] for key in PUBLISHED_KEYS}, indent=1))
    (out / "tokenizer.model").write_bytes(make_vocabulary(config.language.vocab_size).to_bytes())
    shards = list(split(published_shapes(config), dtype.itemsize, shard_bytes))
    placed: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        write_shard(out / name, shapes, dtype, seed)
        placed |= dict.fromkeys(shapes, name)
    size = sum(dtype.itemsize * torch.Size(shape).numel() for shapes in shards for shape in shapes.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (out / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1))
    return size


def published_shapes(config: GromaConfig) -> Shapes:
    """Shapes by the published names, the duplicated heads under both."""
    shapes = {key: tuple(value.shape) for key, value in original_state_dict(empty_groma(config)).items()}
    detr = "perceiver.ddetr_transformer."
    heads = {
        key: shape
        for key, shape in shapes.items()
        if key.startswith(detr) and key.removeprefix(detr).startswith(HEADS)
    }
    return shapes | {key.replace(detr, f"{detr}decoder."): shape for key, shape in heads.items()}


def split(shapes: Shapes, item_bytes: int, shard_bytes: int) -> Iterator[Shapes]:
    """The shapes in shards of at most so many bytes, a larger tensor alone."""
    shard: Shapes = {}
    taken = 0
    for key, shape in shapes.items():
        size = item_bytes * torch.Size(shape).numel()
        if shard and taken + size > shard_bytes:
            yield shard
            shard, taken = {}, 0
        shard[key] = shape
        taken += size
    yield shard


def write_shard(file: Path, shapes: Shapes, dtype: torch.dtype, seed: int) -> None:
    """One `.bin` file: its layout first, with room for the values, then the values through a shared
    mapping."""
    with FakeTensorMode():
        empty = {key: torch.empty(shape, dtype=dtype) for key, shape in shapes.items()}
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(empty, file)
    torch.serialization.set_default_mmap_options(mmap.MAP_SHARED)
    try:
        for keys in batches(shapes, 1 << 26):
            held: Mapping[str, torch.Tensor] = torch.load(file, weights_only=True, mmap=True)
            for key in keys:
                fill(key, held[key], seed)
    finally:
        torch.serialization.set_default_mmap_options(mmap.MAP_PRIVATE)


def batches(shapes: Shapes, numbers: int) -> Iterator[list[str]]:
    """Keys in runs of about so many numbers, so that a mapping is given back from time to time."""
    run: list[str] = []
    taken = 0
    for key, shape in shapes.items():
        run.append(key)
        taken += torch.Size(shape).numel()
        if taken >= numbers:
            yield run
            run, taken = [], 0
    yield run


def fill(key: str, tensor: torch.Tensor, seed: int) -> None:
    """Random values that keep activations of a common size: matrices by their inputs, scales near 1,
    everything else small."""
    name = key.replace("ddetr_transformer.decoder.", "ddetr_transformer.")
    generator = torch.Generator().manual_seed(
        seed * 1_000_003 + sum(ord(char) * 31**place % 65_521 for place, char in enumerate(name))
    )
    if tensor.dim() > 1 and "emb" not in name:
        tensor.normal_(0, 1 / tensor[0].numel() ** 0.5, generator=generator)
    elif tensor.dim() == 1 and name.endswith(
        ("norm.weight", "norm1.weight", "norm2.weight", "gn.weight", "lambda1")
    ):
        tensor.normal_(1, 0.02, generator=generator)
    else:
        tensor.normal_(0, 0.02, generator=generator)


def make_vocabulary(size: int) -> SentencePieceModel:
    """A BPE vocabulary of so many pieces: the fixed ones, printable characters, then pairs and triples of
    letters."""
    pieces = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    pieces += [Piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    characters = [WORD_MARK, *string.ascii_letters, *string.digits, *string.punctuation]
    lower = string.ascii_lowercase
    runs = ("".join(letters) for length in (2, 3, 4) for letters in itertools.product(lower, repeat=length))
    texts = itertools.islice(itertools.chain(characters, runs), size - len(pieces))
    pieces += [Piece(text, -float(rank)) for rank, text in enumerate(texts)]
    return SentencePieceModel.from_pieces(pieces)


if __name__ == "__main__":
    main()
