"""Time every stage of a frame, in the pipeline that runs in the node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from groma_ros.grounding.decoding import RegionAnswer, write
from groma_ros.grounding.grounder import Grounder
from groma_ros.runtime.interfaces import LanguageModel, VisionTokenizer
from groma_ros.timing import Marks, listening, now
from groma_ros.types import FloatArray, Frame, Goal, IntArray, Scene

T = TypeVar("T")
ANSWER_TOKENS = 4  # <roi> <rK> </roi> </s>
STAGES = (
    "image decode",
    "resize",
    "perceive",
    "select",
    "encode regions",
    "prefill",
    "goals",
    "decode",
    "bookkeeping",
)
"""In order. image decode is JPEG to pixels and is not part of the total, which is the duration of
`Grounder.ground`; decode is the language model's, one token per row each time; bookkeeping is the rest of the
total: prompts, token ids, answers."""


@dataclass
class Sample:
    """One frame."""

    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))
    """By stage, and `total`."""
    counts: defaultdict[str, int] = field(default_factory=partial(defaultdict, int))
    """Sizes of the work: regions, tokens of the prefix, tokens of all tails, rows (goals), decoding steps,
    and tokens decoded in them."""


class Clock:
    """Collects the sample of the current frame."""

    def __init__(self) -> None:
        self.sample = Sample()

    def time(self, name: str, call: Callable[[], T]) -> T:
        """Call a function and add its duration to a stage. Returns its result."""
        begin = now()
        result = call()
        self.sample.seconds[name] += now() - begin
        return result

    def see(self, call: Callable[[], Scene]) -> Scene:
        """Run a vision pass, split into the stages that all backends have in common."""
        begin = now()
        with listening() as marks:
            scene = call()
        self._split(marks, begin, now())
        self.sample.counts["regions"] += len(scene.boxes)
        return scene

    def _split(self, marks: Marks, begin: float, end: float) -> None:
        seconds = self.sample.seconds
        resized = marks.get("resize", (begin, begin))
        select = marks.get("select", (end, end))
        seconds["resize"] += resized[1] - resized[0]
        if "resize" in marks:
            seconds["perceive"] += select[0] - resized[1]
        seconds["select"] += select[1] - select[0]
        seconds["encode regions"] += marks.get("scene", (end, end))[0] - select[1]


class TimedVision:
    """VisionTokenizer that reports to a clock."""

    def __init__(self, vision: VisionTokenizer, clock: Clock) -> None:
        self._vision, self._clock = vision, clock

    def encode(self, frame: Frame) -> Scene:
        """See `VisionTokenizer.encode`."""
        return self._clock.see(lambda: self._vision.encode(frame))

    def refer(self, scene: Scene, boxes: FloatArray) -> Scene:
        """See `VisionTokenizer.refer`."""
        return self._clock.see(lambda: self._vision.refer(scene, boxes))


class TimedLanguage:
    """LanguageModel that reports to a clock."""

    def __init__(self, language: LanguageModel, clock: Clock) -> None:
        self._language, self._clock = language, clock
        self.width, self.context = language.width, language.context
        self.base_vocabulary, self.vocabulary = language.base_vocabulary, language.vocabulary

    def embed(self, ids: IntArray) -> FloatArray:
        """See `LanguageModel.embed`; timed as bookkeeping."""
        return self._language.embed(ids)

    def prefill(self, embeddings: FloatArray) -> Any:
        """See `LanguageModel.prefill`."""
        self._clock.sample.counts["prefix"] += len(embeddings)
        return self._clock.time("prefill", lambda: self._language.prefill(embeddings))

    def branch(self, prefix: Any, tails: Sequence[FloatArray]) -> tuple[Any, FloatArray]:
        """See `LanguageModel.branch`."""
        self._clock.sample.counts["tail"] += sum(map(len, tails))
        self._clock.sample.counts["rows"] += len(tails)
        return self._clock.time("goals", lambda: self._language.branch(prefix, tails))

    def append(self, branches: Any, rows: Sequence[int], tokens: Sequence[int]) -> FloatArray:
        """See `LanguageModel.append`."""
        self._clock.sample.counts["steps"] += 1
        self._clock.sample.counts["tokens"] += len(rows)
        return self._clock.time("decode", lambda: self._language.append(branches, rows, tokens))

    def release(self, prefix: Any) -> None:
        """See `LanguageModel.release`."""
        self._language.release(prefix)


class TimedGrounder(Grounder):
    """A Grounder whose stages are timed, and that can also answer in the slow ways used for comparison with
    the claims."""

    def __init__(self, vision: VisionTokenizer, language: LanguageModel, *args: Any, **kwargs: Any) -> None:
        self.clock = Clock()
        super().__init__(
            TimedVision(vision, self.clock), TimedLanguage(language, self.clock), *args, **kwargs
        )

    def measure(self, decode: Callable[[], Frame], goals: Sequence[Goal]) -> Sample:
        """Answer goals about a frame that `decode` decodes from a picture file."""
        self.clock.sample = sample = Sample()
        frame = self.clock.time("image decode", decode)
        begin = now()
        self.ground(frame, goals)
        total = now() - begin
        inside = sum(value for name, value in sample.seconds.items() if name != "image decode")
        sample.seconds["bookkeeping"] = total - inside
        sample.seconds["total"] = total
        self.clock.sample = Sample()  # calls between two frames belong to neither
        return sample

    def warm(self, scene: Scene) -> None:
        """Prefill the scene's prefix unless it is cached."""
        self._prefix(scene, 1)

    def forget(self) -> None:
        """Drop the cached prefix, so that the next goal prefills again."""
        if self._cached_prefix is not None:
            self._language.release(self._cached_prefix[1])
            self._cached_prefix = None

    def generate(self, scene: Scene, goal: Goal) -> tuple[int, ...]:
        """Generate a region answer greedily on the cached prefix, token by token, from its opening to
        `ANSWER_TOKENS`.

        The opening is forced, so that the answer equals the one read in one step.
        """
        tail = self._embed(self._open_ids(goal), scene)
        prefix = self._prefix(scene, len(tail) + ANSWER_TOKENS)
        branches, logits = self._language.branch(prefix, [tail])
        written = self._tokenizer.encode_template(self._template.answer_prefix)
        for token in written:
            logits = self._language.append(branches, [0], [token])
        while len(written) < ANSWER_TOKENS:
            written.append(int(logits[0].argmax()))
            if written[-1] == self._tokenizer.eos_id:
                break
            if len(written) < ANSWER_TOKENS:
                logits = self._language.append(branches, [0], [written[-1]])
        return tuple(written)

    def generate_anew(self, scene: Scene, goal: Goal, limit: int) -> tuple[float, int]:
        """Answer as the original does: read the whole prompt and generate at most `limit` tokens freely.
        Returns seconds and tokens.

        The first token is read outside the timed part, because a prefix cannot be empty.
        """
        prompt = self._embed([*self._prefix_ids, *self._open_ids(goal)], scene)
        limit = min(limit, self._language.context - len(prompt))
        first = self._language.prefill(prompt[:1])
        begin = now()
        written = write(self._language, first, [prompt[1:]], self._tokenizer.eos_id, limit)[0].ids
        seconds = now() - begin
        self._language.release(first)
        return seconds, len(written)

    def region_token(self, answer: RegionAnswer) -> int | None:
        """The first region token of an answer; None if there is none."""
        return self._tokenizer.region_id(answer.regions[0]) if answer.regions else None

    def _open_ids(self, goal: Goal) -> tuple[int, ...]:
        """The goal's ids without the opening of the answer."""
        ids = self._goal_ids(goal)
        return ids[: len(ids) - len(self._tokenizer.encode_template(self._template.answer_prefix))]
