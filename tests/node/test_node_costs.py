"""The short form of the table of costs: a small image with depth through node and pipeline."""

from __future__ import annotations

from pathlib import Path

from tests.node.node_costs import measure


def test_node_and_pipeline_are_measured_on_the_same_images(domain: int, tmp_path: Path) -> None:
    (row,) = measure(["320x240"], [1], 8, domain, tmp_path / "log.txt", depths=(True,))
    assert (row.size, row.goals, row.depth, row.images, row.boxes) == ("320x240", 1, True, 8, 1)
    # The node does all that the pipeline does; ticks of 10 ms and other load blur how much more.
    assert row.bare_ms > 1 and 0.5 * row.bare_ms < row.node_ms < 3 * row.bare_ms + 30, row
    assert 0 <= row.idle < 0.15, row
