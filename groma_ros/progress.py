"""Progress on standard error: a bar on a terminal, plain lines in a log. Standard output is for results."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")


def shown(items: Iterable[Item], total: int, name: str, done: int = 0) -> Iterator[Item]:
    """Yield the items and show progress. total: number of items, including `done` earlier ones that are not
    among them; name: of an item, singular."""
    if sys.stderr.isatty():
        with _bars() as progress:
            task = progress.add_task(name, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)
        return
    step = max(1, total // 10)
    for number, item in enumerate(items, done + 1):
        yield item
        if number % step == 0 or number == total:
            print(f"{name} {number} of {total}", file=sys.stderr, flush=True)


class ProgressReporter:
    """Callback for the progress reported by a library: steps done, total steps, current activity."""

    def __init__(self, name: str) -> None:
        """name: prefix of every line."""
        self._name = name
        self._bar: tuple[Progress, TaskID] | None = None
        self._tenth = -1  # progress when last printed

    def __call__(self, done: int, steps: int, what: str) -> None:
        if sys.stderr.isatty():
            self._draw(done, steps, f"{self._name}: {what}")
            return
        tenth = 10 * done // max(steps, 1)
        if tenth != self._tenth:
            self._tenth = tenth
            print(f"{self._name}: {what} {done} of {steps}", file=sys.stderr, flush=True)

    def _draw(self, done: int, steps: int, description: str) -> None:
        if self._bar is None:
            progress = _bars()
            progress.start()
            self._bar = progress, progress.add_task(description)
        progress, task = self._bar
        progress.update(task, completed=done, total=steps, description=description)
        if done >= steps:
            progress.stop()
            self._bar = None


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # rich prints other output above the bars, on its own stream; results redirected to a file stay there.
    return Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty())
