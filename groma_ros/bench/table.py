"""The report as lines to read."""

from __future__ import annotations

from typing import Any

_HEAD = ("stage", "median ms", "p95 ms", "share", "floor ms", "x floor")


def table(document: dict[str, Any]) -> str:
    """All parts that the document has."""
    lines = [*_machine(document["machine"]), ""]
    for row in document["rows"]:
        lines += [*_row(row), ""]
    lines += [_ratio(item) for item in document.get("ratios", [])]
    if document.get("claims"):
        lines += ["", *_claims(document["claims"])]
    return "\n".join(lines).rstrip()


def _machine(machine: dict[str, Any]) -> list[str]:
    c = machine["ceilings"]
    return [
        f"{machine['cpu']}, {machine['cores']} cores, threads: {machine['threads']}, memory: {machine['memory_mb']} MB, "
        f"GPU: {machine['gpu'] or 'none'}",
        f"at most {c['operations'] / 1e9:.0f} GFLOP/s and {c['bytes'] / 1e9:.1f} GB/s ({c['of']})",
        f"{machine['pictures']}; size: {machine['size']}; clock: {machine['clock']}",
    ]


def _row(row: dict[str, Any]) -> list[str]:
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
