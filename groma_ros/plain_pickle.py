"""Read pickles of plain values, the form in which some data sets are published, without executing anything
they name.

Uses Python's own unpickler in its Python implementation: the C one allocates a table as long as the largest
number in the file says, which may exceed the machine's memory.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from groma_ros.errors import printable
from groma_ros.file_checks import wrong_kind

MAX_BYTES = 1_000_000_000
"""Larger files are refused; the references of RefCOCOg take 10 MB."""


def load(path: Path) -> Any:
    """Read the lists, dictionaries, numbers and texts of a pickle. Raises ValueError with a sentence if the
    file cannot be read, is damaged or names a class or a function."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES} bytes, the most that are read of a pickle.")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        # Published pickles were written by Python 2, with texts as bytes.
        try:
            return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
        except UnicodeDecodeError:
            return _PlainUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise any exception
        if (kind := wrong_kind(path)) is not None:
            raise ValueError(f"{path} is {kind}.") from error
        reason = printable(error, 200) or type(error).__name__
        raise ValueError(f"{path} is not a pickle of plain values: {reason}.") from error


class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are read")
