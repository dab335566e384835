"""Data of a training run, from rendered scenes or files in published formats, and the texts in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from groma_ros.simulation.goal_generator import draw_goals
from groma_ros.simulation.more_goals import draw_more_goals
from groma_ros.simulation.wording import say
from groma_ros.simulation.worlds import words_of
from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.training.config import TrainConfig
from groma_ros.training.data_files import KINDS, FileSample, names_of, open_file
from groma_ros.training.detection import Names
from groma_ros.training.packing import called
from groma_ros.training.pool import Pictures, open_pool

_MOST = 1000  # pictures taken from one file


@dataclass(frozen=True, eq=False)
class Data:
    """Pictures of a training run."""

    pictures: Sequence[Pictures]
    """For training."""
    held_out: Sequence[Pictures] = ()
    """For evaluation; may be empty."""
    names: Names = field(default_factory=Names)
    """Classes of the auxiliary heads."""
    notes: tuple[str, ...] = ()
    """Sentences about boxes and goals of the files that are left out."""

    @property
    def mirrors(self) -> bool:
        """Whether every picture may be mirrored."""
        return all(one.mirrors for one in self.pictures)


def scenes_data(config: TrainConfig, out: Path, scenes: int = 0, shared: bool = False) -> Data:
    """Rendered scenes of a config; scenes: use only this many of each pool, 0 for all; shared: each pool
    occurs as often as its `share` says."""
    held_out = open_pool(out / "pool", [config.held_out]) if config.held_out else ()
    pool = [pool for pool in config.pool for _ in range(pool.share if shared else 1)]
    return Data(open_pool(out / "pool", pool, scenes), held_out)


def files_data(files: Sequence[Path], images: Path | None, held_out: Sequence[Path] = ()) -> Data:
    """Files in the formats of `data_files`. Raises TrainingDataError for one that cannot be used."""
    pictures, measured = ([open_file(path, images) for path in paths] for paths in (files, held_out))
    together = [*pictures, *measured]
    notes = tuple(one.note for one in together if one.note)
    return Data(pictures, measured, Names(kinds=names_of(together)), notes)


def corpus(pictures: Sequence[Pictures], template: PromptTemplate, said: bool = False) -> Iterator[str]:
    """Prompts and answers of pictures, with special tokens, for learning a vocabulary. said: also rephrase
    goals with `simulation.wording`."""
    rng = np.random.default_rng(0)
    find = template.wording("auto")
    for some in pictures:
        for index in range(min(_MOST, len(some.objects))):
            sample = some.sample(index)
            if isinstance(sample, FileSample):
                goals = [goal for kind in KINDS for goal in sample.draw(rng, 2, kind)]
            else:
                words = words_of(sample.world)
                goals = draw_goals(sample, rng, 2, words=words)
                if said:
                    more = draw_more_goals(sample, rng, 1, words=words)
                    goals = [say(goal, rng) for goal in (*goals, *goals, *more)]
            for goal in goals:
                yield find.replace("{}", goal.text)
            yield template.wording("describe")
            yield template.wording("caption")
            for thing in range(len(sample.objects)):
                name = called(sample, thing, rng)
                yield name
                yield f"<p>{name}</p><roi><r0></roi> "
