"""The files of a checkpoint: one `.bin` pickle, safetensors, or shards of either with an index."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
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


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read the tensors of one safetensors or `.bin` file, memory-mapped: a value is read when it is used.
    Those of a `.bin` are read-only: changing them in place ends the process.

    A `.bin` is read as tensors only: no code in it is executed. Entries that are not tensors are skipped.
    Raises ValueError if the file is damaged, a Git LFS pointer, or contains anything but a dictionary of
    tensors and plain values.
    """
    refuse_pointer(file)
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"The weight file {file} is damaged: {error}; fetch it again.") from error
    content = _read_pickle(file)
    tensors = (
        {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise ValueError(f"The weight file {file} is not a plain dictionary of tensors.")
    return tensors


def can_map(file: Path) -> bool:
    """Whether a weight file can be memory-mapped instead of being read whole."""
    return file.suffix == ".safetensors" or _is_zip(file)


def _is_zip(file: Path) -> bool:
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True  # an archive, if a damaged one


def _read_pickle(file: Path) -> object:
    mapped = _is_zip(file)
    if not mapped:
        _check_unmapped(file)
    try:
        if not mapped:
            return torch.load(file, map_location="cpu", weights_only=True)
        # Shapes and places in the file, without the values.
        with FakeTensorMode():
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _mapped(content, file) if isinstance(content, dict) else content
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


def _mapped(content: dict[Any, Any], file: Path) -> dict[Any, Any]:
    """Replace tensors without values by views of the file.

    `torch.load(mmap=True)` maps the file writable and private, for which Linux demands as much free memory as
    the file is large: one of 33 GB is refused on a machine with 24 GB. A read-only mapping demands none.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        whole = torch.from_numpy(np.memmap(file, np.uint8, mode="r"))
    return {
        key: _view(value, whole) if isinstance(value, Tensor) else value for key, value in content.items()
    }


def _view(tensor: Tensor, whole: Tensor) -> Tensor:
    """View the values of a tensor that was loaded without them. whole: the bytes of its file.

    Raises ValueError if they lie beyond its end.
    """
    storage = tensor.untyped_storage()
    start, size = storage._checkpoint_offset, storage.nbytes()
    if start is None or start + size > len(whole):
        raise ValueError("it ends early")
    values = whole[start : start + size]
    if start % tensor.dtype.itemsize:
        values = values.clone()  # a file that PyTorch did not write; its own begin at multiples of 64 bytes
    values = values.view(tensor.dtype)
    return values.as_strided(tensor.shape, tensor.stride(), values.storage_offset() + tensor.storage_offset())


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
