"""What the node tells on /diagnostics, once a second."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from groma_ros.node.statistics import Snapshot

CAUSES = ("image", "depth", "goal", "ask", "ground")
"""What can be refused."""


@dataclass(frozen=True)
class Rates:
    """Images a second since the report before: in, and out with an answer."""

    received: float = 0.0
    answered: float = 0.0


class Meter:
    """Turns counts into rates."""

    def __init__(self) -> None:
        self._before: tuple[float, Snapshot] | None = None

    def rates(self, time: float, counts: Snapshot) -> Rates:
        """The rates since the last call; time: seconds of any steady clock."""
        before, self._before = self._before, (time, counts)
        if before is None or time <= before[0]:
            return Rates()
        passed = time - before[0]
        out, out_before = counts.answered + counts.carried, before[1].answered + before[1].carried
        return Rates((counts.received - before[1].received) / passed, (out - out_before) / passed)


def count_values(counts: Snapshot, rates: Rates) -> dict[str, object]:
    """Keys and values of counts: one key a fate, a cause of drops and of refusals, a stage."""
    return {
        "received": counts.received,
        "answered": counts.answered,
        "carried": counts.carried,
        "dropped": counts.dropped,
        "skipped": counts.skipped,
        **{f"dropped {cause}": count for cause, count in sorted(counts.drops.items())},
        **{f"refused {kind}s": counts.refusals(kind) for kind in CAUSES},
        **{f"refused {cause}": count for cause, count in sorted(counts.refused.items())},
        "rate in Hz": f"{rates.received:.1f}",
        "rate out Hz": f"{rates.answered:.1f}",
        **{f"median ms {stage}": f"{value:.1f}" for stage, value in counts.median_ms.items()},
    }


def status_message(name: str, level: bytes, summary: str, hardware: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """One status of /diagnostics; values become texts."""
    pairs: Sequence[KeyValue] = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=summary, hardware_id=hardware, values=pairs)


def memory_mb() -> float:
    """Resident memory of this process in MiB: now on Linux, its highest elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / (2**20 if sys.platform == "darwin" else 2**10)
