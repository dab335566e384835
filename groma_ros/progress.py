"""Progress on standard error: a bar on a terminal, plain lines in a log. Standard output stays for results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], total: int, name: str) -> Iterator[Item]:
    """The items as they come, with progress of `total` things called `name` (one word, in the singular)."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=name, file=sys.stderr)
        return
    step = max(1, total // 10)
    for number, item in enumerate(items, 1):
        yield item
        if number % step == 0 or number == total:
            print(f"{name} {number} of {total}", file=sys.stderr, flush=True)
