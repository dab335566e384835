"""The short form of the long run: half a minute, two cameras, goals, parameters and lifecycle changing."""

from __future__ import annotations

from pathlib import Path

from tests.node.soak import CAMERAS, soak


def test_half_a_minute_of_everything(domain: int, tmp_path: Path) -> None:
    result = soak(30.0, 15.0, 12.0, domain, tmp_path)
    assert result.problems == []
    assert result.cycles >= 1 and result.status == 0
    assert all(result.answered[name] > 20 for name in CAMERAS)
    # The long run is held to 2 % after its warm-up. Here the first lifecycle cycles still settle, by up to 40 MB, so only a leak of
    # frames (1 MB a second or more) would show.
    assert result.growth < 0.25
