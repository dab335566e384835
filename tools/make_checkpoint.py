"""Writes a checkpoint of random weights in the published layout, of any size, to try `groma convert` on.

    # The published shapes, 29.5 GB in float32
    .venv/bin/python tools/make_checkpoint.py /tmp/groma-7b
    .venv/bin/python tools/make_checkpoint.py /tmp/groma-1b --layers 4   # the same with fewer Llama layers
    # One pickle of 33.1 GB, as groma-7b-finetune has it
    .venv/bin/python tools/make_checkpoint.py /tmp/groma-7b --single --extra 3.6

Shards of `.bin` files, or one, both names of the duplicated heads, `config.json` and a vocabulary of the
right size. --extra adds bytes that no network of this config uses: half of them in keys that it does not
have, half in a storage that is larger than the tensor which views it, all zeros that take no room on disk.
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
UNKNOWN_KEYS = ("perceiver.unused.weight", "llm.unused.weight")
ROOMY = "llm.lm_head.weight"
"""The key with a storage larger than the tensor, if there are extra bytes."""
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
    parser.add_argument("--single", action="store_true", help="one pickle without an index, not shards")
    parser.add_argument("--extra", type=float, default=0.0, metavar="GB", help="unused bytes in the file")
    args = parser.parse_args()
    config = dataclasses.replace(GromaConfig(), language=LanguageConfig(num_hidden_layers=args.layers))
    dtype, extra = getattr(torch, args.dtype), int(args.extra * 1e9)
    size = make_checkpoint(config, args.out, dtype, args.seed, single=args.single, extra=extra)
    print(f"{args.out}: {size / 1e9:.1f} GB")


def make_checkpoint(
    config: GromaConfig,
    out: Path,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    single: bool = False,
    extra: int = 0,
) -> int:
    """Write the checkpoint into a new folder and return the bytes of its weights. The same seed gives the
    same weights.

    single: one pickle without an index; extra: bytes of it that the network does not use.
    """
    out.mkdir(parents=True)
    data = config.to_dict()
    (out / "config.json").write_text(json.dumps({key: data[key] for key in PUBLISHED_KEYS}, indent=1))
    (out / "tokenizer.model").write_bytes(make_vocabulary(config.language.vocab_size).to_bytes())
    if single:
        return write_single(out / "pytorch_model.bin", published_shapes(config), dtype, seed, extra)
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
    """The shapes in shards of at most this many bytes, a larger tensor alone."""
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


def write_single(file: Path, shapes: Shapes, dtype: torch.dtype, seed: int, extra: int) -> int:
    """Write one `.bin` file with everything and `extra` bytes that the network does not use. Returns the
    bytes of its weights."""
    numbers = extra // dtype.itemsize
    width = shapes[ROOMY][1]
    spare_rows = numbers // 2 // width
    unknown = dict.fromkeys(UNKNOWN_KEYS, (numbers // 2 // len(UNKNOWN_KEYS),)) if extra else {}
    write_shard(file, shapes | unknown, dtype, seed, {ROOMY: spare_rows})
    used = sum(torch.Size(shape).numel() for shape in (shapes | unknown).values())
    return dtype.itemsize * (used + spare_rows * width)


def write_shard(
    file: Path, shapes: Shapes, dtype: torch.dtype, seed: int, spare_rows: Mapping[str, int] | None = None
) -> None:
    """Write one `.bin` file: its layout first, with room for the values, then the values through a shared
    mapping.

    spare_rows: by key, the rows of its storage beyond those of the tensor.
    """
    spare = spare_rows or {}
    with FakeTensorMode():
        empty = {
            key: torch.empty((shape[0] + spare.get(key, 0), *shape[1:]), dtype=dtype)[: shape[0]]
            for key, shape in shapes.items()
        }
    with torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(empty, file)
    torch.serialization.set_default_mmap_options(mmap.MAP_SHARED)
    try:
        for keys in batches({key: shapes[key] for key in shapes if key not in UNKNOWN_KEYS}, 1 << 26):
            held: Mapping[str, torch.Tensor] = torch.load(file, weights_only=True, mmap=True)
            for key in keys:
                fill(key, held[key], seed)
    finally:
        torch.serialization.set_default_mmap_options(mmap.MAP_PRIVATE)


def batches(shapes: Shapes, numbers: int) -> Iterator[list[str]]:
    """Keys in batches of about this many numbers, after each of which a mapping is released."""
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
    """Random values that keep activations at a common scale: matrices scaled by their inputs, scales near 1,
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
    """A BPE vocabulary of this many pieces: the fixed ones, printable characters, then pairs and triples of
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
