"""Read, cast, hash and write the weights of a checkpoint one at a time, so that it may exceed the memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from groma_ros.atomic_write import replacing
from groma_ros.model.checkpoint import differing, empty_groma, original_name, report_unknown, where_in
from groma_ros.model.groma import Groma
from groma_ros.model.weight_files import TensorFile, weight_files
from groma_ros.network_config import GromaConfig

_HALF_BYTES = 2
_KEPT = 1 << 27  # bytes read through mappings before they are closed


class Weights(Mapping[str, Tensor]):
    """The tensors of a checkpoint by the original's names, duplicated heads and tied tables once, in the
    files' precision.

    Opening reads names and shapes only. Tensors are memory-mapped on access, and mappings are renewed to
    limit resident memory.
    """

    unknown: dict[str, int]
    """Bytes of the keys that the network does not have, which are left out."""

    def __init__(self, config: GromaConfig, source: str | Path, strict: bool = False) -> None:
        """source, strict: as in `model.checkpoint.load_weights`, which also lists the errors raised as
        ValueError."""
        self.source = Path(source)
        self.unknown = {}
        self._files: dict[Path, TensorFile] = {}
        self._read = 0
        self._places: dict[str, tuple[Path, str]] = {}
        model = empty_groma(config)
        wanted = model.state_dict()
        tied = {"llm.lm_head.weight"} if config.language.tie_word_embeddings else set()
        for file in weight_files(source):
            for key, tensor in self._open(file).items():
                where = None if key.endswith("rotary_emb.inv_freq") else where_in(key, model, wanted)
                if where is not None:
                    self._add(original_name(where), tuple(wanted[where].shape), file, key, tensor)
                elif not key.endswith("rotary_emb.inv_freq"):
                    self.unknown[key] = tensor.nbytes
        report_unknown(source, self.unknown, strict)
        self.shapes = {
            original_name(key): tuple(value.shape) for key, value in wanted.items() if key not in tied
        }
        missing = [key for key in self.shapes if key not in self._places]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ValueError(f"The weights in {source} lack the key {missing[0]}{more}.")
        self._places = {key: self._places[key] for key in self.shapes}

    def __getitem__(self, key: str) -> Tensor:
        file, name = self._places[key]
        tensor = self._open(file)[name]
        self._read += tensor.nbytes
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _add(self, name: str, shape: tuple[int, ...], file: Path, key: str, tensor: Tensor) -> None:
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"The weights in {self.source} have {key} of shape {tuple(tensor.shape)}, but the config "
                f"asks for {shape}."
            )
        if not tensor.is_floating_point():
            raise ValueError(
                f"The weights in {self.source} have {key} of type {tensor.dtype}; a floating-point type is "
                "needed."
            )
        if name in self._places and not torch.equal(self[name], tensor):
            raise ValueError(differing(self.source, self._places[name][1], key))
        self._places.setdefault(name, (file, key))

    def _open(self, file: Path) -> TensorFile:
        """Open a file, and release from time to time what was read."""
        if self._read > _KEPT:
            for opened in self._files.values():
                opened.release()
            self._read = 0
        if file not in self._files:
            self._files[file] = TensorFile(file)
        return self._files[file]


class Halves(Mapping[str, Tensor]):
    """The tensors of a checkpoint in float16, as a bundle stores them. Access may raise ValueError, see
    `half`."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, key: str) -> Tensor:
        return half(key, self._weights[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def load_part(config: GromaConfig, weights: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> Groma:
    """Load the weights whose names begin with one of the prefixes, float32; the others stay on the meta
    device."""
    model = empty_groma(config)
    places = {place: _stored(config, place) for place in model.state_dict() if place.startswith(prefixes)}
    model.load_state_dict(
        {place: weights[name].float() for place, name in places.items()}, strict=False, assign=True
    )
    return model.eval().requires_grad_(False)


def stream(config: GromaConfig, weights: Mapping[str, Tensor]) -> Groma:
    """Prepare a network whose layers load their weights in float32 when called and release them
    afterwards.

    It computes models larger than the memory. Only modules run through their own call, such as the
    language model, are supported.
    """
    model = empty_groma(config)
    for path, layer in model.named_modules():
        names = {key: _stored(config, f"{path}.{key}") for key, _ in layer.named_parameters(recurse=False)}
        if names:
            layer.register_forward_pre_hook(partial(_take, weights, names))
            layer.register_forward_hook(partial(_give_back, dict(layer.named_parameters(recurse=False))))
    return model.eval().requires_grad_(False)


def _take(weights: Mapping[str, Tensor], names: Mapping[str, str], layer: nn.Module, _: object) -> None:
    for key, name in names.items():
        setattr(layer, key, nn.Parameter(weights[name].float(), requires_grad=False))


def _give_back(empty: Mapping[str, nn.Parameter], layer: nn.Module, *_: object) -> None:
    for key, parameter in empty.items():
        setattr(layer, key, parameter)


def _stored(config: GromaConfig, place: str) -> str:
    """Name in the checkpoint of a parameter of the network."""
    tied = config.language.tie_word_embeddings and place == "llm.lm_head.weight"
    return "llm.model.embed_tokens.weight" if tied else original_name(place)


def half(key: str, tensor: Tensor) -> Tensor:
    """Convert a tensor to contiguous float16. Raises ValueError if a value exceeds the range of float16."""
    found = tensor.to(torch.float16).contiguous()
    if not bool(torch.isfinite(found).all()):
        raise ValueError(
            f"The weight {key} holds values beyond float16 (65504) or not numbers; a bundle stores halves."
        )
    return found


def write_halves(
    weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], path: Path | None
) -> tuple[str, int]:
    """Write tensors one at a time as a float16 safetensors file; returns its sha256 and size in bytes.

    The bytes equal those written by `safetensors`. path: None to compute the sha256 only. The file is
    written to a temporary name and renamed; nothing is left behind on failure.
    """
    names, header, start = sorted(shapes), {}, 0
    for name in names:
        end = start + _HALF_BYTES * int(torch.Size(shapes[name]).numel())
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(head)
    with contextlib.nullcontext() if path is None else replacing(path) as stream:
        if stream is not None:
            stream.write(head)
        for name in names:
            data = half(name, weights[name]).numpy().data.cast("B") if 0 not in shapes[name] else b""
            digest.update(data)
            if stream is not None:
                stream.write(data)
    return digest.hexdigest(), len(head) + start
