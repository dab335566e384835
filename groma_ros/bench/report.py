"""Convert samples to rows and ratios in JSON types."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from groma_ros.bench.child_process import About, Memory
from groma_ros.bench.claims import median_ratio, totals
from groma_ros.bench.floor import floors
from groma_ros.bench.machine import Ceilings
from groma_ros.bench.stages import STAGES, Sample
from groma_ros.network_config import GromaConfig

_HEAD = ("stage", "median ms", "p95 ms", "share", "floor ms", "x floor")


def table(document: dict[str, Any]) -> str:
    """Format the document as text."""
    lines = [*_machine(document["machine"]), ""]
    for row in document["rows"]:
        lines += [*_row_lines(row), ""]
    lines += [_ratio(item) for item in document.get("ratios", [])]
    if document.get("claims"):
        lines += ["", *_claims(document["claims"])]
    return "\n".join(lines).rstrip()


def _machine(machine: dict[str, Any]) -> list[str]:
    c = machine["ceilings"]
    return [
        f"{machine['cpu']}, {machine['cores']} cores, threads: {machine['threads']}, memory: "
        f"{machine['memory_mb']} MB, "
        f"GPU: {machine['gpu'] or 'none'}",
        f"at most {c['operations'] / 1e9:.0f} GFLOP/s and {c['bytes'] / 1e9:.1f} GB/s ({c['of']})",
        f"{machine['pictures']}; size: {machine['size']}; clock: {machine['clock']}",
    ]


def _row_lines(row: dict[str, Any]) -> list[str]:
    goals = "1 goal" if row["goals"] == 1 else f"{row['goals']} goals"
    memory = f"peak {row['peak_mb']} MB" + (f", GPU {row['gpu_mb']} MB" if "gpu_mb" in row else "")
    head = f"{row['backend']} {row['precision']} ({row['device']}), {goals}, {row['frames']} frames, {memory}"
    lines = [head, _cells(*_HEAD)]
    for name, stage in row["stages"].items():
        share = f"{stage['share']:.1%}" if "share" in stage else "apart"
        floor = stage.get("floor_ms")
        times = f"{stage['median_ms'] / floor:.1f}" if floor else ""
        lines.append(_cells(name, *_times(stage), share, "" if floor is None else f"{floor:.2f}", times))
    total = row["total"]
    floor = f"{total['floor_ms']:.2f}" if "floor_ms" in total else ""
    times = f"{total['times_floor']:.1f}" if "times_floor" in total else ""
    return [*lines, _cells("total", *_times(total), "100.0%", floor, times)]


def _times(stage: dict[str, Any]) -> tuple[str, str]:
    return f"{stage['median_ms']:.2f}", f"{stage['p95_ms']:.2f}"


def _cells(name: str, *cells: str) -> str:
    return (f"  {name:<16}" + "".join(f"{cell:>11}" for cell in cells)).rstrip()


def _ratio(item: dict[str, Any]) -> str:
    goals = "1 goal" if item["goals"] == 1 else f"{item['goals']} goals"
    return f"{item['fast']} is {item['times']:.2f}x faster than {item['slow']} with {goals}"


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'measured':>9}  {'wanted':<14}{'reached':<9}claim"]
    for item in claims:
        measured = "-" if item["measured"] is None else f"{item['measured']:.2f}"
        wanted = f"{'at least' if item['at_least'] else 'at most'} {item['wanted']:g}"
        reached = {None: "-", True: "yes", False: "no"}[item["reached"]]
        note = f" ({item['note']})" if item["note"] else ""
        lines.append(f"{measured:>9}  {wanted:<14}{reached:<9}{item['claim']}{note}")
    return lines


APART = "image decode"
"""The stage that is not part of the total."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of a variant."""

    about: About
    samples: Mapping[int, Sequence[Sample]]
    memory: Mapping[int, Memory]
    ceilings: Ceilings | None


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row for each number of goals.

    Every stage has `median_ms`, `p95_ms`, its `share` of the total (image decode is not part of it and has
    none) and, where operations and bytes are known, `floor_ms`. The total has the sum of the lower bounds and
    `times_floor`, the ratio of the stages that have one to that sum.
    """
    return [_row(measured, goals, samples) for goals, samples in measured.samples.items()]


def _row(measured: Measured, goals: int, samples: Sequence[Sample]) -> dict[str, Any]:
    floor = _floor(measured, samples)
    whole = sum(totals(samples))
    stages: dict[str, Any] = {}
    for name in STAGES:
        times = [sample.seconds.get(name, 0.0) for sample in samples]
        stages[name] = _spread(times)
        if name != APART:
            stages[name]["share"] = round(sum(times) / whole, 4)
        if name in floor:
            stages[name]["floor_ms"] = _milliseconds(floor[name])
    total = _spread(totals(samples))
    if floor:
        spent = mean(sum(sample.seconds.get(name, 0.0) for name in floor) for sample in samples)
        total |= {
            "floor_ms": _milliseconds(sum(floor.values())),
            "times_floor": round(spent / sum(floor.values()), 2),
        }
    about, memory = measured.about, measured.memory[goals]
    row = {
        "backend": about.backend,
        "precision": about.precision,
        "device": about.device,
        "goals": goals,
        "frames": len(samples),
    }
    row |= {"stages": stages, "total": total, "peak_mb": memory.peak, "counts": _counts(samples)}
    return row | ({} if memory.gpu is None else {"gpu_mb": memory.gpu})


def _floor(measured: Measured, samples: Sequence[Sample]) -> dict[str, float]:
    if measured.ceilings is None:
        return {}
    about = measured.about
    return floors(GromaConfig.from_dict(about.network), _counts(samples), measured.ceilings, about.precision)


def _counts(samples: Sequence[Sample]) -> dict[str, float]:
    names = ("regions", "prefix", "tail", "rows", "steps", "tokens")
    return {name: round(mean(sample.counts.get(name, 0) for sample in samples), 2) for name in names}


def _spread(seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "median_ms": _milliseconds(float(np.median(seconds))),
        "p95_ms": _milliseconds(float(np.percentile(seconds, 95))),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def ratios(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """For every pair of variants and number of goals, how many times faster the first is, as the median over
    rounds."""
    found = []
    for first, second in itertools.combinations(measured, 2):
        for goals in first.samples:
            times = median_ratio(totals(second.samples[goals]), totals(first.samples[goals]))
            found.append(
                {
                    "goals": goals,
                    "fast": first.about.name,
                    "slow": second.about.name,
                    "times": round(times, 3),
                }
            )
    return found
