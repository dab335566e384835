"""Read JSON files and JSON lines from untrusted sources, with bounds on size and nesting.

Everything that the standard library raises on such a file becomes one error: a wrong encoding, a number with
thousands of digits, a nesting that exhausts the stack. Duplicate keys in an object and lone surrogates, which
cannot be written to files or terminals, are also refused; the library accepts them silently. NaN and Infinity
are read, as Python writes them; callers that need finite numbers check for them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groma_ros.errors import printable
from groma_ros.file_checks import refuse_pointer, wrong_kind

MAX_BYTES = 4_000_000_000
"""Larger files are refused; the annotations of LVIS take 1.1 GB."""
MAX_DEPTH = 100
"""Maximum nesting of lists and objects."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Refused JSON; the message is the reason, without the file name and full stop."""


def parse(data: bytes | str) -> Any:
    """Parse a JSON document: text, or bytes in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
    Raises JsonError."""
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data))
        document = json.loads(text, object_pairs_hook=_object)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"it is not text in {error.encoding}: byte {error.start} fits nowhere") from error
    except RecursionError as error:
        raise JsonError(f"it is nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:  # not JSON, or an integer with thousands of digits
        raise JsonError(printable(error, 200)) from error
    _check(document, _SURROGATE.search(data if isinstance(data, bytes) else data.encode()) is not None)
    return document


def load(path: Path) -> Any:
    """Read a JSON file. Raises ValueError with a sentence if it cannot be read or is refused."""
    data = _read(path)
    try:
        return parse(data)
    except JsonError as error:
        if (kind := wrong_kind(path)) is not None:
            raise ValueError(f"{path} is {kind}.") from error
        raise ValueError(f"{path} is not JSON ({error}).") from error


def load_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains an object. Raises ValueError with a sentence for anything else."""
    if not path.is_file():
        raise ValueError(f"The file {path} does not exist.")
    refuse_pointer(path)
    content = load(path)
    if not isinstance(content, dict):
        raise ValueError(f"The file {path} must hold a JSON object.")
    return content


def load_lines(path: Path) -> list[tuple[int, Any]]:
    """Read a file with one JSON document per line. Returns the values with their line numbers from 1; empty
    lines are skipped.

    Lines end at line feeds only, because JSON text may contain U+2028 and U+0085. Raises ValueError naming
    the line.
    """
    return _lines(path, _decoded(path, _read(path)))


def load_entries(path: Path) -> list[Any]:
    """Read the values of a JSON list or of JSON lines. Raises ValueError with a sentence."""
    text = _decoded(path, _read(path))
    if not text.lstrip().startswith("["):
        return [entry for _, entry in _lines(path, text)]
    entries: list[Any] = load(path)
    return entries


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in {error.encoding}: byte {error.start} fits nowhere."
        ) from error


def _lines(path: Path, text: str) -> list[tuple[int, Any]]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((number, parse(line)))
            except JsonError as error:
                if (kind := wrong_kind(path)) is not None:
                    raise ValueError(f"{path} is {kind}.") from error
                raise ValueError(f"Line {number} of {path} is not JSON ({error}).") from error
    return found


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(
                f"{path} has {size} bytes; at most {MAX_BYTES} are read of a JSON file, so it was not opened."
            )
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. Raises JsonError for a duplicate key, whose first value the library would drop."""
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise JsonError(f"the key {printable(repr(twice), 60)} stands twice in one object")
    return found


def _check(document: Any, surrogates: bool) -> None:
    """Check the nesting, level by level, and, if there may be surrogates, every text."""
    level: list[Any] = [document]
    depth = 0
    while level:
        if surrogates:
            _check_texts(value for value in level if isinstance(value, str))
            _check_texts(key for value in level if isinstance(value, dict) for key in value)
        nested = [value for value in level if isinstance(value, (dict, list))]
        depth += 1
        if nested and depth > MAX_DEPTH:
            raise JsonError(f"it is nested deeper than {MAX_DEPTH} levels")
        level = []
        for value in nested:
            level.extend(value.values() if isinstance(value, dict) else value)


def _check_texts(texts: Iterable[str]) -> None:
    for text in texts:
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise JsonError(f"it holds half a surrogate pair, which is no text: {printable(repr(text), 60)}")
