"""What was said about one image: questions that name regions, their answers, and how much of it the next
question still sees."""

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
    """For every region named in a free answer the highest probability with which it was named."""
    scores: dict[int, float] = {}
    for token, chance in zip(written.ids, written.chances, strict=True):
        region = tokenizer.region_index(token)
        if region is not None:
            scores[region] = max(chance, scores.get(region, 0.0))
    return scores


def text_spans(answer: Answer) -> tuple[TextSpan, ...]:
    """The answer's phrases with the regions each one points at."""
    return tuple(TextSpan(answer.phrase(span), span.start, span.end, span.regions) for span in answer.spans)


_PLACE = re.compile(r"\{(\d+)\}")
T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """A question and its answer. ids: token ids of both, as they stand in the prompt; referred: the region of
    each of their placeholders, in order."""

    ids: tuple[int, ...]
    referred: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Conversation:
    """Turns about one scene, the oldest first. base: the scene as it was perceived; scene: with the user's
    regions among its own; regions: float32 Mx4, all that the user has brought so far, camera pixels."""

    base: Scene
    scene: Scene
    regions: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    turns: tuple[Turn, ...] = ()

    @classmethod
    def about(cls, scene: Scene) -> Conversation:
        """A new one."""
        return cls(scene, scene)

    def joined(
        self,
        boxes: FloatArray,
        refer: Callable[[Scene, FloatArray], tuple[Scene, list[int]]],
        tokenizer: GromaTokenizer,
    ) -> tuple[Conversation, list[int]]:
        """The conversation with the user's boxes (Mx4) among its regions, and the region that stands for each
        of them; earlier turns name the same boxes by their new numbers. refer: `Grounder.refer`.
        """
        regions = np.concatenate([self.regions, np.asarray(boxes, np.float32)])
        scene, own = refer(self.base, regions)
        places = (
            [int(best) for best in box_iou(self.scene.boxes, scene.boxes).argmax(1)] if self.turns else []
        )
        turns = tuple(_moved(turn, places, tokenizer) for turn in self.turns)
        return Conversation(self.base, scene, regions, turns), own[len(self.regions) :]

    def fitting(self, positions: int) -> Conversation:
        """Without the oldest turns that do not fit into a number of positions."""
        turns = list(self.turns)
        while turns and sum(len(turn.ids) for turn in turns) > positions:
            turns.pop(0)
        return replace(self, turns=tuple(turns))

    def with_turn(self, turn: Turn) -> Conversation:
        """One turn later."""
        return replace(self, turns=(*self.turns, turn))


def referring(text: str, count: int) -> tuple[tuple[Text, ...], tuple[int, ...]]:
    """A question about `count` regions as parts of a prompt, and which region each reference in it is,
    counted from 0.

    `{1}` stands for the first region, `{2}` for the second; without any the regions come first, in their
    order. Without regions every character is plain text. Raises ValueError with a sentence for a number that
    no region has, and where a region is left out.
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
    """What is remembered by name, so many at most: the one unused for longest is forgotten. One thread at a
    time may call it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: str) -> T | None:
        """What a name stands for, and use it; None for one that is not known or was forgotten."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def keep(self, name: str, kept: T, most: int) -> None:
        """Remember it, and forget what is more than `most`."""
        self._kept[name] = kept
        self._kept.move_to_end(name)
        while len(self._kept) > most:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def _moved(turn: Turn, places: Sequence[int], tokenizer: GromaTokenizer) -> Turn:
    ids = []
    for token in turn.ids:
        region = tokenizer.region_index(token)
        ids.append(token if region is None or region >= len(places) else tokenizer.region_id(places[region]))
    return Turn(tuple(ids), tuple(places[region] for region in turn.referred))
