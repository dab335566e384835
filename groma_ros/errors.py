"""Which errors have a message for a user, and what a user is told of the others."""

from __future__ import annotations

import os
import traceback

_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))
_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def sentence(error: BaseException) -> str:
    """What the user reads of an error: the sentence of ours that it carries, or where an unexpected error
    came from."""
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
    """The file and line of this package where an error came up, and whether a `raise` of ours made it.

    Errors that a library or a built-in function raised have a message for programmers, not for users.
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    if not own:
        return "", 0, False
    last = own[-1]
    ours = last is frames[-1] and (last.line or "").lstrip().startswith("raise")
    return os.path.basename(last.filename), last.lineno or 0, ours


def _is_own(file: str) -> bool:
    """Whether a file is neither of an installed package other than this one nor of Python itself."""
    path = os.path.abspath(file)
    return path.startswith(_PACKAGE + os.sep) or not any(
        part in path for part in ("site-packages", "dist-packages", _STANDARD_LIBRARY, "<frozen")
    )
