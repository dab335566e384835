"""Compare the project's speed claims with the measurements of one run."""

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
"""Maximum length of a trained model's free answer. Random weights never end an answer; they are limited to
the length of a region answer."""


@dataclass(frozen=True)
class Paths:
    """Durations in seconds of the same goals on one scene, answered in different ways."""

    one_step: float
    """One goal on a cached prefix, read in one step."""
    generated: float
    """One goal on a cached prefix, answered in one step."""
    shared: float
    """Four goals on one prefix, including the prefix."""
    anew: float
    """The four goals one by one, each with the whole prompt and free generation."""
    tokens: int
    """Total number of tokens generated for `anew`."""
    same: int
    """Generated answers that name the same region as the one-step answer, out of `of`."""
    of: int


@dataclass(frozen=True)
class Claim:
    """One row of the table."""

    claim: str
    wanted: float
    """Bound; a lower bound if at_least."""
    at_least: bool
    measured: float | None
    """None if it could not be measured; `note` says why."""
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the bound is met; None if nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def document(self) -> dict[str, object]:
        """The row in JSON types."""
        measured = None if self.measured is None else round(self.measured, 3)
        return {**asdict(self), "measured": measured, "reached": self.reached}


def measure_paths(grounder: TimedGrounder, frame: Frame, trained: bool) -> Paths:
    """Answer the same single-region goals on one scene in every way. trained: the model can name what it
    sees, so use goals about objects it describes."""
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
    """Return as many goals as `SINGLE` has, about objects the model describes, so that each has a region."""
    regions = [index % len(scene.boxes) for index in range(len(SINGLE))]
    texts = grounder.describe(scene, regions) if grounder.can("describe") else [""] * len(regions)
    return [_as_goal(grounder, text, other) for text, other in zip(texts, SINGLE, strict=True)]


def _as_goal(grounder: TimedGrounder, text: str, other: Goal) -> Goal:
    """The model's description as a goal, or `other` if it is not a valid goal."""
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
    """Evaluate all claims.

    samples: by variant name, then by number of goals, one for each round; default, exact, eager: names of the
    shipped default, of ONNX fp32 and of PyTorch fp32, None if not measured. All ratios are medians over
    rounds.
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
    """Total seconds of each sample."""
    return [sample.seconds["total"] for sample in samples]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios of each round, whose two parts ran in succession."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def _idle_share(samples: Sequence[Sample]) -> float:
    return statistics.median(
        (s.seconds["select"] + s.seconds["bookkeeping"]) / s.seconds["total"] for s in samples
    )
