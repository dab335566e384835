"""Text for users: the sentence for an error, and untrusted text made safe for a terminal or a log."""

from __future__ import annotations

import os
import re
import reprlib
import traceback

_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def sentence(error: BaseException) -> str:
    """Return the message for a user: the text of our own error, or the place where an unexpected error was
    raised."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error.name} is not installed; `make setup-full` installs what this needs."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    if isinstance(error, MemoryError):
        return "There is not enough memory for this; free some, or give it less to do at once."
    if isinstance(error, OSError) and str(error):
        return str(error)
    file, line, ours = _origin(error)
    if (
        ours
        and isinstance(error, (ValueError, ImportError, RuntimeError))
        and not isinstance(error, RecursionError)
    ):
        return str(error)
    where = f" ({file}, line {line})" if file else ""
    return (
        f"Unexpected {type(error).__name__}: {str(error) or 'no message'}{where}; "
        "the same command with --debug shows the traceback, please report it."
    )


def _origin(error: BaseException) -> tuple[str, int, bool]:
    """File and line in this package that an error passed through, and whether our own `raise` created it.

    Errors raised by a library or a built-in function have messages for programmers, not for users.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    if not own:
        return "", 0, False
    last = own[-1]
    ours = last is frames[-1] and (last.line or "").lstrip().startswith("raise")
    return os.path.basename(last.filename), last.lineno or 0, ours


def _is_own(file: str) -> bool:
    """Whether a file is part of neither Python nor an installed package other than this one."""
    path = os.path.abspath(file)
    return path.startswith(_PACKAGE + os.sep) or not any(
        part in path for part in ("site-packages", "dist-packages", _STANDARD_LIBRARY, "<frozen")
    )


# Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction of the text
# around them, and halves of surrogate pairs, which no stream can encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def printable(text: object, limit: int | None = None) -> str:
    """Return the text on one line, with characters that could move the cursor, start an escape sequence, end
    a line or reverse the reading direction written as escapes (`\\n`, `\\x1b`, `\\u202e`).

    limit: maximum length in characters; longer text is cut and ends in "...".
    """
    shown = str(text)
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 3, 0)] + "..."
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], shown)


def quoted(value: object, limit: int = 60) -> str:
    """Return a value read from a file in the form an error quotes it: its `repr` on one line, null for None,
    abbreviated to `limit` characters, however deep or large the value is."""
    return "null" if value is None else printable(_SHORT.repr(value), limit)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
