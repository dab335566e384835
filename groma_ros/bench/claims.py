"""What the project claims about its speed, held against what was measured in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TypeVar

from groma_ros.bench.stages import ANSWER_TOKENS, Sample, TimedGrounder
from groma_ros.bench.workload import SINGLE
from groma_ros.timing import now
from groma_ros.types import Frame, Goal, Scene

T = TypeVar("T")
FREE_TOKENS = 32
"""The longest free answer of a trained model. One with random weights never ends; it gets the tokens of a
region answer."""


@dataclass(frozen=True)
class Paths:
    """Seconds of the same goals on one scene. one_step and generated: one goal on a cached prefix; shared:
    four goals, prefix included; anew: the four one by one, the whole prompt again for each, free generation
    of `tokens` in all. same: the generated answers that name the region the one step names, of how many.
    """

    one_step: float
    generated: float
    shared: float
    anew: float
    tokens: int
    same: int
    of: int


@dataclass(frozen=True)
class Claim:
    """One line of the table. measured: None where it could not be, and note says why; at_least: the wanted
    bound is a lower one."""

    claim: str
    wanted: float
    at_least: bool
    measured: float | None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def document(self) -> dict[str, object]:
        """Plain types."""
        measured = None if self.measured is None else round(self.measured, 3)
        return {**asdict(self), "measured": measured, "reached": self.reached}


def measure_paths(grounder: TimedGrounder, frame: Frame, trained: bool) -> Paths:
    """Every way over the same goals, one region each, on one scene. trained: the model can name what it sees,
    so that is asked for."""
    scene = grounder.perceive(frame)
    goals = _goals(grounder, scene) if trained else list(SINGLE)
    limit = FREE_TOKENS if trained else ANSWER_TOKENS
    one_step = generated = anew = 0.0
    tokens = same = 0
    for goal in goals:
        grounder.warm(scene)
        seconds, answers = _timed(partial(grounder.answers, scene, [goal]))
        one_step += seconds
        seconds, written = _timed(partial(grounder.generate, scene, goal))
        generated += seconds
        same += grounder.region_token(answers[0]) in written
        seconds, count = grounder.generate_anew(scene, goal, limit)
        anew += seconds
        tokens += count
    grounder.forget()
    shared, _ = _timed(partial(grounder.answers, scene, goals))
    return Paths(one_step / len(goals), generated / len(goals), shared, anew, tokens, same, len(goals))


def _goals(grounder: TimedGrounder, scene: Scene) -> list[Goal]:
    """As many goals as `SINGLE` has, about things the model says are there, so that there is a region to
    answer with."""
    regions = [index % len(scene.boxes) for index in range(len(SINGLE))]
    texts = grounder.describe(scene, regions) if grounder.can("describe") else [""] * len(regions)
    return [_said(grounder, text, other) for text, other in zip(texts, SINGLE, strict=True)]


def _said(grounder: TimedGrounder, text: str, other: Goal) -> Goal:
    """What the model said as a goal, or the other where it said nothing that can be asked."""
    goal = Goal(text.strip(), "one")
    try:
        grounder.check(goal)
    except ValueError:
        return other
    return goal


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    begin = now()
    result = call()
    return now() - begin, result


def judge(
    paths: Sequence[Paths],
    samples: Mapping[str, Mapping[int, Sequence[Sample]]],
    default: str,
    exact: str | None,
    eager: str | None,
) -> list[Claim]:
    """The table. samples: by name of variant, then by goals, one a round; default, exact and eager: the names
    of the shipped default, of ONNX in fp32 and of PyTorch in fp32, None for one that was not measured. All
    ratios are medians over rounds.
    """
    ours = samples[default]
    same, of, tokens = (sum(values) for values in zip(*((item.same, item.of, item.tokens) for item in paths)))
    return [
        Claim(
            "one-step answer: times faster than greedy generation on the same cached prefix",
            2.5,
            True,
            median_ratio([item.generated for item in paths], [item.one_step for item in paths]),
            f"{same} of {of} name the same region",
        ),
        Claim(
            "four goals on one prefix: times faster than the whole prompt and free generation for each",
            5.0,
            True,
            median_ratio([item.anew for item in paths], [item.shared for item in paths]),
            f"language model alone; free answers of {tokens / of:.1f} tokens",
        ),
        Claim(
            "ten goals of mixed kinds: times the time of one",
            1.5,
            False,
            median_ratio(totals(ours[10]), totals(ours[1])),
        ),
        Claim(
            "selection and bookkeeping: share of the total with one goal",
            0.1,
            False,
            _idle_share(ours[1]),
            "decode and resize apart",
        ),
        _faster(
            f"default ({default}): times faster than eager torch fp32, one goal", 2.0, samples, default, eager
        ),
        _faster("ONNX fp32: times faster than eager torch fp32, one goal", 1.2, samples, exact, eager),
    ]


def _faster(
    claim: str,
    wanted: float,
    samples: Mapping[str, Mapping[int, Sequence[Sample]]],
    fast: str | None,
    slow: str | None,
) -> Claim:
    if fast is None or slow is None:
        missing = "ONNX in fp32" if slow else "PyTorch in fp32"
        return Claim(claim, wanted, True, None, f"not measured: {missing} did not run beside it")
    return Claim(claim, wanted, True, median_ratio(totals(samples[slow][1]), totals(samples[fast][1])))


def totals(samples: Sequence[Sample]) -> list[float]:
    """Seconds of the total of each."""
    return [sample.seconds["total"] for sample in samples]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of each round, whose two parts ran one behind the other."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def _idle_share(samples: Sequence[Sample]) -> float:
    return statistics.median(
        (s.seconds["select"] + s.seconds["bookkeeping"]) / s.seconds["total"] for s in samples
    )
