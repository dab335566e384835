"""What a run learns from and is measured on: rendered scenes, or files in published forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from groma_ros.training.config import TrainConfig
from groma_ros.training.data_files import names_of, open_file
from groma_ros.training.detection import Names
from groma_ros.training.pool import Pictures, open_pool


@dataclass(frozen=True, eq=False)
class Data:
    """pictures: to learn from; held_out: to measure on, maybe none; names: what the auxiliary heads tell
    apart."""

    pictures: Sequence[Pictures]
    held_out: Sequence[Pictures] = ()
    names: Names = field(default_factory=Names)

    @property
    def mirrors(self) -> bool:
        """Whether every picture may be mirrored."""
        return all(one.mirrors for one in self.pictures)


def scenes_data(config: TrainConfig, out: Path, scenes: int = 0) -> Data:
    """The rendered scenes of a config, of every pool the first `scenes` (0: all)."""
    held_out = open_pool(out / "pool", [config.held_out]) if config.held_out else ()
    return Data(open_pool(out / "pool", config.pool, scenes), held_out)


def files_data(files: Sequence[Path], images: Path | None, held_out: Sequence[Path] = ()) -> Data:
    """Files in the forms of `data_files`. Raises TrainingDataError for one that cannot be used."""
    pictures, measured = ([open_file(path, images) for path in paths] for paths in (files, held_out))
    return Data(pictures, measured, Names(kinds=names_of([*pictures, *measured])))
