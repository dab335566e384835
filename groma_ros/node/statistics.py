"""Counts and timings of the node, safe to update from any thread."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

WINDOW = 100
"""Number of answers over which latency medians are computed."""


@dataclass(frozen=True)
class Snapshot:
    """Counts at one moment.

    Every received image is answered, carried, dropped, skipped, refused or in progress; perceived images and
    refused requests are counted independently.
    """

    received: int = 0
    answered: int = 0
    """Images whose 2D answers were computed from the regions perceived in them."""
    carried: int = 0
    """Images whose 2D answers were published by motion alone, because a newer image arrived. Those already
    being processed are also perceived and get all other outputs."""
    skipped: int = 0
    """Images whose answers had no subscriber."""
    perceived: int = 0
    """Images in which regions were found."""
    drops: Mapping[str, int] = field(default_factory=dict)
    """Dropped images by cause."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Refused images and requests by "image: cause", "goal: cause" etc."""
    median_ms: Mapping[str, float] = field(default_factory=dict)
    """Median milliseconds of each stage over the newest images."""

    @property
    def dropped(self) -> int:
        """Number of dropped images, all causes."""
        return sum(self.drops.values())

    def refusals(self, kind: str) -> int:
        """Number of refusals of a kind: "image", "goal" etc."""
        return sum(count for cause, count in self.refused.items() if cause.startswith(f"{kind}: "))


class Statistics:
    """Counters shared by callbacks and threads. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}

    def received(self) -> None:
        """Count a received image."""
        self._count("received")

    def skipped(self) -> None:
        """Count an image whose answers have no subscriber."""
        self._count("skipped")

    def carried(self) -> None:
        """Count an image whose 2D answers were published by motion alone."""
        self._count("carried")

    def perceived(self) -> None:
        """Count a perceived image."""
        self._count("perceived")

    def dropped(self, cause: str) -> None:
        """Count an image that was dropped before being processed."""
        with self._lock:
            self._drops[cause] += 1

    def refused(self, kind: str, cause: str) -> None:
        """Count a refused image, goal or other message. kind: "image", "goal" etc."""
        with self._lock:
            self._refused[f"{kind}: {cause}"] += 1

    def answered(self, seconds: Mapping[str, float]) -> None:
        """Count an answered image; seconds: duration of each stage."""
        self._count("answered")
        self.took(seconds)

    def took(self, seconds: Mapping[str, float]) -> None:
        """Record the duration of stages, seconds."""
        with self._lock:
            for stage, value in seconds.items():
                self._latencies.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def snapshot(self) -> Snapshot:
        """Return all counts at one moment."""
        return total([self])

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _add(
        self,
        counts: Counter[str],
        drops: Counter[str],
        refused: Counter[str],
        latencies: dict[str, list[float]],
    ) -> None:
        with self._lock:
            counts.update(self._counts)
            drops.update(self._drops)
            refused.update(self._refused)
            for stage, values in self._latencies.items():
                latencies.setdefault(stage, []).extend(values)


def total(parts: Sequence[Statistics]) -> Snapshot:
    """Sum of several statistics."""
    counts, drops, refused = Counter[str](), Counter[str](), Counter[str]()
    latencies: dict[str, list[float]] = {}
    for part in parts:
        part._add(counts, drops, refused, latencies)
    medians = {stage: 1000 * median(values) for stage, values in latencies.items()}
    fates = {fate: counts[fate] for fate in ("received", "answered", "carried", "skipped", "perceived")}
    return Snapshot(**fates, drops=dict(drops), refused=dict(refused), median_ms=medians)
