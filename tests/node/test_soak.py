"""The short form of the long run: half a minute, two cameras, goals, parameters and lifecycle changing."""

from __future__ import annotations

from pathlib import Path

from tests.node.soak import CAMERAS, Limits, soak


def test_half_a_minute_of_everything(domain: int, tmp_path: Path) -> None:
    # The long run is held to 2 % after its warm-up. Here the first lifecycle cycles still settle, by up to 40
    # MB, so only a leak of frames (1 MB a second or more) would show. 2 s to the end are for a machine where
    # nothing else runs.
    result = soak(30.0, 6.0, 11.0, domain, tmp_path, Limits(growth=0.25, ending=8.0))
    assert result.problems == []
    assert result.cycles >= 1
    assert all(result.answered[name] > 20 for name in CAMERAS)
