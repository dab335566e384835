"""Every text the tiny network meets, to learn a vocabulary from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from groma_ros.simulation.goal_generator import draw_goals
from groma_ros.simulation.more_goals import draw_more_goals
from groma_ros.simulation.wording import say
from groma_ros.simulation.worlds import words_of
from groma_ros.tokenization.prompts import PromptTemplate
from groma_ros.training.data_files import KINDS, FileSample
from groma_ros.training.packing import called
from groma_ros.training.pool import Pictures

_MOST = 1000  # pictures of one file


def corpus(pictures: Sequence[Pictures], template: PromptTemplate, said: bool = False) -> Iterator[str]:
    """Prompts and answers of some pictures, special tokens included. said: goals also as
    `simulation.wording` words them."""
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
