"""Progress on standard error: a bar on a terminal, plain lines in a log. Standard output is left to
results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], total: int, name: str) -> Iterator[Item]:
    """Yield the items and show progress. total: number of items; name: what an item is called, singular."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=name, file=sys.stderr)
        return
    step = max(1, total // 10)
    for number, item in enumerate(items, 1):
        yield item
        if number % step == 0 or number == total:
            print(f"{name} {number} of {total}", file=sys.stderr, flush=True)


class ProgressReporter:
    """Callback that shows the progress a library reports: steps done, steps in all, current activity."""

    def __init__(self, name: str) -> None:
        """name: prefix of every line."""
        self._name = name
        self._bar: Any = None
        self._shown = -1

    def __call__(self, done: int, steps: int, what: str) -> None:
        if sys.stderr.isatty():
            self._draw(done, steps, what)
            return
        tenth = 10 * done // max(steps, 1)
        if tenth != self._shown:
            self._shown = tenth
            print(f"{self._name}: {what} {done} of {steps}", file=sys.stderr, flush=True)

    def _draw(self, done: int, steps: int, what: str) -> None:
        from tqdm import tqdm

        if self._bar is None or self._bar.total != steps or done < self._bar.n:
            self._bar = tqdm(total=steps, desc=f"{self._name}: {what}", file=sys.stderr)
        self._bar.update(done - self._bar.n)
        if done >= steps:
            self._bar.close()
            self._bar = None
