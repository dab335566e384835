"""Text from outside (goals, topics, frames, file and bundle names) made safe for a terminal or a log."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), line and paragraph separators, marks that change the direction of the text
# around them, and halves of surrogate pairs, which no stream can encode.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def printable(text: object, limit: int | None = None) -> str:
    """The text on one line, with every character that could move the cursor, start an escape sequence, end a
    line or reverse the reading direction written as an escape (`\\n`, `\\x1b`, `\\u202e`).

    limit: longest result in characters; a longer one is cut and ends in "...".
    """
    shown = str(text)
    if limit is not None and len(shown) > limit:
        shown = shown[: max(limit - 3, 0)] + "..."
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], shown)
