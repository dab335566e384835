"""The files of a checkpoint: one `.bin` pickle, safetensors, or shards of either with an index."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from groma_ros.file_checks import refuse_pointer
from groma_ros.json_files import load_object
from groma_ros.network_config import check_family

NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
MAX_UNMAPPED = 4_000_000_000
"""Maximum size of a pickle that is read whole, because pickles from before 2020 cannot be memory-mapped."""
_ZIP = b"PK\x03\x04"


def read_config(directory: str | Path) -> dict[str, Any]:
    """Read the `config.json` of a whole Groma checkpoint. Raises ValueError if there is none, or it is of
    another network."""
    path = Path(directory) / "config.json"
    config = load_object(path)
    check_family(config, path)
    return config


def weight_files(source: str | Path) -> list[Path]:
    """Return the files of a checkpoint. Raises ValueError if there are none, or a shard is missing."""
    source = Path(source)
    if source.is_dir():
        found = next((source / name for name in NAMES if (source / name).is_file()), None)
        if found is None:
            raise ValueError(f"The folder {source} holds no weights; expected one of {', '.join(NAMES)}.")
        source = found
    if not source.is_file():
        raise ValueError(f"The weight file {source} does not exist.")
    return list(_shards(source)) if source.suffix == ".json" else [source]


@dataclass(frozen=True)
class _Place:
    """Where the values of a tensor lie in its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """In its storage, elements."""
    start: int
    """Of its storage in the file, bytes."""
    size: int
    """Of its storage, bytes."""


class TensorFile(Mapping[str, Tensor]):
    """The tensors of one safetensors or `.bin` file, memory-mapped: a value is read when it is used. Those of
    a `.bin` are read-only: changing them in place ends the process.

    A `.bin` is read as tensors only: no code in it is executed. Entries that are not tensors are skipped.
    Raises ValueError if the file is damaged, a Git LFS pointer, or contains anything but a dictionary of
    tensors and plain values.
    """

    def __init__(self, file: Path) -> None:
        refuse_pointer(file)
        self._file = file
        self._bytes: Tensor | None = None
        self._found: Mapping[str, Tensor | _Place] = {}
        self._load()
        if not self._found:
            raise ValueError(f"The weight file {file} is not a plain dictionary of tensors.")

    def __getitem__(self, key: str) -> Tensor:
        if not self._found:
            self._load()
        found = self._found[key]
        if isinstance(found, Tensor):
            return found
        if self._bytes is None:
            self._bytes = _mapped(self._file)
        return _view(found, self._bytes)

    def __iter__(self) -> Iterator[str]:
        if not self._found:
            self._load()
        return iter(self._found)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def release(self) -> None:
        """Close the mapping, which keeps every page that was read resident; the next access opens it again.
        Tensors in use keep theirs."""
        self._bytes = None
        if self._file.suffix == ".safetensors":
            self._found = {}

    def _load(self) -> None:
        if self._file.suffix != ".safetensors":
            self._found = _read_pickle(self._file)
            return
        try:
            self._found = load_file(self._file)
        except SafetensorError as error:
            raise ValueError(f"The weight file {self._file} is damaged: {error}; fetch it again.") from error


def _is_zip(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True  # an archive, if a damaged one


def _read_pickle(file: Path) -> Mapping[str, Tensor | _Place]:
    """Read the tensors of a `.bin`, or their places if it can be mapped; empty if it holds none. Raises
    ValueError as `TensorFile`."""
    mapped = _is_zip(file)
    if not mapped:
        _check_unmapped(file)
    try:
        if not mapped:
            return _tensors(torch.load(file, map_location="cpu", weights_only=True))
        # Shapes and places in the file, without the values.
        with FakeTensorMode():
            listed = _tensors(torch.load(file, map_location="cpu", weights_only=True))
        whole = _mapped(file)
        places = {key: _place(value, len(whole)) for key, value in listed.items()}
        for place in places.values():
            _view(place, whole)  # raises if it lies outside
        return places
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not", str(error))
        what = f"code or objects ({found[1]})" if found else "something other than tensors"
        raise ValueError(
            f"The weight file {file} holds {what}, which could run when it is loaded, so it was not read; "
            "only tensors are."
        ) from error
    except (OSError, MemoryError) as error:
        raise ValueError(f"The weight file {file} cannot be read: {error}.") from error
    except Exception as error:  # the bytes of a pickle decide what is called, and so what it raises
        reason = str(error).splitlines()[0] if str(error) else "it ends early"
        raise ValueError(f"The weight file {file} is damaged: {reason}; fetch it again.") from error


def _tensors(content: object) -> dict[str, Tensor]:
    pairs = content.items() if isinstance(content, dict) else ()
    return {str(key): value for key, value in pairs if isinstance(value, Tensor)}


def _place(tensor: Tensor, end: int) -> _Place:
    """The place of a tensor that was loaded without values from a file of `end` bytes.

    Raises ValueError if its storage lies beyond them.
    """
    storage = tensor.untyped_storage()
    start, size, offset = storage._checkpoint_offset, storage.nbytes(), int(tensor.storage_offset())
    if start is None or start + size > end:
        raise ValueError("it ends early")
    return _Place(tensor.dtype, tuple(tensor.shape), tensor.stride(), offset, int(start), size)


def _mapped(file: Path) -> Tensor:
    """The bytes of a file, mapped.

    `torch.load(mmap=True)` maps the file writable and private, for which Linux demands as much free memory as
    the file is large: one of 33 GB is refused on a machine with 24 GB. A read-only mapping demands none.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.memmap(file, np.uint8, mode="r"))


def _view(place: _Place, whole: Tensor) -> Tensor:
    """View the values at a place. whole: the bytes of its file."""
    values = whole[place.start : place.start + place.size]
    if place.start % place.dtype.itemsize:
        values = values.clone()  # a file that PyTorch did not write; its own begin at multiples of 64 bytes
    values = values.view(place.dtype)
    return values.as_strided(place.shape, place.stride, values.storage_offset() + place.offset)


def _check_unmapped(file: Path) -> None:
    """Raise ValueError for a pickle that is not an archive and cannot be used: truncated, or too large to be
    read."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        cut = stream.read(len(_ZIP)) == _ZIP
    if cut:
        raise ValueError(
            f"The weight file {file} is damaged: it was cut short at {size} bytes; fetch it again."
        )
    if size > MAX_UNMAPPED:
        raise ValueError(
            f"The weight file {file} of {size / 1e9:.1f} GB is no zip archive, so it can only be read "
            "whole, which "
            f"is done up to {MAX_UNMAPPED / 1e9:.0f} GB; it is damaged, or load and save it with PyTorch "
            "anew."
        )


def _shards(index: Path) -> Iterator[Path]:
    names = load_object(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"The index {index} has no weight_map.")
    for name in sorted(set(map(str, names.values()))):
        if Path(name).name != name:
            raise ValueError(f"The index {index} names {name}, which is not a file beside it.")
        if not (index.parent / name).is_file():
            raise ValueError(f"The shard {name} is missing from {index.parent}, though its index names it.")
        yield index.parent / name
