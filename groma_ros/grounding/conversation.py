"""Conversations about one image: questions that refer to regions, answers, and the turns that fit the model's
context."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import numpy as np

from groma_ros.boxes import box_iou
from groma_ros.grounding.decoding import Written
from groma_ros.tokenization.prompts import REGION_REFERENCE, Answer
from groma_ros.tokenization.tokenizer import GromaTokenizer, Text
from groma_ros.types import FloatArray, Scene, TextSpan


def mention_scores(tokenizer: GromaTokenizer, written: Written) -> dict[int, float]:
    """For every region mentioned in a free answer, the highest probability with which it was chosen."""
    scores: dict[int, float] = {}
    for token, chance in zip(written.ids, written.chances, strict=True):
        region = tokenizer.region_index(token)
        if region is not None:
            scores[region] = max(chance, scores.get(region, 0.0))
    return scores


def text_spans(answer: Answer) -> tuple[TextSpan, ...]:
    """The phrases of an answer with the regions each one refers to."""
    return tuple(TextSpan(answer.phrase(span), span.start, span.end, span.regions) for span in answer.spans)


_PLACE = re.compile(r"\{(\d+)\}")
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    ids: tuple[int, ...]
    """Token ids of both, as in the prompt."""
    referred: tuple[int, ...] = ()
    """Region of each placeholder in `ids`, in order."""


@dataclass(frozen=True, eq=False)
class Conversation:
    """The turns about one scene, oldest first."""

    base: Scene
    """The scene as it was perceived."""
    scene: Scene
    """The scene with the user's regions added to its own."""
    regions: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """float32 Mx4 xyxy: all boxes the user has given so far, camera pixels."""
    turns: tuple[Turn, ...] = ()

    @classmethod
    def about(cls, scene: Scene) -> Conversation:
        """Start a conversation about a scene."""
        return cls(scene, scene)

    def joined(
        self,
        boxes: FloatArray,
        refer: Callable[[Scene, FloatArray], tuple[Scene, list[int]]],
        tokenizer: GromaTokenizer,
    ) -> tuple[Conversation, list[int]]:
        """Add the user's boxes (Mx4) to the regions. Returns the conversation and the region of each box;
        references of earlier turns are renumbered.

        refer: `Grounder.refer`.
        """
        regions = np.concatenate([self.regions, np.asarray(boxes, np.float32)])
        scene, own = refer(self.base, regions)
        places = (
            [int(best) for best in box_iou(self.scene.boxes, scene.boxes).argmax(1)] if self.turns else []
        )
        turns = tuple(_moved(turn, places, tokenizer) for turn in self.turns)
        return Conversation(self.base, scene, regions, turns), own[len(self.regions) :]

    def fitting(self, positions: int) -> Conversation:
        """Drop the oldest turns until the rest fits into a number of positions."""
        turns = list(self.turns)
        while turns and sum(len(turn.ids) for turn in turns) > positions:
            turns.pop(0)
        return replace(self, turns=tuple(turns))

    def with_turn(self, turn: Turn) -> Conversation:
        """The conversation with one more turn."""
        return replace(self, turns=(*self.turns, turn))


def referring(text: str, count: int) -> tuple[tuple[Text, ...], tuple[int, ...]]:
    """Split a question about `count` regions into parts of a prompt. Returns the parts and the region (from
    0) of each reference in them.

    `{1}` refers to the first region, `{2}` to the second; a text without references gets all of them first,
    in order. If count is 0, every character is plain text. Raises ValueError if a number has no region, or a
    region is not referred to.
    """
    if not count:
        return (Text(text.strip()),), ()
    pieces = _PLACE.split(text.strip())
    words, numbers = pieces[::2], tuple(int(number) - 1 for number in pieces[1::2])
    if not numbers:
        return (*[Text(REGION_REFERENCE + " ", True)] * count, Text(text.strip())), tuple(range(count))
    wrong = next((number for number in numbers if not 0 <= number < count), None)
    if wrong is not None:
        raise ValueError(f"The question names region {{{wrong + 1}}}, and it has {count} regions.")
    left = next((number for number in range(count) if number not in numbers), None)
    if left is not None:
        raise ValueError(f"The question does not name region {{{left + 1}}}, though it names others.")
    parts = [Text(words[0])]
    for word in words[1:]:
        parts += [Text(REGION_REFERENCE, True), Text(word)]
    return tuple(parts), numbers


class Sessions(Generic[T]):
    """Values by name, limited in number; the least recently used is dropped. Not thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> T | None:
        """Return the value of a name and mark it as used; None if it is unknown or was dropped."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def keep(self, name: str, kept: T, most: int) -> None:
        """Store a value, then drop the least recently used until at most `most` are left."""
        self._kept[name] = kept
        self._kept.move_to_end(name)
        while len(self._kept) > most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop all values."""
        self._kept.clear()


def _moved(turn: Turn, places: Sequence[int], tokenizer: GromaTokenizer) -> Turn:
    ids = []
    for token in turn.ids:
        region = tokenizer.region_index(token)
        ids.append(token if region is None or region >= len(places) else tokenizer.region_id(places[region]))
    return Turn(tuple(ids), tuple(places[region] for region in turn.referred))
