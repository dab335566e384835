"""Rows, ratios and claims of a benchmark report, against values computed by hand."""

from collections import defaultdict

import pytest

from groma_ros.bench.child_process import About, Memory
from groma_ros.bench.claims import Claim, Paths, judge, median_ratio
from groma_ros.bench.floor import floors
from groma_ros.bench.machine import Ceilings
from groma_ros.bench.report import Measured, ratios, rows, table
from groma_ros.bench.stages import Sample
from groma_ros.network_config import GromaConfig
from tests.small import NETWORK

COUNTS = {"regions": 10, "prefix": 40, "tail": 9, "rows": 1, "steps": 1, "tokens": 1}
CEILINGS = Ceilings(1e9, 1e9, "by hand")


def sample(total: float, select: float = 0.0, **counts: int) -> Sample:
    seconds = {"image decode": 0.5, "resize": 0.1, "select": select, "bookkeeping": 0.02, "total": total}
    seconds["perceive"] = total - sum(seconds[name] for name in ("resize", "select", "bookkeeping"))
    return Sample(defaultdict(float, seconds), defaultdict(int, {**COUNTS, **counts}))


def measured(name: str, *totals: float, goals: int = 1) -> Measured:
    samples = [sample(total) for total in totals]
    return Measured(
        About(name, "fp32", "cpu", NETWORK), {goals: samples}, {goals: Memory(120, None)}, CEILINGS
    )


def test_a_row() -> None:
    (row,) = rows(measured("onnx", 1.0, 2.0, 6.0))
    assert (row["backend"], row["precision"], row["goals"], row["peak_mb"]) == (
        "onnx",
        "fp32",
        1,
        120,
    ) and "gpu_mb" not in row
    assert row["total"]["median_ms"] == 2000 and row["total"]["p95_ms"] == pytest.approx(5600)
    assert (
        row["stages"]["resize"]["share"] == pytest.approx(0.3 / 9, abs=1e-4)
        and "share" not in row["stages"]["image decode"]
    )
    assert row["stages"]["perceive"]["median_ms"] == pytest.approx(1880)
    floor = floors(GromaConfig.from_dict(NETWORK), COUNTS, CEILINGS, "fp32")
    assert row["stages"]["perceive"]["floor_ms"] == pytest.approx(floor["perceive"] * 1000, abs=1e-3)
    assert row["total"]["floor_ms"] == pytest.approx(sum(floor.values()) * 1000, abs=1e-3)
    assert row["total"]["times_floor"] == pytest.approx((9.0 - 0.06) / 3 / sum(floor.values()), abs=0.01)


def test_a_row_on_a_gpu_without_ceilings() -> None:
    about = About("onnx", "fp16", "cuda", NETWORK)
    (row,) = rows(Measured(about, {1: [sample(1.0)]}, {1: Memory(120, 900)}, None))
    assert row["gpu_mb"] == 900 and "floor_ms" not in row["total"]


def test_a_ratio_is_the_median_over_rounds() -> None:
    """A burst of noise in one round, which hits both, changes nothing."""
    fast, slow = measured("onnx", 1.0, 10.0, 1.0), measured("torch", 2.0, 20.0, 3.0)
    assert ratios([fast, slow]) == [{"goals": 1, "fast": "onnx fp32", "slow": "torch fp32", "times": 2.0}]
    assert median_ratio([4.0, 9.0], [2.0, 3.0]) == 2.5
    with pytest.raises(ValueError):
        median_ratio([1.0], [1.0, 2.0])


def test_the_claims() -> None:
    paths = [Paths(1.0, 3.0, 2.0, 12.0, 16, 4, 4), Paths(1.0, 2.0, 2.0, 8.0, 12, 3, 4)]
    samples = {
        "onnx int8": {1: [sample(1.0, select=0.03)], 10: [sample(1.6)]},
        "onnx fp32": {1: [sample(1.5)], 10: [sample(2.0)]},
        "torch fp32": {1: [sample(3.0)], 10: [sample(4.0)]},
    }
    found = judge(paths, samples, "onnx int8", "onnx fp32", "torch fp32")
    assert [claim.measured for claim in found] == pytest.approx([2.5, 5.0, 1.6, 0.05, 3.0, 2.0])
    assert [claim.reached for claim in found] == [True, True, False, True, True, True]
    assert "7 of 8 name the same region" in found[0].note and "answers of 3.5 tokens" in found[1].note
    lines = table(
        {"machine": MACHINE, "rows": [], "claims": [claim.document() for claim in found]}
    ).splitlines()
    assert [line.split()[:5] for line in lines[-4:-2]] == [
        ["1.60", "at", "most", "1.5", "no"],
        ["0.05", "at", "most", "0.1", "yes"],
    ]


MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "threads": 2,
    "memory_mb": 100,
    "gpu": None,
    "size": "tiny",
    "clock": "wall",
    "pictures": "none",
    "ceilings": {"operations": 1e9, "bytes": 1e9, "of": "by hand"},
}


def test_what_was_not_measured_is_said() -> None:
    samples = {"onnx int8": {1: [sample(1.0)], 10: [sample(1.6)]}}
    *_, default, exact = judge([Paths(1, 3, 2, 12, 4, 4, 4)], samples, "onnx int8", None, None)
    assert (
        default.measured is None
        and default.reached is None
        and default.note == "not measured: PyTorch in fp32 did not run beside it"
    )
    assert exact.document()["measured"] is None
    *_, exact = judge(
        [Paths(1, 3, 2, 12, 4, 4, 4)],
        {**samples, "torch fp32": samples["onnx int8"]},
        "onnx int8",
        None,
        "torch fp32",
    )
    assert exact.note == "not measured: ONNX in fp32 did not run beside it"


def test_a_bound_is_reached_on_the_bound() -> None:
    assert Claim("", 2.0, True, 2.0).reached and Claim("", 2.0, False, 2.0).reached
    assert not Claim("", 2.0, True, 1.99).reached and not Claim("", 2.0, False, 2.01).reached
