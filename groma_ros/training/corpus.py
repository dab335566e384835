"""Every text the tiny network meets, to learn a vocabulary from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from groma_ros.prompts import TINY_TEMPLATE
from groma_ros.simulation.goals import draw_goals
from groma_ros.training.packing import phrase
from groma_ros.training.pool import Shard


def corpus(shards: list[Shard]) -> Iterator[str]:
    """Prompts and answers of all scenes of some shards, special tokens included."""
    rng = np.random.default_rng(0)
    find = TINY_TEMPLATE.wording("auto")
    for shard in shards:
        for index in range(len(shard.objects)):
            sample = shard.sample(index)
            for goal in draw_goals(sample, rng, 2):
                yield find.replace("{}", goal.text)
            yield TINY_TEMPLATE.wording("describe")
            yield TINY_TEMPLATE.wording("caption")
            for thing in sample.objects:
                yield phrase(thing)
                yield f"<p>{phrase(thing)}</p><roi><r0></roi> "
