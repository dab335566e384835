"""Bundles after a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

from groma_ros.runtime.bundle import WEIGHTS, Bundle
from groma_ros.training.run import add_table


def test_the_accuracy_table_goes_into_the_manifest_and_nothing_else_changes(
    small_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_model, tmp_path / "copy"))
    before = Bundle.load(folder)
    add_table(folder, {"scenes": 500, "recall": 0.97})
    after = Bundle.load(folder)
    assert after.test == {"scenes": 500, "recall": 0.97} and before.test == {}
    assert (after.network, after.prompt, after.image, after.seeds) == (
        before.network,
        before.prompt,
        before.image,
        before.seeds,
    )
    assert (folder / WEIGHTS).read_bytes() == (small_model / WEIGHTS).read_bytes()
